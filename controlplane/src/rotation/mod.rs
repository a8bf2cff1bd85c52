//! Changes nodes' WireGuard keys, a few of a network at a time, without a packet lost that can be
//! helped: the agent makes the next key, all who see the node learn it, and only then it changes.
//!
//! The store holds whose key is to change and whose turn it is, so any replica can go on where
//! another one ended; the replica to which the node's agent is connected does. What a change
//! means for a node's keys, `nodes` says.

mod schedule;
mod steps;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

pub use self::schedule::{Old, old_keys};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use wattle_model::NodeId;
use wattle_runtime::shutdown::Shutdown;

use crate::{
    nodes::{ChangeError, Nodes, Rotation, Turn},
    replicas::Replicas,
    store::{Key, StoreError},
    stream::DataPlane,
};

/// How often it is looked whose key is to change.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Changes that one replica drives at a time: each waits for a revision, and waits are few.
const AT_ONCE: usize = 16;
/// How long a node whose change failed is left alone.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// The task's handle on itself; clones are one.
#[derive(Clone)]
struct Rotations {
    replicas: Replicas,
    nodes: Nodes,
    shutdown: Shutdown,
    running: Arc<Mutex<BTreeSet<NodeId>>>,
    failed: Arc<Mutex<HashMap<NodeId, Instant>>>,
}

/// Begins to change keys, until the replica stops.
pub fn start(replicas: Replicas, nodes: Nodes, shutdown: &Shutdown) {
    let rotations = Rotations {
        replicas,
        nodes,
        shutdown: shutdown.clone(),
        running: Arc::default(),
        failed: Arc::default(),
    };
    shutdown.spawn("rotations", rotations.clone().keep());
    shutdown.spawn("key schedule", rotations.keep_schedule());
}

impl Rotations {
    async fn keep(self) {
        let ended = self.shutdown.token();
        let keep = async {
            let mut after = None;
            loop {
                sleep(LOOK_EVERY).await;
                self.take_wishes().await;
                after = self.look(after).await.unwrap_or_else(|error| {
                    tracing::debug!(%error, "whose key is to change isn't known now");
                    None
                });
            }
        };
        ended.run_until_cancelled(keep).await;
    }

    /// Agents that have another key than their peers know can't be reached: they don't wait.
    async fn take_wishes(&self) {
        for node in self.replicas.sessions().take_key_wishes() {
            match self.nodes.ask_rotation(node, true).await {
                Ok(()) => tracing::warn!(%node, "its agent hasn't got the key that its peers know"),
                // It says so again when it connects again.
                Err(error) => tracing::debug!(%node, %error, "not noted that it needs another key"),
            }
        }
    }

    /// Begins what can be begun among some wishes. Returns where to go on.
    async fn look(&self, after: Option<Key>) -> Result<Option<Key>, StoreError> {
        let (rotations, next) = self.nodes.rotations(after.as_ref()).await?;
        self.failed.lock().retain(|_, at| at.elapsed() < AGAIN_AFTER);
        let mut full = BTreeSet::new();
        for rotation in rotations {
            let late = full.contains(&rotation.network) && !rotation.urgent;
            if late || !self.may_begin(&rotation) {
                continue;
            }
            match self.nodes.take_turn(&rotation).await? {
                Turn::Now => self.begin(rotation),
                Turn::Later => {
                    full.insert(rotation.network);
                }
            }
        }
        Ok(next)
    }

    fn may_begin(&self, rotation: &Rotation) -> bool {
        let (running, node) = (self.running.lock(), rotation.node);
        running.len() < AT_ONCE
            && !running.contains(&node)
            && !self.failed.lock().contains_key(&node)
            && self.can_change(node, rotation.urgent)
    }

    /// Whether the node's agent is connected here and can change its key: a userspace device only
    /// breaks off all that it does, which is no loss where nobody reaches it.
    fn can_change(&self, node: NodeId, urgent: bool) -> bool {
        let info = self.replicas.sessions().info(node).filter(|info| info.online);
        info.is_some_and(|info| urgent || info.data_plane != Some(DataPlane::Userspace))
    }

    fn begin(&self, rotation: Rotation) {
        self.running.lock().insert(rotation.node);
        let (this, ended) = (self.clone(), self.shutdown.token());
        self.shutdown.spawn("rotate a key", async move {
            ended.run_until_cancelled(this.run(&rotation)).await;
            this.running.lock().remove(&rotation.node);
        });
    }

    async fn run(&self, rotation: &Rotation) {
        let Rotation { network, node, .. } = rotation;
        match self.rotate(*node).await {
            Ok(()) | Err(steps::Stopped::Change(ChangeError::Gone)) => {}
            Err(stopped) => {
                tracing::info!(%network, %node, %stopped, "its key isn't changed yet");
                self.failed.lock().insert(*node, Instant::now());
            }
        }
        if let Err(error) = self.nodes.give_turn_back(rotation).await {
            tracing::debug!(%network, %node, %error, "its turn runs out by itself");
        }
    }
}
