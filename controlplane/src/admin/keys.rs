//! Nodes' WireGuard keys as operators see them, and the wish for another one. How that comes,
//! `crate::rotation` says.

use std::{collections::BTreeSet, time::SystemTime};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use tonic::Status;
use wattle_model::{NetworkName, NodeId};
use wattle_proto::admin::{self, KeyRotation};

use super::{
    mutation::Planned,
    nodes::{self, READ_AT_ONCE},
    session::Agents,
};
use crate::{
    nodes::store_failed,
    store::{StoreError, Transaction, keys},
};

/// Wishes a node another key. One that was wished before and hasn't come yet is the same wish.
pub(super) async fn plan_rotate(
    agents: &Agents,
    request: &admin::RotateNodeKeyRequest,
    now: SystemTime,
) -> Result<Planned<admin::RotateNodeKeyResponse>, Status> {
    let loaded = nodes::load(agents, request.node.as_ref()).await?;
    let (_, _, mut node) = nodes::one(agents, "node", request.node.as_ref()).await?;
    add(agents, std::slice::from_mut(&mut node)).await?;
    nodes::add_sessions(agents, [&mut node]).await;
    if node.session.as_ref().is_some_and(|session| session.data_plane == "userspace") {
        return Err(Status::failed_precondition(format!(
            "node.node: {} has a userspace data plane, which can't change its key without breaking \
             off what it does: load the kernel's WireGuard there, or have it leave and join anew",
            node.name
        )));
    }
    // What its agent does isn't a part of the answer: repeated, it has to be the same.
    node.session = None;
    let answer = admin::RotateNodeKeyResponse { node: Some(node), revision: 0 };
    let key = keys::rotation(&loaded.record.network, loaded.node);
    match agents.replica.store.get(&key).await.map_err(store_failed)? {
        Some(wished) => Ok(Planned::nothing(Transaction::default().unchanged(&wished), answer)),
        None => Ok(Planned { transaction: loaded.plan_rotation(now), answer }),
    }
}

/// Says of each node since when it has its key, and whether that is being changed.
pub(super) async fn add(agents: &Agents, nodes: &mut [admin::Node]) -> Result<(), Status> {
    let networks: BTreeSet<String> = nodes.iter().map(|node| node.network.clone()).collect();
    let mut turns = BTreeSet::new();
    for network in networks {
        let Ok(network) = network.parse::<NetworkName>() else { continue };
        turns.extend(agents.nodes.turns(&network).await.map_err(store_failed)?);
    }
    let each: Vec<_> = nodes.iter_mut().map(|node| add_one(agents, node, &turns)).collect();
    let all = stream::iter(each).buffered(READ_AT_ONCE);
    all.try_collect::<()>().await.map_err(store_failed)
}

async fn add_one(
    agents: &Agents,
    node: &mut admin::Node,
    turns: &BTreeSet<NodeId>,
) -> Result<(), StoreError> {
    let named = (node.network.parse::<NetworkName>(), NodeId::try_from(node.id.as_ref()));
    let (Ok(network), Ok(id)) = named else { return Ok(()) };
    if let Some(loaded) = agents.nodes.load(id).await? {
        node.key_since = Some(loaded.record.keyed_at.into());
    }
    let wished = agents.replica.store.get(&keys::rotation(&network, id)).await?.is_some();
    let rotation = match (wished, turns.contains(&id)) {
        (true, true) => KeyRotation::UnderWay,
        (true, false) => KeyRotation::Waiting,
        (false, _) => KeyRotation::Unspecified,
    };
    node.key_rotation = rotation.into();
    Ok(())
}
