//! What is known of a node's agent: its session, and how far it is behind what concerns it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use tonic::Status;
use wattle_model::{NetworkName, NodeId, ReplicaId, Revision};
use wattle_proto::admin;

use crate::{
    nodes::{Nodes, store_failed},
    replica::Replica,
    replicas::{AllKnown, Known, Replicas, Silent},
    stream::{DataPlane, Progress, SessionInfo, Sessions, Standing},
};

/// Looks agents up. Each look at the index is short: the feed waits for its readers.
#[derive(Clone)]
pub(super) struct Agents {
    pub(super) replica: Arc<Replica>,
    pub(super) nodes: Nodes,
    pub(super) sessions: Sessions,
    /// Whose turn it is to apply.
    pub(super) applying: Arc<Mutex<()>>,
    pub(super) replicas: Replicas,
}

/// How long the index may take to come to the store's head.
const CATCH_UP: Duration = Duration::from_secs(3);

impl Agents {
    /// The store's head, once the index shows it.
    pub(super) async fn caught_up(&self) -> Result<Revision, Status> {
        let mut head = self.replica.store.head().await.map_err(store_failed)?;
        let mut indexed = self.replica.live.head();
        if *indexed.borrow() < head {
            // Where others write to the same store, that one may never come; a heartbeat does.
            head = self.replica.store.beat().await.map_err(store_failed)?;
        }
        let reached = timeout(CATCH_UP, indexed.wait_for(|indexed| *indexed >= head)).await;
        match reached {
            Ok(Ok(_)) => Ok(head),
            Ok(Err(_)) | Err(_) => Err(Status::unavailable(format!(
                "this replica hasn't read the store up to revision {head} yet: try again"
            ))),
        }
    }

    /// A node's session, as it was found among those of all replicas; `None` where its agent was never
    /// connected to any that runs.
    pub(super) fn session(
        &self,
        network: &NetworkName,
        node: NodeId,
        all: &AllKnown,
    ) -> Option<admin::NodeSession> {
        let Known { replica, info } = all.get(&node)?;
        let first_missed = self.first_missed(network, node, info.applied);
        let lag = first_missed.and_then(|revision| self.age(revision));
        Some(message(*replica, info.clone(), first_missed.is_none(), lag))
    }

    /// It is connected, and nothing after what it has applied concerns it.
    pub(super) fn is_converged(&self, network: &NetworkName, node: NodeId, all: &AllKnown) -> bool {
        let Some(Known { info, .. }) = all.get(&node).filter(|known| known.info.online) else {
            return false;
        };
        let index = self.replica.live.read();
        !index.concerns(network, node, info.applied, index.head())
    }

    /// How far a revision has come, as far as agents have said: nobody is asked.
    pub(super) fn progress(&self, revision: Revision, all: &AllKnown) -> Progress {
        let mut progress = Progress { indexed: true, ..Progress::default() };
        let concerned = self.replica.live.read().concerned(revision);
        for (network, node) in concerned {
            let info = all.get(&node).map(|known| &known.info);
            let applied = info.map_or(Revision::ZERO, |info| info.applied);
            let standing = match info {
                None => Standing::Offline(Revision::ZERO),
                Some(_)
                    if applied < revision && !self.concerns(&network, node, applied, revision) =>
                {
                    Standing::Applied(None)
                }
                Some(info) => Standing::of_info(info, revision, || None),
            };
            progress.add(&network, node, &standing);
        }
        progress
    }

    fn concerns(
        &self,
        network: &NetworkName,
        node: NodeId,
        after: Revision,
        upto: Revision,
    ) -> bool {
        self.replica.live.read().concerns(network, node, after, upto)
    }

    /// How old the first change is that concerns the node after what it has applied.
    pub(super) fn lag(
        &self,
        network: &NetworkName,
        node: NodeId,
        applied: Revision,
    ) -> Option<Duration> {
        self.age(self.first_missed(network, node, applied)?)
    }

    /// The first revision after `applied` that concerns the node. Once something does, it does up
    /// to every later revision too: so the first one is found by halving.
    fn first_missed(
        &self,
        network: &NetworkName,
        node: NodeId,
        applied: Revision,
    ) -> Option<Revision> {
        let index = self.replica.live.read();
        let concerns = |upto| index.concerns(network, node, applied, Revision(upto));
        let (mut before, mut first) = (applied.0, index.head().0);
        if !concerns(first) {
            return None;
        }
        while first - before > 1 {
            let middle = before + (first - before) / 2;
            if concerns(middle) {
                first = middle;
            } else {
                before = middle;
            }
        }
        Some(Revision(first))
    }

    fn age(&self, revision: Revision) -> Option<Duration> {
        let since = self.replica.live.passage(revision)?.since();
        Some(Instant::now().saturating_duration_since(since))
    }
}

/// Replicas that an answer goes without.
pub(super) fn silent(replicas: Vec<Silent>) -> Vec<admin::SilentReplica> {
    let message = |silent: Silent| admin::SilentReplica {
        id: Bytes::copy_from_slice(silent.id.as_bytes()),
        address: silent.address,
        reason: silent.reason,
    };
    replicas.into_iter().map(message).collect()
}

fn message(
    replica: ReplicaId,
    info: SessionInfo,
    converged: bool,
    lag: Option<Duration>,
) -> admin::NodeSession {
    let duration = |duration: Duration| prost_types::Duration::try_from(duration).ok();
    let data_plane = match info.data_plane {
        Some(DataPlane::Kernel) => "kernel",
        Some(DataPlane::Userspace) => "userspace",
        None => "",
    };
    let rejected = info.rejected.into_iter().map(|rejected| admin::Rejection {
        node_id: Bytes::copy_from_slice(rejected.node.as_bytes()),
        reason: rejected.reason,
    });
    admin::NodeSession {
        online: info.online,
        since: Some(info.since.into()),
        applied_revision: info.applied.0,
        verified_revision: info.verified.0,
        converged,
        lag: if converged {
            Some(prost_types::Duration::default())
        } else {
            lag.and_then(duration)
        },
        last_apply: info.last_apply.and_then(duration),
        rejected: rejected.collect(),
        agent_version: info.agent_version,
        data_plane: data_plane.into(),
        displaced: info.displaced,
        replica_id: Bytes::copy_from_slice(replica.as_bytes()),
    }
}
