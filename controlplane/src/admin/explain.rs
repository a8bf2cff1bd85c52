//! Why two nodes see each other, or don't: the mode, the policies, and what is known of both agents.

use std::collections::BTreeMap;

use bytes::Bytes;
use tonic::Status;
use wattle_model::{Mode, NodeId};
use wattle_proto::admin;
use wattle_runtime::clock;

use super::{
    convert,
    error::invalid,
    nodes, policies,
    session::{self, Agents},
};

/// Policies named at the most: one is enough to see each other.
const MAX_POLICIES: usize = 100;

/// What the index says of two nodes of a network, once it has all that was written before the call.
pub(super) async fn explain(
    agents: &Agents,
    request: &admin::ExplainRequest,
) -> Result<admin::ExplainResponse, Status> {
    let (network, id, mut node) = nodes::one(agents, "node", request.node.as_ref()).await?;
    let (other_network, other_id, mut other) =
        nodes::one(agents, "other", request.other.as_ref()).await?;
    if other_network != network {
        return Err(invalid(
            "other.network",
            format!("networks never see each other: name a node of {network}"),
        ));
    }
    if other_id == id {
        return Err(invalid("other.node", "the same node: name two"));
    }
    agents.caught_up().await?;
    let (revision, shape) = {
        let index = agents.replica.live.read();
        (index.head(), index.shape(&network))
    };
    // It had both nodes a moment ago.
    let gone = || Status::unavailable("these nodes are just being deleted: try again");
    let live = shape.filter(|s| s.nodes.contains_key(&id) && s.nodes.contains_key(&other_id));
    let shape = live.ok_or_else(gone)?;
    let names = match shape.mode {
        // There all see all, whatever policies say.
        Mode::Mesh => Vec::new(),
        Mode::Closed => shape.policies_between(id, other_id),
    };
    let sees = shape.mode == Mode::Mesh || !names.is_empty();
    let names = names.into_iter().take(MAX_POLICIES).cloned();
    let store = &*agents.replica.store;
    let (silent, (node_tunnel, first), (other_tunnel, second)) = tokio::join!(
        nodes::add_sessions(agents, [&mut node, &mut other]),
        tunnel(agents, id, other_id),
        tunnel(agents, other_id, id)
    );
    let silent = silent.into_iter().chain(first).chain(second);
    let silent: BTreeMap<_, _> = silent.map(|silent| (silent.id.clone(), silent)).collect();
    Ok(admin::ExplainResponse {
        revision: revision.0,
        mode: convert::mode_message(shape.mode).into(),
        sees,
        policies: policies::named(store, &network, names).await?,
        node: Some(node),
        other: Some(other),
        node_tunnel,
        other_tunnel,
        silent_replicas: silent.into_values().collect(),
    })
}

/// What an agent says of its tunnel to a peer that it sees; `None` where it says nothing.
async fn tunnel(
    agents: &Agents,
    node: NodeId,
    peer: NodeId,
) -> (Option<admin::Tunnel>, Vec<admin::SilentReplica>) {
    let (tunnel, silent) = agents.replicas.inspect(node, peer).await;
    let tunnel = tunnel.map(|tunnel| {
        let handshake = tunnel.last_handshake.and_then(|ago| clock::now().checked_sub(ago));
        admin::Tunnel {
            endpoint: tunnel.endpoint.map_or_else(Bytes::new, |e| e.to_bytes().into()),
            last_handshake: handshake.map(Into::into),
        }
    });
    (tunnel, session::silent(silent))
}
