//! The network's secrets, as batches bring them: which this machine holds, and which it goes by.
//!
//! Two nodes use the lower of the generations that their entries say. So this one goes by its own entry,
//! not by what it holds: it is told of it at the commit at which its peers are.

use std::collections::BTreeSet;

use wattle_model::Generation;
use wattle_proto::entry;

use super::Session;
use crate::state::secrets::Given;

impl Session {
    /// Takes in what a batch says; whether that is anything new. `false` in the second place where the
    /// disk refuses it: it holds all the same, until the agent ends.
    pub(super) fn take_secrets(
        &mut self,
        given: Option<Given>,
        used: Option<Generation>,
    ) -> (bool, bool) {
        let before = self.secrets.clone();
        given.into_iter().for_each(|given| self.secrets.give(given));
        used.into_iter().for_each(|used| self.secrets.go_by(used));
        let changed = self.secrets != before;
        (changed, self.keep_secrets())
    }

    /// Forgets what no pair goes by any more, now that the batch is committed; whether it did.
    pub(super) fn forget_secrets(&mut self) -> bool {
        if !self.secrets.has_former() {
            return false;
        }
        let used = self.secrets.used();
        let peers = self.parts.set.held().entries();
        let peers = peers.filter_map(|(_, bytes)| entry::decode(bytes).ok());
        let needed: BTreeSet<_> = peers.map(|peer| peer.secret_generation.min(used)).collect();
        let forgot = self.secrets.forget(&needed);
        if forgot {
            self.keep_secrets();
        }
        forgot
    }

    /// Writes them down; nothing where they are there.
    fn keep_secrets(&self) -> bool {
        if self.parts.identity.get().secrets == self.secrets {
            return true;
        }
        let kept = self.parts.identity.update(|identity| identity.secrets = self.secrets.clone());
        if let Err(error) = &kept {
            tracing::warn!(%error, "the network's secrets can't be kept");
        }
        kept.is_ok()
    }
}
