//! Encoded pages, shared: agents that ask for the same page get the same bytes, made once however
//! many ask at the same time.

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
use wattle_model::Revision;
use wattle_view::{Commit, Index, Position, PullKey};

use super::encode;

/// The most that a frame weighs on the wire.
pub(super) const MAX_FRAME: usize = 64 << 10;
/// What a page may hold of it: the rest is for the commit and the messages around it.
const MAX_PAGE: usize = MAX_FRAME - 256;
/// Pages kept: at most 16 MiB. One that was dropped is made again.
const MAX_PAGES: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

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

/// The pages that agents need now.
pub(super) struct Frames {
    pages: Mutex<LruCache<(PullKey, bool), Cell>>,
    encodes: AtomicU64,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self { pages: Mutex::new(LruCache::sparse(MAX_PAGES)), encodes: AtomicU64::new(0) }
    }

    /// The page that `key` stands for. `index` is the one that the key was made with, and is held:
    /// the page is right for its head.
    pub(super) fn page(&self, index: &Index, key: PullKey, ack_wanted: bool) -> Arc<Encoded> {
        let cell = {
            let mut pages = self.pages.lock();
            Arc::clone(pages.get_or_insert((key.clone(), ack_wanted), Cell::default))
        };
        Arc::clone(cell.get_or_init(|| Arc::new(self.encode(index, &key, ack_wanted))))
    }

    /// Pages encoded that hold something.
    pub(super) fn encodes(&self) -> u64 {
        self.encodes.load(Ordering::Relaxed)
    }

    fn encode(&self, index: &Index, key: &PullKey, ack_wanted: bool) -> Encoded {
        let page = index.pull(key, MAX_PAGE);
        let empty = page.entries.is_empty() && page.removed.is_empty();
        if !empty {
            self.encodes.fetch_add(1, Ordering::Relaxed);
        }
        let full_set = key.from() == Revision::ZERO;
        let commit =
            page.commit.map(|c| encode::commit(c.revision, c.digest, full_set, ack_wanted));
        let message = encode::frame(page.entries, &page.removed, commit);
        Encoded { message, empty, position: page.position, commit: page.commit }
    }
}
