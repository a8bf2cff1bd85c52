//! The view as the replica's services read it: one index, a signal for whatever is new in it, and
//! one for every revision.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio::{sync::watch, time::Instant};
use wattle_model::{Epoch, Revision};
use wattle_view::Index;

use super::{
    operators::Operators,
    passage::{Passage, Passages},
};
use crate::store::{Moment, StoreError};

/// A read handle on the index. Clones share it; only the feed writes.
#[derive(Clone)]
pub struct Live(Arc<Shared>);

struct Shared {
    index: RwLock<Index>,
    news: watch::Sender<Revision>,
    head: watch::Sender<Revision>,
    ready: watch::Sender<bool>,
    /// Written while the index is: who reads one and then the other, holding the index, gets a pair.
    epoch: Mutex<Option<Epoch>>,
    /// How many epochs there were.
    era: AtomicU64,
    freshness: Mutex<Freshness>,
    stale_after: Duration,
    told_stale: AtomicBool,
    /// What the store said last, where it is wrong.
    trouble: Mutex<Option<String>>,
    passages: Mutex<Passages>,
    handed: Histogram,
    operators: Operators,
    repairs: AtomicU64,
    lists: AtomicU64,
}

/// When the index was last known to hold all that the store held.
struct Freshness(Instant);

impl Live {
    /// An empty index that isn't ready, and is stale once nothing has shown for `stale_after` that it
    /// is up to date.
    pub(super) fn empty(stale_after: Duration) -> Self {
        Self(Arc::new(Shared {
            index: RwLock::new(Index::from_list(Revision::ZERO, [])),
            news: watch::Sender::new(Revision::ZERO),
            head: watch::Sender::new(Revision::ZERO),
            ready: watch::Sender::new(false),
            epoch: Mutex::default(),
            era: AtomicU64::new(0),
            freshness: Mutex::new(Freshness(Instant::now())),
            stale_after,
            told_stale: AtomicBool::new(false),
            trouble: Mutex::default(),
            passages: Mutex::default(),
            // 100 µs to 6.5 s.
            handed: Histogram::new(exponential_buckets(0.0001, 2.0, 17)),
            operators: Operators::default(),
            repairs: AtomicU64::new(0),
            lists: AtomicU64::new(0),
        }))
    }

    /// The index. Hold it briefly and never across an await: the feed waits for it.
    pub fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.0.index.read()
    }

    /// The epoch of the store that the index shows; `None` until it was listed.
    pub fn epoch(&self) -> Option<Epoch> {
        *self.0.epoch.lock()
    }

    /// A number for the epoch: with another one, all that an agent was told is of another store.
    pub fn era(&self) -> u64 {
        self.0.era.load(Ordering::Acquire)
    }

    /// The index's head for those who serve it: they are woken when there is something new in it,
    /// and not by a transaction that means nothing to it. The value is the head all the same.
    pub fn news(&self) -> watch::Receiver<Revision> {
        self.0.news.subscribe()
    }

    /// The index's head for those who wait for a revision, sent after the index has it.
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

    /// For too long nothing has shown that the index is up to date: the store can't be seen.
    pub fn is_stale(&self) -> bool {
        self.0.freshness.lock().0.elapsed() > self.0.stale_after
    }

    /// What went wrong last with the store, since it was last seen to be well.
    pub fn trouble(&self) -> Option<String> {
        self.0.trouble.lock().clone()
    }

    /// Operators, as the store last told.
    pub(crate) fn operators(&self) -> &Operators {
        &self.0.operators
    }

    /// How fast a revision came here, where that isn't long ago.
    pub fn passage(&self, revision: Revision) -> Option<Passage> {
        self.0.passages.lock().of(revision)
    }

    /// How often the index was found wrong by comparing it with the store, and made anew.
    pub fn repairs(&self) -> u64 {
        self.0.repairs.load(Ordering::Relaxed)
    }

    /// How often everything was listed.
    pub fn lists(&self) -> u64 {
        self.0.lists.load(Ordering::Relaxed)
    }

    /// From commits made here until every waiting stream was woken, in seconds.
    pub fn handed(&self) -> &Histogram {
        &self.0.handed
    }

    /// Puts another index in the place of this one: a list brings one.
    pub(super) fn replace(&self, index: Index, epoch: Option<Epoch>) {
        let head = index.head();
        self.0.lists.fetch_add(1, Ordering::Relaxed);
        self.publish(&[(head, None)], true, |live| {
            *live = index;
            let mut known = self.0.epoch.lock();
            if std::mem::replace(&mut *known, epoch) != epoch {
                self.0.era.fetch_add(1, Ordering::Release);
            }
        });
    }

    /// Changes the index and tells the new head. `revisions` are those that come with the change,
    /// rising, each with its commit where that was here. `news` where any of them means something to
    /// the view.
    pub(super) fn publish(
        &self,
        revisions: &[(Revision, Option<Moment>)],
        news: bool,
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
        // First those who serve: who has waited for a revision then finds that they know of it.
        self.0.news.send_if_modified(|last| {
            *last = head;
            news
        });
        self.0.head.send_if_modified(|last| std::mem::replace(last, head) != head);
        let handed = Instant::now();
        self.0.passages.lock().handed(revisions.len(), handed);
        for moment in revisions.iter().filter_map(|(_, committed)| *committed) {
            let after = handed.saturating_duration_since(moment.at.into());
            self.0.handed.observe(after.as_secs_f64());
        }
    }

    pub(super) fn count_repair(&self) {
        self.0.repairs.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_ready(&self) {
        self.0.ready.send_if_modified(|ready| !std::mem::replace(ready, true));
    }

    /// The store couldn't be watched, listed, or given a heartbeat.
    pub(super) fn failed(&self, error: &StoreError) {
        *self.0.trouble.lock() = Some(error.to_string());
    }

    /// The index holds all that the store held at `when`.
    pub(super) fn fresh_at(&self, when: Instant) {
        self.0.trouble.lock().take();
        let mut freshness = self.0.freshness.lock();
        freshness.0 = freshness.0.max(when);
    }

    /// Says so in the log where the index has become stale, or isn't any more.
    pub(super) fn tell_staleness(&self) {
        let stale = self.is_stale();
        if self.0.told_stale.swap(stale, Ordering::Relaxed) != stale {
            if stale {
                let why = self.trouble().unwrap_or_default();
                tracing::warn!(why, "the store can't be seen: what this replica serves may be old");
            } else {
                tracing::info!("the store is seen again");
            }
        }
    }
}
