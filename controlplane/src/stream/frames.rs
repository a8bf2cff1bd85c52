//! Encoded pages, shared: agents that ask for the same page get the same bytes, made once however
//! many ask at the same time. Agents with different sights ask for different pages, which mostly
//! say the same; those share their bytes, too.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;
use wattle_model::{NodeId, Revision};
use wattle_view::{Commit, Index, Page, Position, PullKey};

use super::encode;

/// The most that a frame weighs on the wire.
pub(super) const MAX_FRAME: usize = 64 << 10;
/// What a page may hold of it: the rest is for the commit and the messages around it.
const MAX_PAGE: usize = MAX_FRAME - 256;
/// Pages kept, and their bytes. One that was dropped is made again.
const MAX_PAGES: usize = 4096;
const MAX_BYTES: usize = 8 << 20;
/// Small messages kept, and how small they are: one change, a few at most. What is larger is rarely
/// the same for two sights, and would cost more to compare.
const MAX_SMALL: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
const SMALL: usize = 2 << 10;

/// A page, ready to be sent.
#[derive(Debug)]
pub(super) struct Encoded {
    /// The gRPC message.
    pub(super) message: Bytes,
    /// It holds no entry and no removal.
    pub(super) empty: bool,
    /// Where the next page goes on.
    pub(super) position: Position,
    /// It ends the batch.
    pub(super) commit: Option<Commit>,
}

type Cell = Arc<OnceLock<Arc<Encoded>>>;

/// All that a message says.
#[derive(PartialEq, Eq, Hash)]
struct Said {
    entries: Vec<Bytes>,
    removed: Vec<NodeId>,
    commit: Option<Commit>,
    full_set: bool,
    ack_wanted: bool,
}

/// A page, and how many bytes are counted for it: none while it is being made.
#[derive(Default)]
struct Kept {
    cell: Cell,
    bytes: usize,
}

/// Pages by what they stand for and whether an ack is wanted. The least used go first, and all of
/// them with a new head: each is good for its own alone.
struct Pages {
    head: Revision,
    kept: LruCache<(PullKey, bool), Kept>,
    bytes: usize,
}

/// The pages that agents need now.
pub(super) struct Frames {
    pages: Mutex<Pages>,
    small: Mutex<LruCache<Said, Bytes>>,
    encodes: AtomicU64,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self {
            pages: Mutex::new(Pages {
                head: Revision::ZERO,
                kept: LruCache::unbounded(),
                bytes: 0,
            }),
            small: Mutex::new(LruCache::sparse(MAX_SMALL)),
            encodes: AtomicU64::new(0),
        }
    }

    /// The page that `key` stands for. `index` is the one that the key was made with, and is held:
    /// the page is right for its head.
    pub(super) fn page(&self, index: &Index, key: PullKey, ack_wanted: bool) -> Arc<Encoded> {
        let key = (key, ack_wanted);
        let cell = {
            let mut pages = self.pages.lock();
            pages.reach(key.0.head());
            Arc::clone(&pages.kept.get_or_insert(key.clone(), Kept::default).cell)
        };
        let mut new = false;
        let page = cell.get_or_init(|| {
            new = true;
            Arc::new(self.encode(index, &key.0, ack_wanted))
        });
        if new {
            self.pages.lock().keep(&key, &cell);
        }
        Arc::clone(page)
    }

    /// Messages encoded that hold something.
    pub(super) fn encodes(&self) -> u64 {
        self.encodes.load(Ordering::Relaxed)
    }

    fn encode(&self, index: &Index, key: &PullKey, ack_wanted: bool) -> Encoded {
        let Page { entries, removed, position, commit } = index.pull(key, MAX_PAGE);
        let empty = entries.is_empty() && removed.is_empty();
        let full_set = key.from() == Revision::ZERO;
        let said = Said { entries, removed, commit, full_set, ack_wanted };
        let message = match said.weight() {
            0..=SMALL => {
                let mut small = self.small.lock();
                small.get_or_insert_with_key(said, |said| self.message(said)).clone()
            }
            _ => self.message(&said),
        };
        Encoded { message, empty, position, commit }
    }

    fn message(&self, said: &Said) -> Bytes {
        if !said.is_empty() {
            self.encodes.fetch_add(1, Ordering::Relaxed);
        }
        let commit = said
            .commit
            .map(|c| encode::commit(c.revision, c.digest, said.full_set, said.ack_wanted));
        encode::frame(said.entries.clone(), &said.removed, commit)
    }
}

impl Pages {
    /// Forgets what was for another head: behind, or of a store that was set back.
    fn reach(&mut self, head: Revision) {
        if self.head != head {
            self.kept.clear();
            (self.head, self.bytes) = (head, 0);
        }
    }

    /// A page was made. Whatever there is too much of goes, never the last page.
    fn keep(&mut self, key: &(PullKey, bool), cell: &Cell) {
        // One that was dropped before it was made isn't here.
        let kept = self.kept.peek_mut(key).filter(|kept| Arc::ptr_eq(&kept.cell, cell));
        if let Some((kept, page)) = kept.zip(cell.get()) {
            kept.bytes = page.message.len();
            self.bytes += kept.bytes;
        }
        while self.kept.len() > 1 && (self.kept.len() > MAX_PAGES || self.bytes > MAX_BYTES) {
            let Some((_, dropped)) = self.kept.pop_lru() else { return };
            self.bytes -= dropped.bytes;
        }
    }
}

impl Said {
    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.removed.is_empty()
    }

    fn weight(&self) -> usize {
        let entries: usize = self.entries.iter().map(Bytes::len).sum();
        entries + self.removed.len() * NodeId::LEN
    }
}
