//! The WireGuard key that peers know one agent by, and the one that it is asked to make. Whether
//! the agent sees its own entry depends on policies; that it learns of a change of its key doesn't.

use bytes::Bytes;
use tokio::sync::oneshot;
use wattle_model::{PublicKey, Revision};
use wattle_proto::entry;
use wattle_view::NodeRef;

use super::encode;

/// What one agent has been told of its own key.
#[derive(Debug)]
pub(super) struct OwnKey {
    /// The key that its device has, by its own account or as it was told.
    has: Option<PublicKey>,
    /// The entry was looked at last when this was its node's last change.
    looked: Revision,
    /// Who waits for the next key.
    asked: Option<oneshot::Sender<PublicKey>>,
}

impl OwnKey {
    /// Of an agent whose device has this key, as far as it says.
    pub(super) const fn new(has: Option<PublicKey>) -> Self {
        Self { has, looked: Revision::ZERO, asked: None }
    }

    /// The key to tell the agent with the next commit, if its entry says another than it has.
    pub(super) fn changed(&mut self, own: Option<NodeRef<'_>>) -> Option<Bytes> {
        let own = own.filter(|own| own.changed != self.looked)?;
        self.looked = own.changed;
        let key = entry::decode(own.entry?).ok()?.public_key;
        let before = self.has.replace(key);
        // Of an agent that doesn't say what it has, nothing can be said before it changes.
        before.filter(|before| *before != key).map(|_| encode::own_key(Some(key), false))
    }

    /// Asks the agent for a next key; whoever asked before gets none.
    pub(super) fn ask(&mut self, answer: oneshot::Sender<PublicKey>) -> Bytes {
        self.asked = Some(answer);
        encode::own_key(None, true)
    }

    /// The agent has a next key. Says whether anybody asked.
    pub(super) fn answered(&mut self, key: PublicKey) -> bool {
        let Some(answer) = self.asked.take() else { return false };
        // Whoever asked may have gone.
        let _ = answer.send(key);
        true
    }
}
