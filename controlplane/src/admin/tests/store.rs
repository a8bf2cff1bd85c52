//! A store in which somebody else writes between our reads and our commit.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use wattle_model::Revision;

use crate::store::{
    Key, Moment, Outcome, Page, Snapshot, Store, StoreError, Stored, Transaction, Watch, WatchError,
};

/// Before a commit, commits the first of what others want.
pub(super) struct Racing {
    inner: Arc<dyn Store>,
    others: Mutex<VecDeque<Transaction>>,
}

impl Racing {
    pub(super) fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, others: Mutex::default() }
    }

    /// Lets somebody else write before the next commits, one before each.
    pub(super) fn race(&self, others: impl IntoIterator<Item = Transaction>) {
        self.others.lock().extend(others);
    }
}

#[async_trait]
impl Store for Racing {
    async fn head(&self) -> Result<Revision, StoreError> {
        self.inner.head().await
    }

    async fn beat(&self) -> Result<Revision, StoreError> {
        self.inner.beat().await
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, StoreError> {
        self.inner.get(key).await
    }

    async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.inner.list(prefix, after, limit).await
    }

    async fn snapshot(&self, prefix: &Key) -> Result<Snapshot, StoreError> {
        self.inner.snapshot(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        let other = self.others.lock().pop_front();
        if let Some(other) = other {
            let outcome = self.inner.commit(other).await?;
            assert!(matches!(outcome, Outcome::Committed(_)), "the other one is faster");
        }
        self.inner.commit(transaction).await
    }

    async fn announce(&self, key: Key, value: Bytes) -> Result<Revision, StoreError> {
        self.inner.announce(key, value).await
    }

    async fn watch(&self, prefix: &Key, after: Revision) -> Result<Watch, WatchError> {
        self.inner.watch(prefix, after).await
    }

    fn committed_at(&self, revision: Revision) -> Option<Moment> {
        self.inner.committed_at(revision)
    }
}
