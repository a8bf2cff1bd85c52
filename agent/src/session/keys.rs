//! This node's own WireGuard key, as the control plane says it: which one to use, and that a next one
//! is to be made.

use wattle_model::{PrivateKey, PublicKey};

use super::{
    Session, convert,
    link::{End, Link},
};
use crate::state::device_key::Word;

impl Session {
    /// Says which key this machine would change to. One that was made and not used yet is said again.
    pub(super) async fn tell_next_key(&self, link: &Link) -> Result<(), End> {
        match self.parts.identity.next_key() {
            Ok(next) => link.send(convert::next_key(next)).await,
            Err(error) => {
                tracing::warn!(%error, "the next WireGuard key can't be kept: none is said");
                Ok(())
            }
        }
    }

    /// The key to change to where peers know this node by it; and whether they know it by one that
    /// this machine hasn't got, so that it needs another one.
    pub(super) fn own_key(&self, word: Option<PublicKey>) -> (Option<PrivateKey>, bool) {
        match word.map(|key| (key, self.parts.identity.get().word(key))) {
            None | Some((_, Word::Present)) => (None, false),
            Some((_, Word::Next(key))) => (Some(key), false),
            Some((key, Word::Lost)) => {
                tracing::warn!(
                    %key,
                    "peers know this node by a WireGuard key that this machine hasn't got, as after \
                     a restored backup: it changes to a new one"
                );
                (None, true)
            }
        }
    }

    /// The device has the key. Killed before this, the agent finds out by the link or the entry.
    pub(super) fn keep_key(&self, key: Option<PrivateKey>) {
        let Some(key) = key else { return };
        if let Err(error) = self.parts.identity.keep_key(&key) {
            tracing::warn!(%error, "that the device has its next WireGuard key isn't kept");
        }
    }
}
