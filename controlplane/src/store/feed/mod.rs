//! The way from the store to the view: list everything, then watch. It is the only writer of the
//! index; [`Live`] is what everybody else holds.
//!
//! A lost watch is taken up where it ended; a log that has forgotten that place means a new list
//! and a new index. Until then the old index serves, and says that it is stale.

mod convert;
mod live;
mod passage;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use wattle_model::Revision;
use wattle_runtime::backoff::Backoff;
use wattle_view::{Change, Index, Transaction};

pub use self::{live::Live, passage::Passage};
use super::{Change as Stored, Operation, Store, StoreError, Watch, WatchError, keys};

/// Transactions applied under one lock, at most.
const BATCH: usize = 256;
/// How often the store is asked whether it is still there, and how long it may take to answer.
const PROBE_EVERY: Duration = Duration::from_secs(5);
const PROBE_PATIENCE: Duration = Duration::from_secs(3);
/// Waits between attempts to reach the store.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The writer of one index.
pub struct Feed {
    store: Arc<dyn Store>,
    live: Live,
    /// The head that the store had after the list: the index is ready once it has reached it.
    goal: Revision,
}

impl Feed {
    /// A feed that hasn't begun, and the index that it will write.
    pub fn new(store: Arc<dyn Store>) -> (Self, Live) {
        let live = Live::empty();
        (Self { store, live: live.clone(), goal: Revision::ZERO }, live)
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
                Err(WatchError::Store(error)) => {
                    self.live.set_stale(true);
                    tracing::debug!(%error, "watch lost");
                    sleep(backoff.next()).await;
                }
            }
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
        self.live.publish(&[(revision, None)], |live| *live = index);
        self.goal = self.store.head().await?;
        tracing::info!(%revision, records, "view listed");
        Ok(())
    }

    /// Applies what happens after the index's head, until the watch is lost.
    async fn watch(&mut self, backoff: &mut Backoff) -> Result<(), WatchError> {
        let head = self.live.read().head();
        let watch: Watch = self.store.watch(&keys::all(), head).await?;
        let mut batches = watch.ready_chunks(BATCH);
        backoff.reset();
        self.live.set_stale(false);
        self.check_ready();
        let mut expected = Revision::ZERO;
        loop {
            tokio::select! {
                batch = batches.next() => {
                    let Some(batch) = batch else { return Ok(()) };
                    self.apply(batch)?;
                    self.live.set_stale(false);
                }
                seen = probe(self.store.as_ref()) => {
                    self.live.set_stale(seen.is_none());
                    if self.live.read().head() < expected {
                        return Err(StoreError::Unavailable("the watch is silent".into()).into());
                    }
                    expected = seen.unwrap_or(expected);
                }
            }
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
        self.live.publish(&revisions, |index| {
            for transaction in transactions {
                index.apply(transaction);
            }
        });
        self.check_ready();
        lost
    }

    fn check_ready(&self) {
        if self.live.read().head() >= self.goal {
            self.live.set_ready();
        }
    }
}

/// Asks the store for its head after a while without changes; `None` where it doesn't answer. A
/// head that the watch hasn't brought by the next time is one that it will never bring.
async fn probe(store: &dyn Store) -> Option<Revision> {
    sleep(PROBE_EVERY).await;
    timeout(PROBE_PATIENCE, store.head()).await.ok()?.ok()
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
