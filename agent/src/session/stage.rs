//! Frames on their way to a commit. Nothing of a batch is seen outside before its end: a stream
//! that is cut drops its stage, and the next one begins again at the last commit.

use std::collections::BTreeMap;

use bytes::Bytes;
use wattle_model::{Epoch, Generation, NodeId, PublicKey};

use super::convert::{Commit, Config, Frame, Rejection};
use crate::state::held::Batch;

/// What has come since the last commit.
#[derive(Debug, Default)]
pub(super) struct Stage {
    changes: BTreeMap<NodeId, Option<Bytes>>,
    config: Option<Box<Config>>,
    own_key: Option<PublicKey>,
    own_generation: Option<Generation>,
    rejected: Vec<Rejection>,
}

/// A whole batch.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) batch: Batch,
    pub(super) config: Option<Box<Config>>,
    /// The key that peers know this node by, where it isn't the one that this machine said it has.
    pub(super) own_key: Option<PublicKey>,
    /// The generation of the network's secret that its entry says, where that is news.
    pub(super) own_generation: Option<Generation>,
    /// What couldn't be held at all.
    pub(super) rejected: Vec<Rejection>,
}

impl Stage {
    /// Whether a batch has begun.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
            && self.config.is_none()
            && self.own_key.is_none()
            && self.own_generation.is_none()
    }

    /// Adds a frame. What a node's later frame says replaces what an earlier one said: the walk
    /// meets a node again when it changed behind the walk.
    pub(super) fn add(&mut self, frame: Frame) {
        self.changes.extend(frame.changes);
        self.rejected.extend(
            frame
                .unreadable
                .into_iter()
                .map(|error| Rejection { node: None, reason: error.to_string() }),
        );
    }

    /// Adds the agent's own settings.
    pub(super) fn set_config(&mut self, config: Box<Config>) {
        self.config = Some(config);
    }

    /// Adds what peers know this node's key to be.
    pub(super) fn set_own_key(&mut self, key: PublicKey) {
        self.own_key = Some(key);
    }

    /// Adds which generation of the network's secret this node's entry says.
    pub(super) fn set_own_generation(&mut self, generation: Generation) {
        self.own_generation = Some(generation);
    }

    /// Ends the batch; the stage is empty again.
    pub(super) fn commit(&mut self, epoch: Epoch, commit: Commit) -> Staged {
        let Self { changes, config, own_key, own_generation, rejected } = std::mem::take(self);
        let batch = Batch {
            epoch,
            revision: commit.mark.revision,
            full_set: commit.full_set,
            changes,
            config_hash: config.as_ref().map(|config| config.hash),
        };
        Staged { batch, config, own_key, own_generation, rejected }
    }
}
