//! The way from the store to the view: list everything, then watch. It is the only writer of the
//! index; [`Live`] is what everybody else holds.
//!
//! A lost watch is taken up where it ended; a log that has forgotten that place means a new list
//! and a new index. Until then the old index serves, and says that it is stale.

mod convert;
mod live;
mod passage;
mod pulse;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use wattle_model::Revision;
use wattle_runtime::backoff::Backoff;
use wattle_view::{Change, Index, Transaction};

use self::pulse::Beats;
pub use self::{live::Live, passage::Passage, pulse::Pulse};
use super::{Change as Stored, Operation, Store, StoreError, Watch, WatchError, keys};

/// Transactions applied under one lock, at most.
const BATCH: usize = 256;
/// Waits between attempts to reach the store.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The writer of one index.
pub struct Feed {
    store: Arc<dyn Store>,
    live: Live,
    pulse: Pulse,
}

impl Feed {
    /// A feed that hasn't begun, and the index that it will write.
    pub fn new(store: Arc<dyn Store>) -> (Self, Live) {
        Self::with_pulse(store, Pulse::default())
    }

    /// As [`Feed::new`], looking at its watch as closely as `pulse` says.
    pub fn with_pulse(store: Arc<dyn Store>, pulse: Pulse) -> (Self, Live) {
        let live = Live::empty(pulse.stale_after);
        (Self { store, live: live.clone(), pulse }, live)
    }

    /// Keeps the index at the store's head until it is told to end.
    pub async fn run(mut self, end: CancellationToken) {
        end.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut listed = false;
        loop {
            let attempt = async {
                if !listed {
                    self.list().await?;
                    listed = true;
                }
                self.watch(&mut backoff).await
            };
            match attempt.await {
                Ok(()) => {}
                Err(WatchError::Compacted(first)) => {
                    tracing::info!(%first, "the store's log begins later: listing again");
                    listed = false;
                }
                Err(WatchError::Store(StoreError::Replaced(why))) => {
                    tracing::warn!(why, "the store was replaced: listing again");
                    listed = false;
                }
                Err(WatchError::Store(error)) => {
                    tracing::debug!(%error, "watch lost");
                    self.live.tell_staleness();
                    sleep(backoff.next()).await;
                }
            }
            self.live.tell_staleness();
        }
    }

    /// Reads everything and swaps a new index in.
    async fn list(&mut self) -> Result<(), WatchError> {
        let snapshot = self.store.snapshot(&keys::all()).await?;
        let (revision, mut pages) = (snapshot.revision, snapshot.pages);
        let mut items = Vec::new();
        while let Some(page) = pages.try_next().await? {
            for item in page {
                let operation = Operation::Put(item.key, item.value);
                let change = readable(&operation, item.modified);
                items.extend(change.map(|change| (item.modified, change)));
            }
        }
        let records = items.len();
        let index = Index::from_list(revision, items);
        self.live.publish(&[(revision, None)], true, |live| *live = index);
        tracing::info!(%revision, records, "view listed");
        Ok(())
    }

    /// Applies what happens after the index's head, until the watch is lost. The index is ready, and
    /// fresh, once the watch has brought a heartbeat.
    async fn watch(&mut self, backoff: &mut Backoff) -> Result<(), WatchError> {
        let mut head = self.live.read().head();
        let watch: Watch = self.store.watch(&keys::all(), head).await?;
        let mut batches = watch.ready_chunks(BATCH);
        let mut beats = Beats::begin(self.store.clone(), self.pulse);
        loop {
            tokio::select! {
                batch = batches.next() => {
                    let Some(batch) = batch else { return Ok(()) };
                    let applied = self.apply(batch);
                    head = self.live.read().head();
                    self.seen(&mut beats, head, backoff);
                    applied?;
                }
                gone_on = beats.go_on() => {
                    gone_on?;
                    self.seen(&mut beats, head, backoff);
                    self.live.tell_staleness();
                }
            }
        }
    }

    fn seen(&self, beats: &mut Beats, head: Revision, backoff: &mut Backoff) {
        if let Some(when) = beats.brought(head) {
            self.live.fresh_at(when);
            self.live.set_ready();
            backoff.reset();
        }
    }

    fn apply(&self, batch: Vec<Result<Stored, WatchError>>) -> Result<(), WatchError> {
        let mut transactions = Vec::with_capacity(batch.len());
        let mut lost = Ok(());
        for item in batch {
            match item {
                Ok(stored) => transactions.push(converted(&stored)),
                Err(error) => lost = Err(error),
            }
        }
        let committed = |revision| (revision, self.store.committed_at(revision));
        let revisions: Vec<_> = transactions.iter().map(|t| committed(t.revision)).collect();
        let news = transactions.iter().any(|transaction| !transaction.changes.is_empty());
        self.live.publish(&revisions, news, |index| {
            for transaction in transactions {
                index.apply(transaction);
            }
        });
        lost
    }
}

fn converted(stored: &Stored) -> Transaction {
    let changes = stored.operations.iter();
    let changes = changes.filter_map(|operation| readable(operation, stored.revision)).collect();
    Transaction { revision: stored.revision, changes }
}

/// The view goes without what it can't read: the record before it stays as it was.
fn readable(operation: &Operation, revision: Revision) -> Option<Change> {
    convert::change(operation, revision).unwrap_or_else(|error| {
        tracing::warn!(%error, %revision, "record left out of the view");
        None
    })
}
