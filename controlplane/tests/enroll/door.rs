//! A store whose commits can be held, and fail then.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;
use wattle_controlplane::store::{
    Key, Outcome, Page, Snapshot, Store, StoreError, Stored, Transaction, Watch, WatchError,
};
use wattle_model::Revision;

/// What becomes of commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    /// They wait.
    Held,
    /// They fail, those that wait as well.
    Broken,
}

pub(crate) struct Door {
    store: Arc<dyn Store>,
    way: watch::Sender<Way>,
    commits: AtomicUsize,
}

impl Door {
    pub(crate) fn to(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store, way: watch::Sender::new(Way::Held), commits: AtomicUsize::new(0) })
    }

    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// Waits until somebody commits.
    pub(crate) async fn is_asked(&self) {
        while self.commits() == 0 {
            tokio::task::yield_now().await;
        }
    }

    /// How many commits were asked for.
    pub(crate) fn commits(&self) -> usize {
        self.commits.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Store for Door {
    async fn head(&self) -> Result<Revision, StoreError> {
        self.store.head().await
    }

    async fn beat(&self) -> Result<Revision, StoreError> {
        self.store.beat().await
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, StoreError> {
        self.store.get(key).await
    }

    async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.store.list(prefix, after, limit).await
    }

    async fn snapshot(&self, prefix: &Key) -> Result<Snapshot, StoreError> {
        self.store.snapshot(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        let mut way = self.way.subscribe();
        let way = *way.wait_for(|way| *way != Way::Held).await.unwrap();
        match way {
            Way::Broken => Err(StoreError::Unavailable("behind the door".into())),
            _ => self.store.commit(transaction).await,
        }
    }

    async fn announce(&self, key: Key, value: Bytes) -> Result<Revision, StoreError> {
        self.store.announce(key, value).await
    }

    async fn watch(&self, prefix: &Key, after: Revision) -> Result<Watch, WatchError> {
        self.store.watch(prefix, after).await
    }
}
