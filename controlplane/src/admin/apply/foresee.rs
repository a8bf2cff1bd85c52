//! What a draft means for sight: who begins and ceases to see whom, and whether that is what the
//! request expects.

use std::collections::BTreeMap;

use tonic::Status;
use wattle_model::{Mode, NetworkName, NodeId};
use wattle_proto::admin;
use wattle_view::{Effect, Shape, Sights};

use super::{
    draft::Draft,
    labels::Expected,
    mistakes::{Mistakes, Place},
};
use crate::admin::{session::Agents, wait};

/// Nodes named in each network; the counts tell of all.
const MAX_NAMED: usize = 100;

/// One network, now and then.
struct Outlook {
    before: Shape,
    after: Shape,
    changed: bool,
}

/// The effect of a draft; expectations that don't hold are added to `unmet`.
pub(super) async fn foresee(
    agents: &Agents,
    draft: &Draft,
    expected: Vec<Expected>,
    unmet: &mut Mistakes,
) -> Result<Vec<admin::SightChange>, Status> {
    let outlooks = outlooks(agents, draft, &expected);
    // Many nodes of many kinds take a while, which other calls needn't wait for.
    let looking = tokio::task::spawn_blocking(move || look(outlooks, &expected));
    let (effects, broken) = looking.await.map_err(|error| {
        tracing::error!(%error, "a change's effect can't be told");
        Status::internal("what the change means can't be told: see the control plane's log")
    })?;
    for (place, why) in broken {
        unmet.add(place, "", why);
    }
    Ok(effects.into_iter().map(|(network, effect)| message(agents, &network, effect)).collect())
}

fn outlooks(
    agents: &Agents,
    draft: &Draft,
    expected: &[Expected],
) -> BTreeMap<NetworkName, Outlook> {
    let of_interest = |name: &NetworkName| expected.iter().any(|e| e.network == *name);
    let sites = draft.sites.iter().filter(|(name, site)| site.changed || of_interest(name));
    let outlook = |(name, site): (&NetworkName, &super::draft::Site)| {
        let present = site.record.present().map(|body| body.mode);
        // The index may know more of a network that was just deleted than whoever makes it anew.
        let shape = present.and_then(|_| agents.replica.live.read().shape(name));
        let mut before = shape.unwrap_or_else(|| Shape::empty(Mode::Closed));
        before.mode = present.unwrap_or(before.mode);
        let read = site.nodes.iter().map(|(node, traits)| (*node, traits.clone().into()));
        before.nodes.extend(read);
        let after = before.clone().proposed(site.proposal.clone());
        (name.clone(), Outlook { before, after, changed: site.changed })
    };
    sites.map(outlook).collect()
}

type Looked = (Vec<(NetworkName, Effect)>, Vec<(Place, String)>);

fn look(outlooks: BTreeMap<NetworkName, Outlook>, expected: &[Expected]) -> Looked {
    let (mut effects, mut broken) = (Vec::new(), Vec::new());
    for (network, Outlook { before, after, changed }) in outlooks {
        let sights = Sights::new(&after);
        for expected in expected.iter().filter(|expected| expected.network == network) {
            if sights.sees(expected.node.0, expected.other.0) != expected.sees {
                broken.push((expected.place, why(expected, &after)));
            }
        }
        if changed {
            effects.push((network, Sights::new(&before).effect(&sights, MAX_NAMED)));
        }
    }
    (effects, broken)
}

/// Why an expectation doesn't hold.
fn why(expected: &Expected, after: &Shape) -> String {
    let Expected { network, node: (node, name), other: (other, other_name), .. } = expected;
    if expected.sees {
        return format!(
            "{name} doesn't see {other_name}: network {network} is closed, and no policy lets them"
        );
    }
    if after.mode == Mode::Mesh {
        return format!("{name} sees {other_name}: network {network} is a mesh, all see all");
    }
    let policies = after.policies_between(*node, *other);
    let few: Vec<_> = policies.iter().take(5).map(ToString::to_string).collect();
    let (noun, let_them) =
        if policies.len() == 1 { ("policy", "lets") } else { ("policies", "let") };
    let more = policies.len() - few.len();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{name} sees {other_name}: {noun} {}{more} {let_them} them", few.join(", "))
}

fn message(agents: &Agents, network: &NetworkName, effect: Effect) -> admin::SightChange {
    let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let node = |id: NodeId| bytes::Bytes::copy_from_slice(id.as_bytes());
    let nodes = effect.nodes.into_iter().map(|changed| admin::NodeSightChange {
        node_id: node(changed.node),
        name: wait::name(agents, network, changed.node),
        gained: count(changed.gained),
        lost: count(changed.lost),
    });
    admin::SightChange {
        network: network.to_string(),
        pairs_gained: effect.pairs_gained,
        pairs_lost: effect.pairs_lost,
        nodes_changed: count(effect.nodes_changed as u64),
        nodes: nodes.collect(),
    }
}
