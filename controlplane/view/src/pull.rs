//! What goes into a pull and what comes out of it.

use std::sync::Arc;

use bytes::Bytes;
use wattle_model::{Digest, NetworkName, NodeId, Revision};

use crate::{index::Identity, orders::Path, sight::Sight};

/// How far a walk has come. Opaque: start with [`Position::START`], go on with what the last
/// [`Page`] gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The last item sent: the revision of its last change, and the node.
    pub(crate) revision: Revision,
    pub(crate) node: NodeId,
    /// The head at which the walk began. Only what changed after it can have been sent before.
    pub(crate) base: Option<Revision>,
}

impl Position {
    /// Nothing sent yet.
    pub const START: Self =
        Self { revision: Revision::ZERO, node: NodeId::new([0; NodeId::LEN]), base: None };

    /// Whether nothing has been sent yet.
    pub fn is_start(&self) -> bool {
        self.base.is_none()
    }
}

/// All that decides a page's bytes. Agents with equal keys get equal pages, so a page is made and
/// encoded once for all of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PullKey {
    pub(crate) index: Identity,
    pub(crate) network: Arc<NetworkName>,
    pub(crate) from: Revision,
    pub(crate) position: Position,
    pub(crate) head: Revision,
    /// Sight at `from`.
    pub(crate) was: Sight,
    /// Sight at `head`.
    pub(crate) now: Sight,
    /// Where sight changed after the walk's base: the sight at the base and at each change, oldest
    /// first. Empty where it didn't change.
    pub(crate) path: Path,
}

impl PullKey {
    /// The cursor that the page starts from.
    pub const fn from(&self) -> Revision {
        self.from
    }

    /// The head that the page leads to. The key is good only while it is the index's head.
    pub const fn head(&self) -> Revision {
        self.head
    }

    /// The sight at a revision between the walk's base and head.
    pub(crate) fn sight_during(&self, revision: Revision) -> &Sight {
        let last = self.path.iter().rev().find(|(from, _)| *from <= revision);
        last.map_or(&self.now, |(_, sight)| sight)
    }
}

/// A part of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Entries made, changed or come into sight: bytes as they were stored.
    pub entries: Vec<Bytes>,
    /// Nodes gone out of sight.
    pub removed: Vec<NodeId>,
    /// Where the next page goes on; [`Position::START`] after a commit.
    pub position: Position,
    /// Nothing is left: the batch ends with this page.
    pub commit: Option<Commit>,
}

/// The end of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Commit {
    /// The revision that the agent is at once it has applied the batch.
    pub revision: Revision,
    /// The digest of everything the agent sees at that revision.
    pub digest: Digest,
}

/// A page being filled.
pub(crate) struct Filling {
    page: Page,
    room: usize,
}

/// One difference between what an agent holds and what it should.
pub(crate) enum Item<'a> {
    Entry(&'a Bytes),
    Removal(NodeId),
}

/// What the wire adds to an entry or an id: a tag and a length.
const FRAMING: usize = 4;

impl Filling {
    pub(crate) const fn new(max_bytes: usize, position: Position) -> Self {
        let page = Page { entries: Vec::new(), removed: Vec::new(), position, commit: None };
        Self { page, room: max_bytes }
    }

    /// Adds an item where there is room. The first always goes in: a page without progress would
    /// be asked for again for ever.
    pub(crate) fn push(&mut self, item: &Item<'_>, position: Position) -> bool {
        let size = FRAMING
            + match item {
                Item::Entry(bytes) => bytes.len(),
                Item::Removal(_) => NodeId::LEN,
            };
        let first = self.page.entries.is_empty() && self.page.removed.is_empty();
        if size > self.room && !first {
            return false;
        }
        self.room = self.room.saturating_sub(size);
        match item {
            Item::Entry(bytes) => self.page.entries.push(Bytes::clone(bytes)),
            Item::Removal(node) => self.page.removed.push(*node),
        }
        self.page.position = position;
        true
    }

    /// The page, with more to come.
    pub(crate) fn cut(self) -> Page {
        self.page
    }

    /// The page that ends the batch.
    pub(crate) fn commit(self, commit: Commit) -> Page {
        Page { position: Position::START, commit: Some(commit), ..self.page }
    }
}
