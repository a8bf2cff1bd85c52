//! A store behind a line that can be cut.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use tokio::sync::watch;
use wattle_controlplane::store::{
    Key, Outcome, Page, Snapshot, Store, StoreError, Stored, Transaction, Watch, WatchError,
};
use wattle_model::Revision;

pub(crate) struct Line {
    store: Arc<dyn Store>,
    up: watch::Sender<bool>,
    lists: AtomicUsize,
}

impl Line {
    pub(crate) fn to(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store, up: watch::Sender::new(true), lists: AtomicUsize::new(0) })
    }

    pub(crate) fn cut(&self) {
        self.up.send_replace(false);
    }

    pub(crate) fn mend(&self) {
        self.up.send_replace(true);
    }

    /// How often everything was listed.
    pub(crate) fn lists(&self) -> usize {
        self.lists.load(Ordering::Relaxed)
    }

    fn check(&self) -> Result<(), StoreError> {
        if *self.up.borrow() { Ok(()) } else { Err(down()) }
    }
}

fn down() -> StoreError {
    StoreError::Unavailable("the line is cut".into())
}

#[async_trait]
impl Store for Line {
    async fn head(&self) -> Result<Revision, StoreError> {
        self.check()?;
        self.store.head().await
    }

    async fn beat(&self) -> Result<Revision, StoreError> {
        self.check()?;
        self.store.beat().await
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, StoreError> {
        self.check()?;
        self.store.get(key).await
    }

    async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.check()?;
        self.store.list(prefix, after, limit).await
    }

    async fn snapshot(&self, prefix: &Key) -> Result<Snapshot, StoreError> {
        self.check()?;
        self.lists.fetch_add(1, Ordering::Relaxed);
        self.store.snapshot(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        self.check()?;
        self.store.commit(transaction).await
    }

    async fn announce(&self, key: Key, value: Bytes) -> Result<Revision, StoreError> {
        self.check()?;
        self.store.announce(key, value).await
    }

    async fn watch(&self, prefix: &Key, after: Revision) -> Result<Watch, WatchError> {
        self.check()?;
        let mut up = self.up.subscribe();
        let cut = async move {
            let _ = up.wait_for(|up| !*up).await;
        };
        let changes = self.store.watch(prefix, after).await?.take_until(Box::pin(cut));
        Ok(changes.chain(stream::iter([Err(down().into())])).boxed())
    }
}
