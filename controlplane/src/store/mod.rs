//! Hop 1: the store. One trait, so that everything above works alike on one machine and on etcd.
//!
//! The trait offers only what etcd 3.4 can do, and every backend enforces the same limits. Nothing
//! here knows what the keys mean; [`keys`] names them and [`feed`] reads them into the view.

mod batch;
pub mod embedded;
pub mod etcd;
pub mod feed;
pub mod keys;
mod moments;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use wattle_model::Revision;

pub(crate) use self::batch::Batch;
pub use self::moments::Moment;

/// Operations in one transaction, at most.
pub const MAX_OPERATIONS: usize = 128;
/// Bytes of keys and values in one transaction, at most.
pub const MAX_BYTES: usize = 1 << 20;

/// A key: a path such as `v1/network/default`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// Wraps a path; [`keys`] makes all that the product uses.
    pub fn new(path: impl Into<Arc<str>>) -> Self {
        Self(path.into())
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A key's value and the revision of the transaction that put it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The key.
    pub key: Key,
    /// Its value.
    pub value: Bytes,
    /// Its mod_revision.
    pub modified: Revision,
}

/// What must hold for a transaction to happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// The key was last put at this revision.
    Modified(Key, Revision),
    /// The key doesn't exist.
    Absent(Key),
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Sets a key.
    Put(Key, Bytes),
    /// Removes a key; no error where it doesn't exist.
    Delete(Key),
}

impl Operation {
    /// The key that it writes.
    pub const fn key(&self) -> &Key {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }
}

/// All of these writes, or none where a comparison fails.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Transaction {
    /// All must hold.
    pub compares: Vec<Compare>,
    /// Done in one revision; no key twice.
    pub operations: Vec<Operation>,
}

impl Transaction {
    /// Puts a key that must not exist.
    pub fn create(mut self, key: Key, value: Bytes) -> Self {
        self.compares.push(Compare::Absent(key.clone()));
        self.put(key, value)
    }

    /// Puts a key that must be as it was read.
    pub fn replace(mut self, read: &Stored, value: Bytes) -> Self {
        self.compares.push(Compare::Modified(read.key.clone(), read.modified));
        self.put(read.key.clone(), value)
    }

    /// Deletes a key that must be as it was read.
    pub fn remove(mut self, read: &Stored) -> Self {
        self.compares.push(Compare::Modified(read.key.clone(), read.modified));
        self.delete(read.key.clone())
    }

    /// Puts a key, whatever it was.
    pub fn put(mut self, key: Key, value: Bytes) -> Self {
        self.operations.push(Operation::Put(key, value));
        self
    }

    /// Deletes a key, whatever it was.
    pub fn delete(mut self, key: Key) -> Self {
        self.operations.push(Operation::Delete(key));
        self
    }

    /// Demands that a key is as it was read, without writing it.
    pub fn unchanged(mut self, read: &Stored) -> Self {
        self.compares.push(Compare::Modified(read.key.clone(), read.modified));
        self
    }

    /// Demands that a key is as it was read, be it absent, without writing it.
    pub fn as_read(mut self, key: Key, read: Option<&Stored>) -> Self {
        self.compares.push(match read {
            Some(stored) => Compare::Modified(key, stored.modified),
            None => Compare::Absent(key),
        });
        self
    }

    /// Adds everything of another transaction to this one.
    pub fn and(mut self, other: Self) -> Self {
        self.compares.extend(other.compares);
        self.operations.extend(other.operations);
        self
    }

    /// Bytes of all keys and values that it writes.
    pub fn bytes(&self) -> usize {
        let bytes = self.operations.iter().map(|operation| match operation {
            Operation::Put(key, value) => key.as_str().len() + value.len(),
            Operation::Delete(key) => key.as_str().len(),
        });
        bytes.sum()
    }
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Done and durable, at this revision.
    Committed(Revision),
    /// A comparison failed; nothing was written.
    Conflict,
}

/// Why the store couldn't do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The transaction is larger than one may be. Nothing was written.
    #[error("a transaction has at most {limit} {what}, this one has {got}")]
    TooLarge {
        /// "operations" or "bytes".
        what: &'static str,
        /// The most there may be.
        limit: usize,
        /// How many there are.
        got: usize,
    },
    /// The transaction writes a key twice. Nothing was written.
    #[error("a transaction writes {0} twice")]
    KeyTwice(Key),
    /// The store can't be reached or can't write now; nothing is known of what was asked.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store isn't the one it was: it was restored from a backup, or another one took its place.
    /// Nothing is known of what was asked. Told once; after that the new one is taken for true.
    #[error("the store was replaced: {0}")]
    Replaced(String),
    /// What the store holds can't be read: it is damaged, or of another version.
    #[error("the store holds something unreadable: {0}")]
    Corrupt(String),
}

/// A part of a listing, in the order of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Keys and values.
    pub items: Vec<Stored>,
    /// The revision that this page shows.
    pub revision: Revision,
    /// There are more after the last of these.
    pub more: bool,
}

/// Everything under a prefix at one revision, page by page.
pub struct Snapshot {
    /// The revision that it shows.
    pub revision: Revision,
    /// Its pages, in the order of keys.
    pub pages: BoxStream<'static, Result<Vec<Stored>, StoreError>>,
}

/// What one transaction did, as a watch tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The transaction's revision.
    pub revision: Revision,
    /// Its operations on keys under the watched prefix; never empty.
    pub operations: Vec<Operation>,
}

/// Why a watch ended.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The store has forgotten what came after the revision asked for: list again.
    #[error("the store remembers nothing before revision {0}")]
    Compacted(Revision),
    /// The store can't be reached or read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Changes in the order of their revisions, whole transactions only.
pub type Watch = BoxStream<'static, Result<Change, WatchError>>;

/// A replicated, revisioned map of keys to bytes.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// A revision that is at least that of the last transaction, read linearizably. Others may write
    /// to the same store, so it may be one that no watch tells of.
    async fn head(&self) -> Result<Revision, StoreError>;

    /// A revision that is at least that of every transaction before this call, and that a watch of
    /// everything tells of, or of a later one: where others write to the same store, a heartbeat of
    /// this process's. Who has been told of it has been told of all before.
    async fn beat(&self) -> Result<Revision, StoreError>;

    /// A key, read linearizably. A store without a quorum answers with what it has, but with
    /// nothing older than this process has seen.
    async fn get(&self, key: &Key) -> Result<Option<Stored>, StoreError>;

    /// Up to `limit` keys under `prefix` and after `after`, at head.
    async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError>;

    /// Everything under `prefix` at one revision.
    async fn snapshot(&self, prefix: &Key) -> Result<Snapshot, StoreError>;

    /// Does all of a transaction or none of it. It is durable when this returns.
    async fn commit(&self, transaction: Transaction) -> Result<Outcome, StoreError>;

    /// Puts a key under `v1/live/` that vanishes when this process does, be it some seconds later.
    async fn announce(&self, key: Key, value: Bytes) -> Result<Revision, StoreError>;

    /// What happens under `prefix` after the revision `after`. Ends with an error only.
    async fn watch(&self, prefix: &Key, after: Revision) -> Result<Watch, WatchError>;

    /// How often another store was found in the place of this one. Calls tell of it once, to whoever
    /// made them; this is for those who must not miss it.
    fn replaced(&self) -> u64 {
        0
    }

    /// When the commit of a revision returned, where this process made it and that isn't long ago.
    /// An embedded store knows it before any watch tells of the revision.
    fn committed_at(&self, _: Revision) -> Option<Moment> {
        None
    }
}

/// Checks the limits that every backend has.
pub(crate) fn check_limits(transaction: &Transaction) -> Result<(), StoreError> {
    let too_large = |what, limit, got| Err(StoreError::TooLarge { what, limit, got });
    let operations = transaction.operations.len().max(transaction.compares.len());
    if operations > MAX_OPERATIONS {
        return too_large("operations", MAX_OPERATIONS, operations);
    }
    let bytes = transaction.bytes();
    if bytes > MAX_BYTES {
        return too_large("bytes", MAX_BYTES, bytes);
    }
    let mut keys: Vec<_> = transaction.operations.iter().map(Operation::key).collect();
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(StoreError::KeyTwice(pair[0].clone())),
        None => Ok(()),
    }
}
