//! The way from the store to the view: list everything, then watch. It is the only writer of the
//! index; [`Live`] is what everybody else holds.
//!
//! A lost watch is taken up where it ended; a log that has forgotten that place means a new list
//! and a new index. Until then the old index serves, and says that it is stale.

mod audit;
mod convert;
mod live;
mod operators;
mod passage;
mod pulse;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use wattle_model::{Epoch, Revision};
use wattle_runtime::backoff::Backoff;
use wattle_view::{Change, Index, Transaction};

use self::{
    audit::{Audit, Seen, Wrong},
    operators::Records,
    pulse::Beats,
};
pub use self::{live::Live, passage::Passage, pulse::Pulse};
use super::{
    Change as Stored, Key, Operation, Outcome, Store, StoreError, Transaction as Write, Watch,
    WatchError, keys,
};

/// Transactions applied under one lock, at most.
const BATCH: usize = 256;
/// Waits between attempts to reach the store.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The writer of one index.
pub struct Feed {
    store: Arc<dyn Store>,
    live: Live,
    pulse: Pulse,
    seen: Seen,
    /// How often another store had been found when the index was listed.
    replaced: u64,
}

/// What a feed does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    RenewEpoch,
    List,
    Watch,
}

impl Feed {
    /// A feed that hasn't begun, and the index that it will write.
    pub fn new(store: Arc<dyn Store>) -> (Self, Live) {
        Self::with_pulse(store, Pulse::default())
    }

    /// As [`Feed::new`], looking at its watch as closely as `pulse` says.
    pub fn with_pulse(store: Arc<dyn Store>, pulse: Pulse) -> (Self, Live) {
        let live = Live::empty(pulse.stale_after);
        (Self { store, live: live.clone(), pulse, seen: Seen::default(), replaced: 0 }, live)
    }

    /// Keeps the index at the store's head until it is told to end.
    pub async fn run(mut self, end: CancellationToken) {
        end.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        let mut next = Next::List;
        loop {
            match self.go_on(&mut next, &mut backoff).await {
                Ok(()) => {}
                Err(WatchError::Compacted(first)) => {
                    tracing::info!(%first, "the store's log begins later: listing again");
                    next = Next::List;
                }
                Err(WatchError::Store(StoreError::Replaced(why))) => {
                    tracing::warn!(why, "the store was replaced");
                    next = Next::RenewEpoch;
                }
                Err(WatchError::Store(error)) => {
                    tracing::debug!(%error, "watch lost");
                    self.live.failed(&error);
                    self.live.tell_staleness();
                    sleep(backoff.next()).await;
                }
            }
            self.live.tell_staleness();
        }
    }

    async fn go_on(&mut self, next: &mut Next, backoff: &mut Backoff) -> Result<(), WatchError> {
        let replaced = self.store.replaced();
        if *next == Next::RenewEpoch || replaced != self.replaced {
            *next = Next::RenewEpoch;
            self.renew_epoch().await?;
            (*next, self.replaced) = (Next::List, replaced);
        }
        if *next == Next::List {
            self.list().await?;
            *next = Next::Watch;
        }
        let watched = self.watch(backoff).await;
        if let Ok(wrong) = &watched {
            tracing::warn!(?wrong, "the watch and the store differ: listing again");
            self.live.count_repair();
            *next = Next::List;
        }
        watched.map(drop)
    }

    /// Gives the store another epoch, where it still has the one that the index shows: what agents
    /// were told of that one may never have been in this store. Of several replicas one does it.
    async fn renew_epoch(&self) -> Result<(), StoreError> {
        let Some(shown) = self.live.epoch() else { return Ok(()) };
        let stored = self.store.get(&keys::epoch()).await?.ok_or_else(empty)?;
        if stored.value != shown.as_bytes()[..] {
            return Ok(());
        }
        let made = rand::random::<[u8; 16]>().to_vec().into();
        match self.store.commit(Write::default().replace(&stored, made)).await? {
            Outcome::Committed(revision) => tracing::warn!(%revision, "the store has a new epoch"),
            Outcome::Conflict => {}
        }
        Ok(())
    }

    /// Reads everything and swaps a new index in.
    async fn list(&mut self) -> Result<(), WatchError> {
        let snapshot = self.store.snapshot(&keys::all()).await?;
        let (revision, mut pages) = (snapshot.revision, snapshot.pages);
        let (mut items, mut seen, mut epoch) = (Vec::new(), Seen::default(), None);
        let mut operators = Records::default();
        while let Some(page) = pages.try_next().await? {
            for item in page {
                seen.listed(&item.key, item.modified);
                epoch = epoch_in(&item.key, &item.value).or(epoch);
                let operation = Operation::Put(item.key, item.value);
                operators.take(&operation);
                let change = readable(&operation, item.modified);
                items.extend(change.map(|change| (item.modified, change)));
            }
        }
        // A store that lost everything isn't one from which everything was deleted.
        if epoch.is_none() && self.live.epoch().is_some() {
            return Err(empty().into());
        }
        let records = items.len();
        self.live.operators().replace(operators);
        self.live.replace(Index::from_list(revision, items), epoch);
        self.seen = seen;
        tracing::info!(%revision, records, "view listed");
        Ok(())
    }

    /// Applies what happens after the index's head, until the watch is lost or found wrong. The index
    /// is ready, and fresh, once the watch has brought a heartbeat.
    async fn watch(&mut self, backoff: &mut Backoff) -> Result<Wrong, WatchError> {
        let mut head = self.live.read().head();
        let watch: Watch = self.store.watch(&keys::all(), head).await?;
        let mut batches = watch.ready_chunks(BATCH);
        let mut beats = Beats::begin(self.store.clone(), self.live.clone(), self.pulse);
        let mut audit = Audit::begin(self.store.clone(), self.pulse.audit_every);
        loop {
            let mut lost = Ok(());
            tokio::select! {
                batch = batches.next() => {
                    let ended = || StoreError::Unavailable("the watch ended".to_owned());
                    lost = self.apply(batch.ok_or_else(ended)?, &mut audit);
                    head = self.live.read().head();
                }
                gone_on = beats.go_on(head) => {
                    gone_on?;
                    self.live.tell_staleness();
                }
                () = audit.go_on() => {}
            }
            // Told to somebody else, whose call found it.
            if self.store.replaced() != self.replaced {
                return Err(StoreError::Replaced("another call found it out".to_owned()).into());
            }
            if let Some(when) = beats.brought(head) {
                self.live.fresh_at(when);
                self.live.set_ready();
                backoff.reset();
            }
            lost?;
            if let Some(wrong) = audit.compare(&self.seen, head) {
                return Ok(wrong);
            }
        }
    }

    fn apply(
        &mut self,
        batch: Vec<Result<Stored, WatchError>>,
        audit: &mut Audit,
    ) -> Result<(), WatchError> {
        let mut transactions = Vec::with_capacity(batch.len());
        let (mut lost, mut head) = (Ok(()), self.live.read().head());
        for item in batch {
            match item {
                // Told again.
                Ok(stored) if stored.revision <= head => {}
                Ok(stored) => {
                    // Not taken in: what it does, and what comes after it, isn't done to this mesh.
                    if let Some(why) = self.ends_the_epoch(&stored) {
                        lost = Err(StoreError::Replaced(why.to_owned()).into());
                        break;
                    }
                    head = stored.revision;
                    self.seen.changed(&stored);
                    self.live.operators().changed(&stored);
                    audit.changed(&stored);
                    transactions.push(converted(&stored));
                }
                // The first one is the reason; what a store says after it doesn't count.
                Err(error) => {
                    lost = Err(error);
                    break;
                }
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

    /// Somebody gave the store another epoch, and what it holds is to be read from the beginning; or
    /// took the epoch away, as whoever empties the store does, to fill it anew perhaps.
    fn ends_the_epoch(&self, stored: &Stored) -> Option<&'static str> {
        let shown = self.live.epoch();
        let of_it = stored.operations.iter().find(|operation| *operation.key() == keys::epoch());
        match of_it? {
            Operation::Put(key, value) => {
                (epoch_in(key, value) != shown).then_some("it has another epoch")
            }
            Operation::Delete(_) => {
                shown.is_some().then_some("its epoch was deleted: it is being emptied")
            }
        }
    }
}

fn epoch_in(key: &Key, value: &Bytes) -> Option<Epoch> {
    (*key == keys::epoch()).then(|| Epoch::try_from(value.as_ref()).ok()).flatten()
}

fn empty() -> StoreError {
    StoreError::Unavailable(
        "the store holds no control plane any more: put back a backup".to_owned(),
    )
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
