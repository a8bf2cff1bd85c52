//! Orders that agents with equal sights share. They are not needed for an answer to be right, and
//! are bounded: the least used goes first.

use std::{
    num::NonZeroUsize,
    sync::{Arc, MutexGuard, PoisonError},
};

use lru::LruCache;
use wattle_model::{NodeId, Revision};

use crate::{network::Network, sight::Sight};

/// Orders kept per network; each has up to one item per node.
const MAX_ORDERS: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");

/// Sight over a span of revisions: the sight at its beginning and at each change, oldest first.
pub(crate) type Path = Vec<(Revision, Sight)>;
/// Nodes by revision.
pub(crate) type Order = Arc<[(Revision, NodeId)]>;

/// The nodes that each path moved to the walk's tail.
#[derive(Debug)]
pub(crate) struct Orders(LruCache<Path, Order>);

impl Default for Orders {
    fn default() -> Self {
        // Not `new`, which allocates for the bound at once, in every network.
        Self(LruCache::sparse(MAX_ORDERS))
    }
}

impl Network {
    /// The order that belongs to a path.
    pub(crate) fn order(&self, path: &Path, make: impl FnOnce() -> Order) -> Order {
        if let Some(order) = self.kept_orders().0.get(path) {
            return Arc::clone(order);
        }
        let order = make();
        self.kept_orders().0.put(path.clone(), Arc::clone(&order));
        order
    }

    /// Whoever died with them left them whole: an order is only ever added.
    fn kept_orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something changed that orders were made from.
    pub(crate) fn forget_orders(&mut self) {
        let orders = self.orders.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !orders.0.is_empty() {
            orders.0.clear();
        }
    }
}
