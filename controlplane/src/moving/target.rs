//! An empty store that is filled. A marker is its first record and the epoch its last, so that a
//! half-filled one is known for what it is: no control plane begins with it, and the next attempt
//! begins again.

use std::time::SystemTime;

use bytes::Bytes;
use futures::TryStreamExt as _;
use prost::Message as _;
use wattle_model::Epoch;
use wattle_proto::store as proto;
use wattle_runtime::clock::unix_millis;

use super::{
    MoveError, Moved, Progress, Record,
    content::{Content, Tally},
    source::Source,
};
use crate::store::{Batch, Key, Outcome, Store, Stored, Transaction, keys};

/// Keys deleted at once of a half-filled store.
const WIPED: usize = 100;
/// Keys named of a store that isn't empty.
const NAMED: usize = 3;

/// What becomes of records that are in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupied {
    /// They are somebody's: nothing is done.
    Refuse,
    /// They go.
    Replace,
}

/// A store that is being filled.
pub struct Target<'a> {
    store: &'a dyn Store,
    marker: Stored,
    batch: Batch,
    sent: Content,
}

/// Copies everything of one store to another.
pub async fn copy(
    from: &dyn Store,
    to: &dyn Store,
    occupied: Occupied,
    named: &str,
    now: SystemTime,
    progress: Progress<'_>,
) -> Result<Moved, MoveError> {
    let mut source = Source::open(from).await?;
    let mut target = Target::begin(to, occupied, named, now).await?;
    while let Some(record) = source.next().await? {
        target.put(record, &mut *progress).await?;
    }
    target.finish(source.tally(), progress).await
}

impl<'a> Target<'a> {
    /// Begins to fill a store. One that is half-filled is emptied first, and so is another one where
    /// that is wanted. The marker takes the epoch's place at once: what is half-emptied is nobody's
    /// either.
    pub async fn begin(
        store: &'a dyn Store,
        occupied: Occupied,
        from: &str,
        now: SystemTime,
    ) -> Result<Self, MoveError> {
        let (key, value) = (keys::moving(), marker(from, now));
        let (half, epoch) = (store.get(&key).await?, store.get(&keys::epoch()).await?);
        let transaction = match (&half, &epoch) {
            (Some(half), None) => Transaction::default().replace(half, value.clone()),
            (_, epoch) => {
                if let Some(process) = in_use(store).await? {
                    return Err(MoveError::InUse(process));
                }
                if occupied == Occupied::Refuse {
                    refuse_full(store).await?;
                }
                let begin = Transaction::default().create(key.clone(), value.clone());
                match epoch {
                    Some(epoch) => begin.remove(epoch),
                    None => begin.as_read(keys::epoch(), None),
                }
            }
        };
        let Outcome::Committed(modified) = store.commit(transaction).await? else {
            return Err(MoveError::Contended);
        };
        let marker = Stored { key, value, modified };
        if half.is_some() || occupied == Occupied::Replace {
            wipe(store, &marker).await?;
        }
        Ok(Self { store, marker, batch: Batch::default(), sent: Content::default() })
    }

    /// Takes one more record. It is in the store at the end.
    pub async fn put(&mut self, record: Record, progress: Progress<'_>) -> Result<(), MoveError> {
        self.sent.count(&record);
        if let Some(full) = self.batch.add(Transaction::default().create(record.key, record.value))
        {
            self.write(full).await?;
            progress(self.sent.records());
        }
        Ok(())
    }

    /// Compares what is there with what was `sent`, and only then makes it a control plane's.
    pub async fn finish(mut self, sent: Tally, progress: Progress<'_>) -> Result<Moved, MoveError> {
        let rest = std::mem::take(&mut self.batch);
        self.write(rest).await?;
        progress(self.sent.records());
        let target = tally(self.store).await?;
        if target != sent || self.sent.tally() != sent {
            return Err(MoveError::Differs {
                source_records: sent.records,
                source_digest: sent.hex(),
                target_records: target.records,
                target_digest: target.hex(),
            });
        }
        // Nobody has seen an earlier revision under the new epoch.
        let horizon = proto::Horizon { revision: self.store.head().await?.0, marks: Vec::new() };
        let epoch = Epoch::new(rand::random());
        let last = Transaction::default()
            .remove(&self.marker)
            .create(keys::horizon(), horizon.encode_to_vec().into())
            .create(keys::epoch(), Bytes::copy_from_slice(epoch.as_bytes()));
        match self.store.commit(last).await? {
            Outcome::Committed(_) => Ok(Moved { source: sent, target, epoch }),
            Outcome::Conflict => Err(MoveError::Contended),
        }
    }

    async fn write(&self, batch: Batch) -> Result<(), MoveError> {
        if batch.is_empty() {
            return Ok(());
        }
        // Whoever begins as well writes the marker anew.
        match self.store.commit(batch.all().unchanged(&self.marker)).await? {
            Outcome::Committed(_) => Ok(()),
            Outcome::Conflict => Err(MoveError::Contended),
        }
    }
}

/// What a store holds.
pub async fn tally(store: &dyn Store) -> Result<Tally, MoveError> {
    let mut content = Content::default();
    let mut pages = store.snapshot(&keys::all()).await?.pages;
    while let Some(page) = pages.try_next().await? {
        for stored in &page {
            content.take(stored)?;
        }
    }
    Ok(content.tally())
}

fn marker(from: &str, now: SystemTime) -> Bytes {
    let marker = proto::Moving { from: from.into(), begun_at_millis: unix_millis(now) };
    marker.encode_to_vec().into()
}

async fn refuse_full(store: &dyn Store) -> Result<(), MoveError> {
    if let Some(cluster) = store.get(&keys::cluster()).await?
        && let Ok(record) = proto::Cluster::decode(cluster.value)
    {
        return Err(MoveError::NotEmpty(format!("the control plane {}", record.trust_domain)));
    }
    let found = store.list(&keys::all(), None, NAMED).await?.items;
    match found.is_empty() {
        true => Ok(()),
        false => {
            let names: Vec<_> = found.iter().map(|stored| stored.key.to_string()).collect();
            Err(MoveError::NotEmpty(names.join(", ")))
        }
    }
}

/// What a running replica keeps in a store, if one runs on it.
pub async fn in_use(store: &dyn Store) -> Result<Option<Key>, MoveError> {
    let live = store.list(&keys::live(), None, 1).await?.items;
    Ok(live.into_iter().next().map(|stored| stored.key))
}

/// Empties a store whose `marker` is ours.
async fn wipe(store: &dyn Store, marker: &Stored) -> Result<(), MoveError> {
    let mut after: Option<Key> = None;
    loop {
        let page = store.list(&keys::all(), after.as_ref(), WIPED).await?;
        let Some(last) = page.items.last() else { return Ok(()) };
        after = Some(last.key.clone());
        let others = page.items.into_iter().filter(|stored| stored.key != marker.key);
        let delete = |all: Transaction, stored: Stored| all.delete(stored.key);
        let wipe = others.fold(Transaction::default().unchanged(marker), delete);
        if wipe.operations.is_empty() {
            continue;
        }
        if store.commit(wipe).await? == Outcome::Conflict {
            return Err(MoveError::Contended);
        }
    }
}
