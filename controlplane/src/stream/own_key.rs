//! The WireGuard key that peers know one agent by, the one that it is asked to make, and which of its
//! network's secrets its entry says that it holds. Whether the agent sees its own entry depends on
//! policies; that it learns of a change of these doesn't.

use bytes::Bytes;
use tokio::sync::oneshot;
use wattle_model::{Generation, PublicKey, Revision};
use wattle_proto::entry;
use wattle_view::NodeRef;

use super::encode;

/// What one agent has been told of its own key.
#[derive(Debug)]
pub(super) struct OwnKey {
    /// The key that its device has, by its own account or as it was told.
    has: Option<PublicKey>,
    /// The generation of the network's secret that it goes by, likewise.
    goes_by: Generation,
    /// The entry was looked at last when this was its node's last change.
    looked: Revision,
    /// Who waits for the next key.
    asked: Option<oneshot::Sender<PublicKey>>,
}

impl OwnKey {
    /// Of an agent whose device has this key, as far as it says, and that goes by this secret.
    pub(super) const fn new(has: Option<PublicKey>, goes_by: Generation) -> Self {
        Self { has, goes_by, looked: Revision::ZERO, asked: None }
    }

    /// What to tell the agent with the next commit, if its entry says something else than it has.
    pub(super) fn changed(&mut self, own: Option<NodeRef<'_>>) -> Option<Bytes> {
        let own = own.filter(|own| own.changed != self.looked)?;
        self.looked = own.changed;
        let peer = entry::decode(own.entry?).ok()?;
        let (key, generation) = (peer.public_key, peer.secret_generation);
        let before = self.has.replace(key);
        // Of an agent that doesn't say what it has, nothing can be said before it changes.
        let key = before.filter(|before| *before != key).map(|_| key);
        let before = std::mem::replace(&mut self.goes_by, generation);
        let generation = (before != generation).then_some(generation);
        let news = key.is_some() || generation.is_some();
        news.then(|| encode::own_key(key, generation))
    }

    /// Asks the agent for a next key; whoever asked before gets none.
    pub(super) fn ask(&mut self, answer: oneshot::Sender<PublicKey>) -> Bytes {
        self.asked = Some(answer);
        encode::make_next_key()
    }

    /// The agent has a next key. Says whether anybody asked.
    pub(super) fn answered(&mut self, key: PublicKey) -> bool {
        let Some(answer) = self.asked.take() else { return false };
        // Whoever asked may have gone.
        let _ = answer.send(key);
        true
    }
}
