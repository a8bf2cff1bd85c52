//! The replicas, as this one last heard from them.

use std::time::Duration;

use bytes::Bytes;
use wattle_proto::admin;

use super::session::Agents;
use crate::replicas::{Other, Presence};

/// This replica and the others, in the order of their start.
pub(super) fn list(agents: &Agents) -> admin::ListReplicasResponse {
    let revision = agents.replica.live.read().last_change().0;
    let own = message(&agents.replicas.presence(), Duration::ZERO, true);
    let others = agents.replicas.roster().others();
    let other = |other: &Other| message(&other.presence, other.heard.elapsed(), false);
    let mut replicas: Vec<_> = others.iter().map(other).chain([own]).collect();
    let started = |replica: &admin::Replica| {
        replica.started_at.map(|started| (started.seconds, started.nanos))
    };
    replicas.sort_by(|a, b| (started(a), &a.id).cmp(&(started(b), &b.id)));
    admin::ListReplicasResponse { replicas, revision }
}

fn message(presence: &Presence, silent: Duration, answers: bool) -> admin::Replica {
    let last = presence.last_change;
    admin::Replica {
        id: Bytes::copy_from_slice(presence.id.as_bytes()),
        addresses: presence.addresses.clone(),
        replica_address: presence.replica_address.clone(),
        sessions: presence.sessions,
        indexed_revision: presence.indexed.0,
        stale: presence.stale,
        draining: presence.draining,
        version: presence.version.clone(),
        started_at: Some(presence.started.into()),
        silent_for: silent.try_into().ok(),
        answers,
        last_change: Some(admin::ReplicaProgress {
            revision: last.revision.0,
            applied: last.applied,
            pending: last.pending,
            rejected: last.rejected,
        }),
    }
}
