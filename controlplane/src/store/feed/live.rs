//! The view as the replica's services read it: one index, and a signal for every new head.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::{sync::watch, time::Instant};
use wattle_model::Revision;
use wattle_view::Index;

use super::passage::{Passage, Passages};
use crate::store::Moment;

/// A read handle on the index. Clones share it; only the feed writes.
#[derive(Clone)]
pub struct Live(Arc<Shared>);

struct Shared {
    index: RwLock<Index>,
    head: watch::Sender<Revision>,
    ready: watch::Sender<bool>,
    stale: AtomicBool,
    passages: Mutex<Passages>,
    handed: Histogram,
}

impl Live {
    /// An empty index that isn't ready.
    pub(super) fn empty() -> Self {
        Self(Arc::new(Shared {
            index: RwLock::new(Index::from_list(Revision::ZERO, [])),
            head: watch::Sender::new(Revision::ZERO),
            ready: watch::Sender::new(false),
            stale: AtomicBool::new(false),
            passages: Mutex::default(),
            // 100 µs to 6.5 s.
            handed: Histogram::new(exponential_buckets(0.0001, 2.0, 17)),
        }))
    }

    /// The index. Hold it briefly and never across an await: the feed waits for it.
    pub fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.0.index.read()
    }

    /// The index's head, sent after the index has it.
    pub fn head(&self) -> watch::Receiver<Revision> {
        self.0.head.subscribe()
    }

    /// Everything was listed and caught up with once. Before that, nobody may be served.
    pub fn is_ready(&self) -> bool {
        *self.0.ready.borrow()
    }

    /// Waits until it is ready.
    pub async fn ready(&self) {
        let mut ready = self.0.ready.subscribe();
        // The sender lives as long as `self`.
        let _ = ready.wait_for(|ready| *ready).await;
    }

    /// The store can't be seen: the index may be behind it.
    pub fn is_stale(&self) -> bool {
        self.0.stale.load(Ordering::Relaxed)
    }

    /// How fast a revision came here, where that isn't long ago.
    pub fn passage(&self, revision: Revision) -> Option<Passage> {
        self.0.passages.lock().of(revision)
    }

    /// From commits made here until every waiting stream was woken, in seconds.
    pub fn handed(&self) -> &Histogram {
        &self.0.handed
    }

    /// Changes the index and tells the new head. `revisions` are those that come with the change,
    /// rising, each with its commit where that was here; a list brings one.
    pub(super) fn publish(
        &self,
        revisions: &[(Revision, Option<Moment>)],
        change: impl FnOnce(&mut Index),
    ) {
        let head = {
            let mut index = self.0.index.write();
            change(&mut index);
            index.head()
        };
        let indexed = Instant::now();
        let mut passages = self.0.passages.lock();
        for (revision, committed) in revisions {
            let passage = Passage { committed: *committed, indexed, handed: None };
            passages.indexed(*revision, passage);
        }
        drop(passages);
        self.0.head.send_if_modified(|last| std::mem::replace(last, head) != head);
        let handed = Instant::now();
        self.0.passages.lock().handed(revisions.len(), handed);
        for moment in revisions.iter().filter_map(|(_, committed)| *committed) {
            let after = handed.saturating_duration_since(moment.at.into());
            self.0.handed.observe(after.as_secs_f64());
        }
    }

    pub(super) fn set_ready(&self) {
        self.0.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
    }

    pub(super) fn set_stale(&self, stale: bool) {
        if self.0.stale.swap(stale, Ordering::Relaxed) != stale {
            if stale {
                tracing::warn!("the store can't be seen: what this replica serves may be old");
            } else {
                tracing::info!("the store is seen again");
            }
        }
    }
}
