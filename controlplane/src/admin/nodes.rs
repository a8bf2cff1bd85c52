//! Nodes as operators see and change them. What a change means for a node's keys, `crate::nodes`
//! says; here is what operators may ask for.

use std::time::SystemTime;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tonic::Status;
use wattle_model::{Labels, NetworkName, NodeId, Selector};
use wattle_proto::{admin, record::labels_map};

use super::{
    convert::{self, parse},
    error::{Field as _, invalid},
    keys,
    mutation::Planned,
    networks,
    page::PageRequest,
    records,
    session::{self, Agents},
};
use crate::{
    nodes::{LoadedNode, store_failed},
    store::{Stored, keys as store_keys},
};

/// Peers read at once for one page.
pub(super) const READ_AT_ONCE: usize = 32;

/// One node.
pub(super) async fn get(
    agents: &Agents,
    request: &admin::GetNodeRequest,
) -> Result<admin::GetNodeResponse, Status> {
    let (_, _, mut node) = one(agents, "node", request.node.as_ref()).await?;
    keys::add(agents, std::slice::from_mut(&mut node)).await?;
    let silent_replicas = add_sessions(agents, [&mut node]).await;
    Ok(admin::GetNodeResponse { node: Some(node), silent_replicas })
}

/// Says of each node how its agent is. Returns the replicas that weren't heard.
pub(super) async fn add_sessions<'a>(
    agents: &Agents,
    nodes: impl IntoIterator<Item = &'a mut admin::Node>,
) -> Vec<admin::SilentReplica> {
    let named = nodes.into_iter().filter_map(|node| {
        let (network, id) = (node.network.parse().ok()?, NodeId::try_from(node.id.as_ref()).ok()?);
        Some((network, id, node))
    });
    let named: Vec<(NetworkName, NodeId, _)> = named.collect();
    let ids: Vec<_> = named.iter().map(|(_, id, _)| *id).collect();
    let (known, silent) = agents.replicas.known(Some(&ids)).await;
    for (network, id, node) in named {
        node.session = agents.session(&network, id, &known);
    }
    session::silent(silent)
}

/// The node that a field of a request names; what its agent does isn't looked up.
pub(super) async fn one(
    agents: &Agents,
    field: &str,
    node: Option<&admin::NodeRef>,
) -> Result<(NetworkName, NodeId, admin::Node), Status> {
    let (network, id) = find(agents, field, node).await?;
    let stored =
        agents.replica.store.get(&store_keys::node(&network, id)).await.map_err(store_failed)?;
    let node = match stored {
        Some(stored) => message(agents, &stored).await?,
        None => None,
    };
    let node = node.ok_or_else(|| none(field, &network, &id.to_string()))?;
    Ok((network, id, node))
}

/// A page of live nodes.
pub(super) async fn list(
    agents: &Agents,
    request: &admin::ListNodesRequest,
) -> Result<admin::ListNodesResponse, Status> {
    let store = &*agents.replica.store;
    let prefix = match request.network.as_str() {
        "" => store_keys::all_nodes(),
        name => store_keys::nodes(&networks::find(store, "network", name).await?.name),
    };
    let selector: Selector = parse("selector", &request.selector)?;
    let page = PageRequest::new(prefix, request.page_size, &request.page_token)?;
    let (stored, next_page_token) = page
        .read(store, |stored| {
            let (_, id, history) = records::node(stored)?;
            let body = history.present().body.as_ref();
            let meant = body.is_some_and(|body| selector.matches(id, &body.clone().into_traits()));
            Ok(meant.then(|| stored.clone()))
        })
        .await?;
    let nodes = stream::iter(stored).map(async |stored| message(agents, &stored).await);
    let nodes: Vec<Option<admin::Node>> = nodes.buffered(READ_AT_ONCE).try_collect().await?;
    // One that isn't there was deleted since the list was read.
    let mut nodes: Vec<_> = nodes.into_iter().flatten().collect();
    keys::add(agents, &mut nodes).await?;
    let silent_replicas = add_sessions(agents, &mut nodes).await;
    Ok(admin::ListNodesResponse { nodes, next_page_token, silent_replicas })
}

/// Sets and removes labels of a node; all others stay.
pub(super) async fn plan_label(
    agents: &Agents,
    request: &admin::LabelNodeRequest,
) -> Result<Planned<admin::LabelNodeResponse>, Status> {
    let loaded = load(agents, request.node.as_ref()).await?;
    let labels = changed(&loaded.body.labels, request)?;
    let peer = store_keys::peer(&loaded.record.network, loaded.node);
    let peer = agents.replica.store.get(&peer).await.map_err(store_failed)?;
    let Some(peer) = peer else {
        return Err(none("node", &loaded.record.network, loaded.record.name.as_str()));
    };
    let mut node = records::node_message(&loaded.record.network, &loaded.body, &peer)?;
    node.labels = labels_map(&labels);
    keys::add(agents, std::slice::from_mut(&mut node)).await?;
    if labels == loaded.body.labels {
        node.revision = loaded.revision().0.max(peer.modified.0);
        let answer = admin::LabelNodeResponse { node: Some(node), revision: 0 };
        return Ok(Planned::nothing(loaded.unchanged(), answer));
    }
    let answer = admin::LabelNodeResponse { node: Some(node), revision: 0 };
    Ok(Planned { transaction: loaded.plan_label(labels), answer })
}

/// The end of a node: its peers drop it, and its keys are refused.
pub(super) async fn plan_delete(
    agents: &Agents,
    request: &admin::DeleteNodeRequest,
    now: SystemTime,
) -> Result<Planned<admin::DeleteNodeResponse>, Status> {
    let loaded = load(agents, request.node.as_ref()).await?;
    let answer = admin::DeleteNodeResponse::default();
    Ok(Planned { transaction: loaded.plan_delete(now), answer })
}

fn changed(labels: &Labels, request: &admin::LabelNodeRequest) -> Result<Labels, Status> {
    if request.set.is_empty() && request.remove.is_empty() {
        return Err(invalid("set", "nothing to change: name a label to set or to remove"));
    }
    if let Some(key) = request.remove.iter().find(|key| request.set.contains_key(*key)) {
        return Err(invalid("remove", format!("label {key} is also set: say one of the two")));
    }
    // Checked by themselves first, so that the field is named that holds the mistake.
    convert::labels("set", &request.set)?;
    Labels::from_stored(request.remove.iter().map(|key| (key, ""))).in_field("remove")?;
    let mut pairs = labels_map(labels);
    pairs.retain(|key, _| !request.remove.contains(key));
    pairs.extend(request.set.clone());
    Labels::from_stored(&pairs).in_field("set")
}

pub(super) async fn load(
    agents: &Agents,
    node: Option<&admin::NodeRef>,
) -> Result<LoadedNode, Status> {
    let (network, id) = find(agents, "node", node).await?;
    let loaded = agents.nodes.load(id).await.map_err(store_failed)?;
    loaded.ok_or_else(|| none("node", &network, &id.to_string()))
}

/// By id, or by name.
async fn find(
    agents: &Agents,
    field: &str,
    node: Option<&admin::NodeRef>,
) -> Result<(NetworkName, NodeId), Status> {
    let Some(node) = node.filter(|node| !node.node.is_empty()) else {
        return Err(invalid(&format!("{field}.node"), "missing: say the node's name or id"));
    };
    let store = &*agents.replica.store;
    let network = networks::find(store, &format!("{field}.network"), &node.network).await?.name;
    let found = agents.nodes.find(&network, &node.node).await.map_err(store_failed)?;
    found.map(|id| (network.clone(), id)).ok_or_else(|| none(field, &network, &node.node))
}

/// An error repeats at most this much of what somebody sent.
fn none(field: &str, network: &NetworkName, node: &str) -> Status {
    let node: String = node.chars().take(80).collect();
    Status::not_found(format!("{field}.node: network {network} has no node {node}"))
}

/// The node of a `v1/node/` record, without its session; `None` where it doesn't live.
async fn message(agents: &Agents, stored: &Stored) -> Result<Option<admin::Node>, Status> {
    let (network, id, history) = records::node(stored)?;
    let Some(body) = &history.present().body else { return Ok(None) };
    let peer = store_keys::peer(&network, id);
    let Some(peer) = agents.replica.store.get(&peer).await.map_err(store_failed)? else {
        return Ok(None);
    };
    let mut node = records::node_message(&network, body, &peer)?;
    node.revision = history.present().from.0.max(peer.modified.0);
    Ok(Some(node))
}
