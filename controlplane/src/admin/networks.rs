//! Networks: what may be one, and what may change while nodes live in it.
//!
//! Some rules span keys that one transaction can't compare: ranges of two networks never overlap, a
//! network that is deleted or moved has no node, and its policies go with it. Every change of ranges
//! therefore writes `keys::ranges`, whatever adds a node or a token to a network writes its
//! `keys::occupancy`, and whatever writes it or its policies writes its `keys::shape`; all are
//! compared with what was read before the check.

use std::{collections::BTreeMap, time::SystemTime};

use bytes::Bytes;
use prost::Message as _;
use tonic::Status;
use wattle_model::{History, Mode, NetworkName, Revision};
use wattle_proto::{
    admin,
    record::{self, NetworkBody},
    store::JoinToken,
};
use wattle_runtime::clock;

use super::{
    convert::{self, parse},
    error::Wrong,
    mutation::Planned,
    page::PageRequest,
    range::Ranges,
    records, secrets,
};
use crate::{
    nodes::store_failed,
    store::{Store, Stored, Transaction, keys},
};

/// Join tokens and policies that go together with their network, at most: one transaction holds
/// them.
const MAX_GONE: usize = 100;

/// A network that lives, as it was read.
pub(super) struct Found {
    pub(super) name: NetworkName,
    pub(super) stored: Stored,
    pub(super) history: History<NetworkBody>,
    pub(super) body: NetworkBody,
}

impl Found {
    pub(super) fn since(&self) -> Revision {
        self.history.present().from
    }
}

/// Reads a network; NOT_FOUND where there is none.
pub(super) async fn find(store: &dyn Store, field: &str, name: &str) -> Result<Found, Status> {
    let name: NetworkName = parse(field, name)?;
    let stored = store.get(&keys::network(&name)).await.map_err(store_failed)?;
    let none = || Status::not_found(format!("{field}: there is no network {name}"));
    let stored = stored.ok_or_else(none)?;
    let (_, history) = records::network(&stored)?;
    let body = history.present().body.clone().ok_or_else(none)?;
    Ok(Found { name, stored, history, body })
}

/// One network.
pub(super) async fn get(
    store: &dyn Store,
    request: &admin::GetNetworkRequest,
) -> Result<admin::GetNetworkResponse, Status> {
    let found = find(store, "name", &request.name).await?;
    let network = convert::network(&found.name, &found.body, found.since());
    Ok(admin::GetNetworkResponse { network: Some(network) })
}

/// A page of networks.
pub(super) async fn list(
    store: &dyn Store,
    request: &admin::ListNetworksRequest,
) -> Result<admin::ListNetworksResponse, Status> {
    let page = PageRequest::new(keys::networks(), request.page_size, &request.page_token)?;
    let (networks, next_page_token) = page
        .read(store, |stored| {
            let (name, history) = records::network(stored)?;
            let present = history.present();
            Ok(present.body.as_ref().map(|body| convert::network(&name, body, present.from)))
        })
        .await?;
    Ok(admin::ListNetworksResponse { networks, next_page_token })
}

/// A new network, or a deleted one made anew.
pub(super) async fn plan_create(
    store: &dyn Store,
    request: &admin::CreateNetworkRequest,
    now: SystemTime,
) -> Result<Planned<admin::CreateNetworkResponse>, Status> {
    let name: NetworkName = parse("name", &request.name)?;
    let ranges = match (request.ipv4_range.as_str(), request.ipv6_range.as_str()) {
        ("", "") => Ranges::random(),
        (ipv4, ipv6) => Ranges::parse(ipv4, ipv6)?,
    };
    let mtu = convert::mtu(Some(request.mtu))?.flatten();
    convert::check_mtu(mtu, &ranges)?;
    let body = NetworkBody {
        created_at_millis: clock::unix_millis(now),
        ipv4_range: ranges.ipv4_text(),
        ipv6_range: ranges.ipv6_text(),
        mode: convert::mode(request.mode)?.unwrap_or_default(),
        key_rotation_seconds: convert::key_rotation(request.key_rotation)?.unwrap_or(0),
        mtu,
        preshared_keys: request.preshared_keys,
    };
    let key = keys::network(&name);
    let transaction = match store.get(&key).await.map_err(store_failed)? {
        None => Transaction::default().create(key, record::encode_first(&body)),
        Some(stored) => {
            let (_, history) = records::network(&stored)?;
            if history.present().body.is_some() {
                return Err(Status::already_exists(format!(
                    "name: there is a network {name} already: choose another name"
                )));
            }
            let anew = record::encode_changed(history, Some(body.clone()));
            Transaction::default().replace(&stored, anew)
        }
    };
    let transaction = transaction
        .and(claim_ranges(store, &name, ranges).await?)
        .and(secrets::turn(store, &name, (false, body.preshared_keys), now).await?)
        .and(shaped(&name));
    let network = convert::network(&name, &body, Revision::ZERO);
    let answer = admin::CreateNetworkResponse { network: Some(network), revision: 0 };
    Ok(Planned { transaction, answer })
}

/// Another mode, age of keys or MTU, preshared keys or none, or other ranges while no node lives in it.
pub(super) async fn plan_update(
    store: &dyn Store,
    request: &admin::UpdateNetworkRequest,
    now: SystemTime,
) -> Result<Planned<admin::UpdateNetworkResponse>, Status> {
    let found = find(store, "name", &request.name).await?;
    let body = found.body.clone();
    let ranges = Ranges::parse(
        request.ipv4_range.as_deref().unwrap_or(&body.ipv4_range),
        request.ipv6_range.as_deref().unwrap_or(&body.ipv6_range),
    )?;
    let mode: Mode = convert::mode(request.mode)?.unwrap_or(body.mode);
    let (ipv4_range, ipv6_range) = (ranges.ipv4_text(), ranges.ipv6_text());
    let key_rotation_seconds =
        convert::key_rotation(request.key_rotation)?.unwrap_or(body.key_rotation_seconds);
    let mtu = convert::mtu(request.mtu)?.unwrap_or(body.mtu);
    convert::check_mtu(mtu, &ranges)?;
    let preshared_keys = request.preshared_keys.unwrap_or(body.preshared_keys);
    let next = NetworkBody {
        ipv4_range,
        ipv6_range,
        mode,
        key_rotation_seconds,
        mtu,
        preshared_keys,
        ..body
    };
    if next == found.body {
        let network = convert::network(&found.name, &found.body, found.since());
        let answer = admin::UpdateNetworkResponse { network: Some(network), revision: 0 };
        return Ok(Planned::nothing(Transaction::default().unchanged(&found.stored), answer));
    }
    let turned = (found.body.preshared_keys, preshared_keys);
    let mut transaction = secrets::turn(store, &found.name, turned, now).await?;
    if ranges != Ranges::of(&found.body) {
        let field =
            if next.ipv4_range == found.body.ipv4_range { "ipv6_range" } else { "ipv4_range" };
        transaction = transaction
            .and(must_be_empty(store, field, &found.name).await?)
            .and(claim_ranges(store, &found.name, ranges).await?);
    }
    let network = convert::network(&found.name, &next, Revision::ZERO);
    let changed = record::encode_changed(found.history, Some(next));
    let answer = admin::UpdateNetworkResponse { network: Some(network), revision: 0 };
    let transaction = transaction.replace(&found.stored, changed).and(shaped(&found.name));
    Ok(Planned { transaction, answer })
}

/// The end of a network in which no node lives. Its join tokens and policies go with it: they must
/// not open or shape a later network of the same name.
pub(super) async fn plan_delete(
    store: &dyn Store,
    request: &admin::DeleteNetworkRequest,
    now: SystemTime,
) -> Result<Planned<admin::DeleteNetworkResponse>, Status> {
    let found = find(store, "name", &request.name).await?;
    let shape = keys::shape(&found.name);
    let read = store.get(&shape).await.map_err(store_failed)?;
    let transaction = must_be_empty(store, "name", &found.name)
        .await?
        .and(with_network(store, &found.name, now).await?)
        .and(secrets::forget(store, &found.name).await?)
        .as_read(shape, read.as_ref())
        .and(shaped(&found.name))
        .replace(&found.stored, record::encode_changed(found.history, None));
    Ok(Planned { transaction, answer: admin::DeleteNetworkResponse::default() })
}

/// Refuses while a node lives in the network; the comparison keeps it so until the commit.
async fn must_be_empty(
    store: &dyn Store,
    field: &str,
    name: &NetworkName,
) -> Result<Transaction, Status> {
    empty(store, name).await?.map_err(|why| Status::failed_precondition(format!("{field}: {why}")))
}

/// That no node lives in the network: what has to hold at the commit for it to stay so, or why not.
pub(super) async fn empty(
    store: &dyn Store,
    name: &NetworkName,
) -> Result<Result<Transaction, String>, Status> {
    let key = keys::occupancy(name);
    let before = store.get(&key).await.map_err(store_failed)?;
    let mut live = false;
    records::each(store, &keys::nodes(name), |stored| {
        let (_, _, node) = records::node(stored)?;
        live |= node.present().body.is_some();
        Ok(())
    })
    .await?;
    if live {
        return Ok(Err(format!("nodes live in network {name}: delete them first")));
    }
    Ok(Ok(Transaction::default().as_read(key, before.as_ref())))
}

/// What every transaction writes that writes a network or a policy of it.
pub(super) fn shaped(name: &NetworkName) -> Transaction {
    Transaction::default().put(keys::shape(name), Bytes::new())
}

/// The ranges of all networks, and what has to hold at the commit for them to stay so.
pub(super) async fn all_ranges(
    store: &dyn Store,
) -> Result<(BTreeMap<NetworkName, Ranges>, Transaction), Status> {
    let key = keys::ranges();
    let before = store.get(&key).await.map_err(store_failed)?;
    let mut all = BTreeMap::new();
    records::each(store, &keys::networks(), |stored| {
        let (name, history) = records::network(stored)?;
        all.extend(history.present().body.as_ref().map(|body| (name, Ranges::of(body))));
        Ok(())
    })
    .await?;
    Ok((all, Transaction::default().as_read(key, before.as_ref())))
}

/// Ranges that another network has: of each family, the first.
pub(super) fn overlaps(
    all: &BTreeMap<NetworkName, Ranges>,
    name: &NetworkName,
    ranges: Ranges,
) -> Vec<Wrong> {
    let mut first = BTreeMap::new();
    for (other, theirs) in all.iter().filter(|(other, _)| *other != name) {
        for (field, range) in ranges.overlaps(theirs).into_iter().flatten() {
            let why = format!("it overlaps {range} of network {other}: choose another range");
            first.entry(field).or_insert_with(|| Wrong::new(field, why));
        }
    }
    first.into_values().collect()
}

/// What every transaction writes that gives a network its ranges.
pub(super) fn ranged(name: &NetworkName) -> Transaction {
    Transaction::default().put(keys::ranges(), name.to_string().into_bytes().into())
}

/// Refuses ranges that another network has; the comparison keeps it so until the commit.
async fn claim_ranges(
    store: &dyn Store,
    name: &NetworkName,
    ranges: Ranges,
) -> Result<Transaction, Status> {
    let (all, unchanged) = all_ranges(store).await?;
    match overlaps(&all, name, ranges).into_iter().next() {
        Some(wrong) => Err(wrong.into()),
        None => Ok(unchanged.and(ranged(name))),
    }
}

/// Revokes the network's join tokens and deletes its policies.
async fn with_network(
    store: &dyn Store,
    name: &NetworkName,
    now: SystemTime,
) -> Result<Transaction, Status> {
    let (mut transaction, now) = (Transaction::default(), clock::unix_millis(now));
    let mut replace = |stored: &Stored, value: Bytes| {
        if transaction.operations.len() == MAX_GONE {
            return Err(Status::failed_precondition(format!(
                "name: network {name} has more than {MAX_GONE} live join tokens and policies, the \
                 most that go with it: revoke or delete some first"
            )));
        }
        transaction = std::mem::take(&mut transaction).replace(stored, value);
        Ok(())
    };
    records::each(store, &keys::join_tokens(), |stored| {
        let (_, token) = records::join_token(stored)?;
        if token.network != name.as_str() || token.revoked || token.expires_at_millis <= now {
            return Ok(());
        }
        replace(stored, JoinToken { revoked: true, ..token }.encode_to_vec().into())
    })
    .await?;
    records::each(store, &keys::policies(name), |stored| {
        let (_, _, history) = records::policy(stored)?;
        if history.present().body.is_none() {
            return Ok(());
        }
        replace(stored, record::encode_changed(history, None))
    })
    .await?;
    Ok(transaction)
}
