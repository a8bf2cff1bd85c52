//! Networks in an Apply: made, given another mode, MTU or age of keys, preshared keys or none, or other
//! ranges while no node lives in them.

use std::time::SystemTime;

use tonic::Status;
use wattle_model::{Mtu, NetworkName};
use wattle_proto::{
    admin::{self, resource::Kind},
    record::NetworkBody,
};
use wattle_runtime::clock;

use super::{
    draft::{Draft, Step},
    mistakes::Place,
    wish::{Asked, NetworkWish},
};
use crate::{
    admin::{convert, error::Wrong, networks, range::Ranges, secrets},
    store::{Store, Transaction},
};

/// Takes in all networks of a request. They are looked at together: no two may overlap in the end.
pub(super) async fn plan(
    store: &dyn Store,
    draft: &mut Draft,
    wishes: &[(Asked, NetworkWish)],
    now: SystemTime,
) -> Result<(), Status> {
    let mut moved = Vec::new();
    for (asked, wish) in wishes {
        let Some(site) = draft.sites.get(&wish.name) else { continue };
        let present = site.record.present().cloned();
        let ranges = match ranges(wish, present.as_ref()) {
            Ok(ranges) => ranges,
            Err(wrong) => {
                mistake(draft, asked.place(), &wrong);
                continue;
            }
        };
        let next = body(wish, present.as_ref(), ranges, now);
        if let Err(wrong) = convert::check_mtu(next.mtu, &ranges) {
            mistake(draft, asked.place(), &wrong);
        }
        let mut transaction = Transaction::default();
        if present.as_ref().is_none_or(|body| Ranges::of(body) != ranges) {
            let mut may_move = true;
            if let Some(body) = &present {
                match networks::empty(store, &wish.name).await? {
                    Ok(empty) => transaction = empty,
                    Err(why) => {
                        let ipv4 = body.ipv4_range != next.ipv4_range;
                        let field = if ipv4 { "ipv4_range" } else { "ipv6_range" };
                        mistake(draft, asked.place(), &Wrong::new(field, why));
                        may_move = false;
                    }
                }
            }
            moved.extend(may_move.then(|| (asked.place(), wish.name.clone(), ranges)));
        }
        let before = present.as_ref().is_some_and(|body| body.preshared_keys);
        let turned = secrets::turn(store, &wish.name, (before, next.preshared_keys), now).await?;
        let site = &draft.sites[&wish.name];
        let step = Step {
            network: wish.name.clone(),
            noun: "network",
            name: wish.name.to_string(),
            before: present.as_ref().map(|body| spec(&wish.name, body)),
            after: Some(spec(&wish.name, &next)),
            revision: site.record.revision(),
            upto: site.record.revision(),
            transaction: transaction.and(turned).and(site.record.write(Some(&next))),
        };
        draft.step(*asked, step);
        draft.sites.entry(wish.name.clone()).and_modify(|s| s.proposal.mode = Some(next.mode));
    }
    claim(store, draft, &moved).await
}

/// Other networks, as they will be, must not have the same addresses.
async fn claim(
    store: &dyn Store,
    draft: &mut Draft,
    moved: &[(Place, NetworkName, Ranges)],
) -> Result<(), Status> {
    let Some((_, last, _)) = moved.last() else { return Ok(()) };
    let (mut all, unchanged) = networks::all_ranges(store).await?;
    all.extend(moved.iter().map(|(_, name, ranges)| (name.clone(), *ranges)));
    for (place, name, ranges) in moved {
        let wrong = networks::overlaps(&all, name, *ranges);
        wrong.iter().for_each(|wrong| mistake(draft, *place, wrong));
    }
    let claimed = unchanged.and(networks::ranged(last));
    draft.transaction = std::mem::take(&mut draft.transaction).and(claimed);
    Ok(())
}

fn mistake(draft: &mut Draft, place: Place, wrong: &Wrong) {
    draft.mistakes.add(place, &format!(".network.{}", wrong.field), &wrong.why);
}

fn ranges(wish: &NetworkWish, present: Option<&NetworkBody>) -> Result<Ranges, Wrong> {
    let text = |wished: &Option<String>, of: fn(&NetworkBody) -> &String| {
        wished.clone().or_else(|| present.map(|body| of(body).clone())).unwrap_or_default()
    };
    let ipv4 = text(&wish.ipv4_range, |body| &body.ipv4_range);
    let ipv6 = text(&wish.ipv6_range, |body| &body.ipv6_range);
    if present.is_none() && ipv4.is_empty() && ipv6.is_empty() {
        return Ok(Ranges::random());
    }
    Ranges::parse(&ipv4, &ipv6)
}

fn body(
    wish: &NetworkWish,
    present: Option<&NetworkBody>,
    ranges: Ranges,
    now: SystemTime,
) -> NetworkBody {
    let mode = wish.mode.or(present.map(|body| body.mode)).unwrap_or_default();
    NetworkBody {
        created_at_millis: present
            .map_or_else(|| clock::unix_millis(now), |body| body.created_at_millis),
        ipv4_range: ranges.ipv4_text(),
        ipv6_range: ranges.ipv6_text(),
        mode,
        key_rotation_seconds: wish
            .key_rotation_seconds
            .or(present.map(|body| body.key_rotation_seconds))
            .unwrap_or(0),
        mtu: wish.mtu.unwrap_or_else(|| present.and_then(|body| body.mtu)),
        preshared_keys: wish
            .preshared_keys
            .unwrap_or_else(|| present.is_some_and(|body| body.preshared_keys)),
    }
}

fn spec(name: &NetworkName, body: &NetworkBody) -> Kind {
    Kind::Network(admin::NetworkSpec {
        name: name.to_string(),
        ipv4_range: Some(body.ipv4_range.clone()),
        ipv6_range: Some(body.ipv6_range.clone()),
        mode: convert::mode_message(body.mode).into(),
        key_rotation: convert::key_rotation_message(body.key_rotation_seconds),
        mtu: Some(body.mtu.map_or(0, Mtu::bytes)),
        preshared_keys: body.preshared_keys.then_some(true),
    })
}
