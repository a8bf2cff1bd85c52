//! The embedded backend: one redb file, one replica, nothing else to run.
//!
//! [`writer`] owns every write; reads run on blocking threads, each in a read transaction of its
//! own. The log of the last revisions feeds the watches, so that none of them has a queue.

mod file;
mod reader;
mod reads;
mod streams;
mod writer;

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;
use wattle_model::Revision;

use self::{
    file::StoreFile,
    reads::Reads,
    streams::Watcher,
    writer::{Publisher, Writer},
};
use super::{
    Key, Moment, Outcome, Page, Snapshot, Store, StoreError, Stored, Transaction, Watch,
    WatchError, check_limits, moments::Moments,
};

/// How far back a watch can begin.
const LOG_REVISIONS: u64 = 100_000;

/// A store in one file. Clones share it; the last one closes it.
#[derive(Clone)]
pub struct Embedded {
    writer: Arc<Writer>,
    reads: Reads,
    head: watch::Receiver<Revision>,
    moments: Moments,
}

impl Embedded {
    /// Opens the file, or makes it. Blocks for as long as it takes to read all of it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::with_log(path, LOG_REVISIONS)
    }

    /// As [`Embedded::open`], with a log that reaches back so many revisions.
    pub fn with_log(path: &Path, revisions: u64) -> Result<Self, StoreError> {
        let file = Arc::new(StoreFile::open(path)?);
        writer::forget_live(&file, revisions)?;
        let head = reader::head(&file.read()?).map_err(|error| file.explain(error))?;
        let (sender, head) = watch::channel(head);
        let moments = Moments::default();
        let publisher = Publisher { head: sender, moments: moments.clone() };
        let writer = Arc::new(Writer::start(file.clone(), publisher, revisions)?);
        Ok(Self { writer, reads: Reads::of(file), head, moments })
    }
}

#[async_trait]
impl Store for Embedded {
    async fn head(&self) -> Result<Revision, StoreError> {
        self.reads.run(reader::head).await
    }

    /// Nobody else writes: everything is told.
    async fn beat(&self) -> Result<Revision, StoreError> {
        self.head().await
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, StoreError> {
        let key = key.clone();
        self.reads.run(move |transaction| reader::get(transaction, &key)).await
    }

    async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let (prefix, after) = (prefix.clone(), after.cloned());
        self.reads
            .run(move |transaction| reader::list(transaction, &prefix, after.as_ref(), limit))
            .await
    }

    async fn snapshot(&self, prefix: &Key) -> Result<Snapshot, StoreError> {
        streams::snapshot(&self.reads, prefix.clone()).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        check_limits(&transaction)?;
        self.writer.commit(transaction).await
    }

    /// What is left of it is deleted when the file is opened again.
    async fn announce(&self, key: Key, value: Bytes) -> Result<Revision, StoreError> {
        match self.commit(Transaction::default().put(key, value)).await? {
            Outcome::Committed(revision) => Ok(revision),
            Outcome::Conflict => Err(StoreError::Unavailable("nothing was compared".to_owned())),
        }
    }

    async fn watch(&self, prefix: &Key, after: Revision) -> Result<Watch, WatchError> {
        Watcher::start(&self.reads, self.head.clone(), prefix.clone(), after).await
    }

    fn committed_at(&self, revision: Revision) -> Option<Moment> {
        self.moments.of(revision)
    }
}
