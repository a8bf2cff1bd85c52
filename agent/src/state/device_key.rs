//! Which of this machine's WireGuard keys the device has, and how it comes to another one.
//!
//! The next key is on the disk before the control plane hears of it. It is used once the control plane
//! says that peers know this node by it; from then on the one before is good for nothing, so the
//! way leads forward only, and wherever an agent was killed on it, the next one goes on.

use wattle_model::{PrivateKey, PublicKey};

use super::{
    StateError,
    identity::{Identity, SharedIdentity},
};
use crate::wireguard_key::{generate, public};

/// What the control plane's word for this node's key means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It is the key in use.
    Present,
    /// It is the next key: from now on that is in use.
    Next(PrivateKey),
    /// This machine hasn't got it.
    Lost,
}

impl Identity {
    /// The key to begin with, and the others that the link of an agent before this one may have:
    /// the next one where the link has it, or the node's own entry.
    pub(crate) fn device_keys(&self, seen: &[Option<PublicKey>]) -> (PrivateKey, Vec<PrivateKey>) {
        let present = self.wireguard_key.clone();
        match self.next_wireguard_key.clone() {
            Some(next) if seen.iter().flatten().any(|key| is(&next, *key)) => (next, vec![present]),
            next => (present, next.into_iter().collect()),
        }
    }

    /// What it means that peers know this node by `key`.
    pub(crate) fn word(&self, key: PublicKey) -> Word {
        match &self.next_wireguard_key {
            _ if is(&self.wireguard_key, key) => Word::Present,
            Some(next) if is(next, key) => Word::Next(next.clone()),
            _ => Word::Lost,
        }
    }
}

impl SharedIdentity {
    /// The public half of the next key, which is made and kept if there is none.
    pub(crate) fn next_key(&self) -> Result<PublicKey, StateError> {
        loop {
            if let Some(next) = &self.get().next_wireguard_key
                && let Ok(key) = public(next)
            {
                return Ok(key);
            }
            self.update(|identity| identity.next_wireguard_key = Some(generate()))?;
        }
    }

    /// The device has this key now; the one before is forgotten.
    pub(crate) fn keep_key(&self, key: &PrivateKey) -> Result<(), StateError> {
        self.update(|identity| {
            if identity.next_wireguard_key.as_ref() == Some(key) {
                identity.next_wireguard_key = None;
            }
            identity.wireguard_key = key.clone();
        })
    }
}

fn is(key: &PrivateKey, other: PublicKey) -> bool {
    public(key) == Ok(other)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{scripted::Authority, state::StateDir};

    #[test]
    fn the_next_key_is_on_disk_before_it_is_told_and_is_told_again() {
        let folder = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDir::open(folder.path()).unwrap());
        let identity = Authority::new().identity(vec![]);
        let present = public(&identity.wireguard_key).unwrap();
        state.save_identity(&identity).unwrap();
        let shared = SharedIdentity::new(state.clone(), identity);
        let next = shared.next_key().unwrap();
        assert_eq!(shared.next_key().unwrap(), next);
        let kept = state.identity().unwrap().unwrap();
        let Word::Next(private) = kept.word(next) else { panic!("it isn't on the disk") };
        assert_eq!(kept.word(present), Word::Present);

        shared.keep_key(&private).unwrap();
        let kept = state.identity().unwrap().unwrap();
        assert_eq!((kept.word(next), kept.word(present)), (Word::Present, Word::Lost));
        assert_ne!(shared.next_key().unwrap(), next);
    }

    #[test]
    fn an_agent_begins_with_the_key_that_its_link_or_its_entry_has() {
        let mut identity = Authority::new().identity(vec![]);
        let (present, next) = (identity.wireguard_key.clone(), generate());
        let half = |key: &PrivateKey| public(key).ok();
        assert_eq!(identity.device_keys(&[half(&next)]), (present.clone(), vec![]));
        identity.next_wireguard_key = Some(next.clone());
        let (old, new) =
            ((present.clone(), vec![next.clone()]), (next.clone(), vec![present.clone()]));
        assert_eq!(identity.device_keys(&[None, None]), old);
        assert_eq!(identity.device_keys(&[half(&present), half(&present)]), old);
        assert_eq!(identity.device_keys(&[half(&present), half(&next)]), new);
        assert_eq!(identity.device_keys(&[half(&next), half(&present)]), new);
    }
}
