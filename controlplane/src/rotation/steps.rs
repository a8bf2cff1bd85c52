//! One node's change of keys, from asking its agent to the moment when all have the new key.

use std::time::Duration;

use wattle_model::{NodeId, Revision};
use wattle_runtime::clock;

use super::Rotations;
use crate::nodes::ChangeError;

/// How long an agent may take to make a key.
const MADE_WITHIN: Duration = Duration::from_secs(10);
/// How long those who see the node have to learn its next key. Whoever hasn't by then waits for a
/// handshake when the key changes, some seconds at worst; who isn't connected isn't waited for.
const LEARNT_WITHIN: Duration = Duration::from_secs(30);
/// How long the next node waits for this one's change to be everywhere.
const DONE_WITHIN: Duration = Duration::from_secs(10);

/// Why a node's key isn't changed now.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    #[error("its agent made no next key: it is of an older version, or left")]
    NoKey,
    #[error("its agent left before its next key was used")]
    Left,
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl Rotations {
    /// Takes a node from whichever step it is at to the last one: each is repeated without harm.
    pub(super) async fn rotate(&self, node: NodeId) -> Result<(), Stopped> {
        let sessions = self.replicas.sessions();
        let next = sessions.next_key(node, MADE_WITHIN).await.ok_or(Stopped::NoKey)?;
        let announced = self.nodes.announce_key(node, next).await?;
        self.applied(announced, LEARNT_WITHIN).await;
        // An agent that is away would go on with the old key while its peers have the new one.
        if !sessions.is_online(node) {
            return Err(Stopped::Left);
        }
        let Some(changed) = self.nodes.promote_key(node, clock::now()).await? else {
            return Ok(());
        };
        tracing::info!(%node, revision = %changed, "its WireGuard key changed");
        self.applied(changed, DONE_WITHIN).await;
        Ok(())
    }

    async fn applied(&self, revision: Revision, within: Duration) {
        let (progress, silent) = self.replicas.wait_applied(revision, within).await;
        let (pending, silent) = (progress.pending.len(), silent.len());
        if pending + silent > 0 {
            tracing::info!(%revision, pending, silent, "not everybody has learnt of a key in time");
        }
    }
}
