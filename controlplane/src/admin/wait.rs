//! Waiting until a revision is applied: the answer names whoever hasn't, by name.

use std::time::Duration;

use bytes::Bytes;
use tonic::Status;
use wattle_model::{NetworkName, NodeId, Revision};
use wattle_proto::{admin, entry};

use super::{
    convert,
    error::invalid,
    session::{self, Agents},
};
use crate::{
    nodes::store_failed,
    stream::{Lagging, Progress},
};

const UNSET: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
/// Nodes named of each kind; the counts tell of all.
const MAX_NAMED: usize = 100;

pub(super) async fn wait_applied(
    agents: &Agents,
    request: &admin::WaitAppliedRequest,
) -> Result<admin::WaitAppliedResponse, Status> {
    let timeout = convert::duration("timeout", request.timeout, UNSET, LONGEST)?;
    let revision = Revision(request.revision);
    let head = agents.replica.store.head().await.map_err(store_failed)?;
    if revision == Revision::ZERO || revision > head {
        return Err(invalid(
            "revision",
            format!("the store is at {head}: wait for one from 1 to {head}"),
        ));
    }
    let (progress, silent) = agents.replicas.wait_applied(revision, timeout).await;
    if !progress.indexed {
        let indexed = agents.replica.live.read().head();
        return Err(Status::unavailable(format!(
            "this replica has read the store up to revision {indexed} only, not to {revision}: \
             try again"
        )));
    }
    Ok(admin::WaitAppliedResponse {
        silent_replicas: session::silent(silent),
        ..message(agents, revision, progress)
    })
}

fn message(agents: &Agents, revision: Revision, progress: Progress) -> admin::WaitAppliedResponse {
    let Progress { applied, pending, rejected, offline, .. } = progress;
    let passage = agents.replica.live.passage(revision);
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let named = |nodes: &[Lagging]| {
        nodes.iter().take(MAX_NAMED).map(|node| lagging(agents, node)).collect()
    };
    let after = applied.iter().filter_map(|node| {
        let micros = node.after?.as_micros();
        Some(admin::AppliedAfter {
            name: name(agents, &node.network, node.node),
            micros: u64::try_from(micros).unwrap_or(u64::MAX),
        })
    });
    admin::WaitAppliedResponse {
        revision: revision.0,
        concerned: count(applied.len() + pending.len() + rejected.len() + offline.len()),
        applied: count(applied.len()),
        applied_after: after.collect(),
        pending: named(&pending),
        rejected: named(&rejected),
        offline: named(&offline),
        pending_count: count(pending.len()),
        rejected_count: count(rejected.len()),
        offline_count: count(offline.len()),
        committed_at: passage.and_then(|p| p.committed).map(|moment| moment.date.into()),
        handed_after: passage.and_then(|p| p.handed_after()?.try_into().ok()),
        silent_replicas: Vec::new(),
    }
}

/// A node that hasn't applied something.
pub(super) fn lagging(agents: &Agents, node: &Lagging) -> admin::NodeProgress {
    admin::NodeProgress {
        node_id: Bytes::copy_from_slice(node.node.as_bytes()),
        network: node.network.to_string(),
        name: name(agents, &node.network, node.node),
        applied_revision: node.applied.0,
        reason: node.reason.clone(),
        lag: agents.lag(&node.network, node.node, node.applied).and_then(|lag| lag.try_into().ok()),
    }
}

/// A node's name, or its id where it was deleted meanwhile.
pub(super) fn name(agents: &Agents, network: &NetworkName, node: NodeId) -> String {
    let index = agents.replica.live.read();
    let bytes = index.node(network, node).and_then(|node| node.entry.cloned());
    drop(index);
    let peer = bytes.and_then(|bytes| entry::decode(&bytes).ok());
    peer.map_or_else(|| node.to_string(), |peer| peer.name.to_string())
}
