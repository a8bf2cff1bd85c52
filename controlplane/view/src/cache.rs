//! What is kept so that nodes with equal sights share work. Nothing here is needed for an answer to
//! be right, and each part is bounded: the least used goes first.

use std::{num::NonZeroUsize, sync::Arc};

use lru::LruCache;
use wattle_model::{Digest, NodeId, Revision};

use crate::{class::Class, sight::Sight};

/// Sights, and digests of sights, kept per network.
const MAX_SIGHTS: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// Orders kept per network; each has up to one item per node.
const MAX_ORDERS: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");

/// Sight over a span of revisions: the sight at its beginning and at each change, oldest first.
pub(crate) type Path = Vec<(Revision, Arc<Sight>)>;
/// Nodes by revision.
pub(crate) type Order = Arc<[(Revision, NodeId)]>;

/// One network's shared work.
#[derive(Debug)]
pub(crate) struct Cache {
    /// The sight of a class at a revision.
    pub(crate) sights: LruCache<(Class, Revision), Arc<Sight>>,
    /// The digest of everything in a sight now.
    pub(crate) digests: LruCache<Arc<Sight>, Digest>,
    /// The nodes that a path moved to the walk's tail.
    pub(crate) moved: LruCache<Path, Order>,
}

impl Cache {
    pub(crate) fn new() -> Self {
        // Not `new`, which allocates for the bound at once, in every network.
        Self {
            sights: LruCache::sparse(MAX_SIGHTS),
            digests: LruCache::sparse(MAX_SIGHTS),
            moved: LruCache::sparse(MAX_ORDERS),
        }
    }

    /// A node that was seen as one thing is seen as another: sums follow, orders are made anew.
    pub(crate) fn node_changed(
        &mut self,
        was: Option<&(Class, Digest)>,
        now: Option<&(Class, Digest)>,
    ) {
        self.moved.clear();
        for (sight, sum) in &mut self.digests {
            if let Some((_, digest)) = was.filter(|(class, _)| sight.holds(class)) {
                *sum -= *digest;
            }
            if let Some((_, digest)) = now.filter(|(class, _)| sight.holds(class)) {
                *sum += *digest;
            }
        }
    }
}
