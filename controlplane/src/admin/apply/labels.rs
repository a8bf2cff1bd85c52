//! Labels in an Apply, and every other node that a request names.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tonic::Status;
use wattle_model::{Labels, NetworkName, NodeId, Traits};
use wattle_proto::{
    admin::{self, resource::Kind},
    record::labels_map,
};

use super::{
    READ_AT_ONCE,
    draft::{Draft, Step},
    mistakes::Place,
    wish::{Asked, ExpectWish, LabelsWish},
};
use crate::{
    admin::session::Agents,
    nodes::{LoadedNode, store_failed},
};

/// An expectation of two nodes that there are.
pub(super) struct Expected {
    pub(super) place: Place,
    pub(super) network: NetworkName,
    pub(super) node: (NodeId, String),
    pub(super) other: (NodeId, String),
    pub(super) sees: bool,
}

/// Takes in the labels of a request. Returns the nodes that get new ones.
pub(super) async fn plan(
    agents: &Agents,
    draft: &mut Draft,
    wishes: Vec<(Asked, LabelsWish)>,
) -> Result<BTreeSet<NodeId>, Status> {
    let (mut first, mut changed) = (BTreeMap::new(), BTreeSet::new());
    let nodes = stream::iter(wishes).map(async |(asked, wish)| {
        let node = find(agents, draft, &wish.network, &wish.node).await?;
        Ok::<_, Status>((asked, wish, node))
    });
    let nodes: Vec<_> = nodes.buffered(READ_AT_ONCE).try_collect().await?;
    for (asked, wish, node) in nodes {
        let Some(node) = draft.mistakes.take(asked.place(), ".labels.node.node", node) else {
            continue;
        };
        if let Some(earlier) = first.insert(node.node, asked.index) {
            let why = format!("resources[{earlier}] is about the same node: say it once");
            draft.mistakes.add(asked.place(), "", why);
            continue;
        }
        if wish.labels != node.body.labels
            && let Err(why) = Labels::from_pairs(wish.labels.iter())
        {
            draft.mistakes.add(asked.place(), ".labels.labels", why);
            continue;
        }
        if draft.step(asked, step(draft.head, &wish, &node)) {
            let traits = Traits { labels: wish.labels, ..node.body.clone().into_traits() };
            let site = draft.sites.entry(wish.network);
            site.and_modify(|site| drop(site.proposal.traits.insert(node.node, traits)));
            changed.insert(node.node);
        }
        keep(draft, &node);
    }
    Ok(changed)
}

fn step(head: wattle_model::Revision, wish: &LabelsWish, node: &LoadedNode) -> Step {
    let spec = |labels: &Labels| {
        let name = node.record.name.to_string();
        let node = admin::NodeRef { network: wish.network.to_string(), node: name };
        Kind::Labels(admin::LabelsSpec { node: Some(node), labels: labels_map(labels) })
    };
    let revision = node.labelled();
    Step {
        network: wish.network.clone(),
        noun: "labels of",
        name: format!("{}/{}", wish.network, node.record.name),
        before: Some(spec(&node.body.labels)),
        after: Some(spec(&wish.labels)),
        revision,
        // A node's own revision rises with its endpoints, too, which say nothing of its labels.
        upto: revision.max(head),
        transaction: node.relabel(wish.labels.clone()),
    }
}

/// Finds the nodes of all expectations. Those that aren't `compared` yet, because they get no labels
/// here, must keep theirs until the commit.
pub(super) async fn expected(
    agents: &Agents,
    draft: &mut Draft,
    wishes: Vec<(Place, ExpectWish)>,
    mut compared: BTreeSet<NodeId>,
) -> Result<Vec<Expected>, Status> {
    let pairs = stream::iter(wishes).map(async |(place, wish)| {
        let node = find(agents, draft, &wish.network, &wish.node).await?;
        let other = find(agents, draft, &wish.network, &wish.other).await?;
        Ok::<_, Status>((place, wish, node, other))
    });
    let pairs: Vec<_> = pairs.buffered(READ_AT_ONCE).try_collect().await?;
    let mut expected = Vec::new();
    for (place, wish, node, other) in pairs {
        // What is missing was said before.
        let node = (!wish.node.is_empty()).then(|| draft.mistakes.take(place, ".node", node));
        let other = (!wish.other.is_empty()).then(|| draft.mistakes.take(place, ".other", other));
        let (Some(node), Some(other)) = (node.flatten(), other.flatten()) else { continue };
        if node.node == other.node {
            draft.mistakes.add(place, ".other", "the same node: name two");
            continue;
        }
        for node in [&node, &other] {
            if compared.insert(node.node) {
                let transaction = std::mem::take(&mut draft.transaction);
                draft.transaction = transaction.and(node.same_labels());
            }
            keep(draft, node);
        }
        let named = |node: LoadedNode| (node.node, node.record.name.to_string());
        let (network, sees) = (wish.network, wish.sees);
        expected.push(Expected { place, network, node: named(node), other: named(other), sees });
    }
    Ok(expected)
}

/// The index may not have it yet, or as it was.
fn keep(draft: &mut Draft, node: &LoadedNode) {
    let site = draft.sites.entry(node.record.network.clone());
    site.and_modify(|site| drop(site.nodes.insert(node.node, node.body.clone().into_traits())));
}

/// The one node that somebody means, or why it can't be told.
async fn find(
    agents: &Agents,
    draft: &Draft,
    network: &NetworkName,
    text: &str,
) -> Result<Result<LoadedNode, String>, Status> {
    // One that is only being made has no nodes; names of a deleted one may be left.
    let live = draft.sites.get(network).is_some_and(|site| site.record.present().is_some());
    // An error repeats at most this much of what somebody sent.
    let shown: String = text.chars().take(80).collect();
    let none = format!("network {network} has no node {shown}");
    if !live || text.is_empty() {
        return Ok(Err(none));
    }
    let by_id = agents.nodes.by_id(network, text).await.map_err(store_failed)?;
    let by_name = agents.nodes.by_name(network, text).await.map_err(store_failed)?;
    let id = match (by_id, by_name) {
        (Some(id), Some(named)) if id != named => {
            return Ok(Err(format!(
                "{shown} is the id of one node and the name of another, {named}: say that one's id"
            )));
        }
        (Some(id), _) | (None, Some(id)) => id,
        (None, None) => return Ok(Err(none)),
    };
    let loaded = agents.nodes.load(id).await.map_err(store_failed)?;
    Ok(loaded.ok_or(none))
}
