//! The control plane's own status, as this replica sees it.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;
use tonic::Status;
use wattle_model::{NetworkName, NodeId};
use wattle_proto::admin;

use super::{
    session::{self, Agents},
    wait,
};
use crate::{replicas::AllKnown, stream::Progress};

/// A store that doesn't say within this where it is can't be seen.
const PATIENCE: Duration = Duration::from_secs(2);
/// Agents named that are furthest behind.
const SLOWEST: usize = 5;

/// Answers also while the store can't be seen: then with what the index has, and says so.
pub(super) async fn get(agents: &Agents) -> Result<admin::GetStatusResponse, Status> {
    let replica = &agents.replica;
    let head = timeout(PATIENCE, replica.store.head());
    let (head, (known, silent)) = tokio::join!(head, agents.replicas.known(None));
    let (head, unseen) = match head {
        Ok(Ok(head)) => (Some(head), None),
        Ok(Err(error)) => (None, Some(error.to_string())),
        Err(_) => (None, Some(format!("the store doesn't answer within {PATIENCE:?}"))),
    };
    let stale = replica.live.is_stale() || head.is_none();
    let stale_reason = replica.live.trouble().or(unseen).filter(|_| stale);
    let epoch = replica.live.epoch();
    let (indexed, networks, nodes) = {
        let index = replica.live.read();
        let networks: Vec<NetworkName> = index.networks().map(|n| n.name.clone()).collect();
        let of = |network: &NetworkName| -> Vec<(NetworkName, NodeId)> {
            index.nodes(network).map(|node| (network.clone(), node.id)).collect()
        };
        let nodes: Vec<_> = networks.iter().flat_map(of).collect();
        (index.head(), networks.len(), nodes)
    };
    let online = |id: &NodeId| known.get(id).is_some_and(|known| known.info.online);
    let converged = |(network, id): &(_, _)| agents.is_converged(network, *id, &known);
    let full_sets = agents.sessions.full_sets().into_iter();
    Ok(admin::GetStatusResponse {
        version: env!("CARGO_PKG_VERSION").into(),
        replica_id: Bytes::copy_from_slice(replica.id.as_bytes()),
        epoch: epoch.map(|epoch| Bytes::copy_from_slice(epoch.as_bytes())).unwrap_or_default(),
        trust_domain: replica.trust_domain.to_string(),
        revision: head.unwrap_or(indexed).0,
        indexed_revision: indexed.0,
        networks: count(networks),
        nodes_converged: count(nodes.iter().filter(|node| converged(node)).count()),
        nodes: count(nodes.len()),
        nodes_online: count(nodes.iter().filter(|(_, id)| online(id)).count()),
        full_sets: full_sets.map(|(reason, sent)| (reason.to_owned(), sent)).collect(),
        advertised: replica.roster.addresses().to_vec(),
        started_at: Some(replica.started.into()),
        stale,
        stale_reason: stale_reason.unwrap_or_default(),
        last_change: Some(last_change(agents, &known)),
        replicas: count(replica.roster.others().len() + 1),
        silent_replicas: session::silent(silent),
    })
}

/// How far the last change has come that concerns anybody.
fn last_change(agents: &Agents, known: &AllKnown) -> admin::ChangeProgress {
    let revision = agents.replica.live.read().last_change();
    let Progress { applied, mut pending, rejected, offline, .. } = agents.progress(revision, known);
    pending.sort_unstable_by_key(|node| node.applied);
    let concerned = applied.len() + pending.len() + rejected.len() + offline.len();
    admin::ChangeProgress {
        revision: revision.0,
        concerned: count(concerned),
        applied: count(applied.len()),
        slowest: pending.iter().take(SLOWEST).map(|node| wait::lagging(agents, node)).collect(),
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
