//! One node's current keys: its history, with the class that each body had, and its entry.

use std::sync::Arc;

use bytes::Bytes;
use wattle_model::{At, Digest, History, Revision, Traits};

use crate::class::Class;

/// A node, alive or dead.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// `None` while only the entry has come.
    pub(crate) history: Option<History<Body>>,
    pub(crate) entry: Option<Entry>,
}

/// What a node was while it lived.
#[derive(Debug, Clone)]
pub(crate) struct Body {
    pub(crate) traits: Arc<Traits>,
    pub(crate) class: Class,
}

/// A peer's exact bytes.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) bytes: Bytes,
    /// The mod_revision of its key.
    pub(crate) revision: Revision,
    pub(crate) digest: Digest,
}

impl Node {
    /// Its class at a revision; `Known(None)` where it didn't live.
    pub(crate) fn at(&self, revision: Revision) -> At<&Class> {
        match self.history.as_ref().map(|history| history.at(revision)) {
            None | Some(At::Known(None)) => At::Known(None),
            Some(At::Known(Some(body))) => At::Known(Some(&body.class)),
            Some(At::Unknown) => At::Unknown,
        }
    }

    /// What it is now, if it lives.
    pub(crate) fn present(&self) -> Option<&Body> {
        self.history.as_ref()?.present().body.as_ref()
    }

    /// What others can see of it now: nothing unless it lives and has an entry.
    pub(crate) fn visible(&self) -> Option<(&Class, &Entry)> {
        Some((&self.present()?.class, self.entry.as_ref()?))
    }

    /// The revision of its last change.
    pub(crate) fn changed(&self) -> Revision {
        let history = self.history.as_ref().map(|history| history.present().from);
        let entry = self.entry.as_ref().map(|entry| entry.revision);
        history.max(entry).unwrap_or_default()
    }

    /// The last revision at which its entry may have changed.
    pub(crate) fn entry_changed(&self) -> Revision {
        // A dead node's entry is gone, and with it the revision of the entry's last change.
        self.entry.as_ref().map_or_else(|| self.changed(), |entry| entry.revision)
    }

    /// The slots of all selectors that any of its bodies matches, rising.
    pub(crate) fn slots(&self) -> Vec<u32> {
        let classes = self.history.iter().flat_map(bodies).map(|body| body.class.slots());
        let mut slots: Vec<u32> = classes.flatten().copied().collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// The revisions after `revision` at which its history changed.
    pub(crate) fn changes_after(&self, revision: Revision) -> impl Iterator<Item = Revision> {
        self.history.iter().flat_map(move |history| history.changes_after(revision))
    }
}

/// All bodies of a history, oldest first.
pub(crate) fn bodies(history: &History<Body>) -> impl Iterator<Item = &Body> {
    let versions = history.past().iter().chain([history.present()]);
    versions.filter_map(|version| version.body.as_ref())
}
