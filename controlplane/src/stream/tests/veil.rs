//! A store that a replica sees late, or not at all, while it is well: what a bad network does.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::watch;
use wattle_model::Revision;

use crate::store::{
    Key, Outcome, Page, Snapshot, Store, StoreError, Stored, Transaction, Watch, WatchError,
};

/// How the store is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    Clear,
    /// Watches bring nothing; everything else works.
    Late,
    /// Watches break, and the store doesn't say where it is.
    Gone,
}

#[derive(Clone)]
pub(super) struct Veil {
    store: Arc<dyn Store>,
    sight: Arc<watch::Sender<Sight>>,
}

impl Veil {
    pub(super) fn over(store: Arc<dyn Store>) -> Self {
        Self { store, sight: Arc::new(watch::Sender::new(Sight::Clear)) }
    }

    pub(super) fn set(&self, sight: Sight) {
        self.sight.send_replace(sight);
    }

    fn gone(&self) -> Result<(), StoreError> {
        match *self.sight.borrow() {
            Sight::Gone => Err(StoreError::Unavailable("behind the veil".into())),
            Sight::Clear | Sight::Late => Ok(()),
        }
    }
}

#[async_trait]
impl Store for Veil {
    async fn head(&self) -> Result<Revision, StoreError> {
        self.gone()?;
        self.store.head().await
    }

    async fn beat(&self) -> Result<Revision, StoreError> {
        self.gone()?;
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
        self.store.commit(transaction).await
    }

    async fn announce(&self, key: Key, value: Bytes) -> Result<Revision, StoreError> {
        self.store.announce(key, value).await
    }

    async fn watch(&self, prefix: &Key, after: Revision) -> Result<Watch, WatchError> {
        self.gone()?;
        let seen = (self.store.watch(prefix, after).await?, self.sight.subscribe());
        Ok(futures::stream::unfold(seen, next).boxed())
    }
}

type Item = <Watch as futures::Stream>::Item;

/// The next item, once it can be seen.
async fn next(
    (mut watch, mut sight): (Watch, watch::Receiver<Sight>),
) -> Option<(Item, (Watch, watch::Receiver<Sight>))> {
    loop {
        let now = *sight.borrow_and_update();
        if now == Sight::Gone {
            let lost = StoreError::Unavailable("behind the veil".into()).into();
            return Some((Err(lost), (watch, sight)));
        }
        tokio::select! {
            // First: what is committed after the veil has come down must not slip through.
            biased;
            _ = sight.changed() => {}
            item = watch.next(), if now == Sight::Clear => return Some((item?, (watch, sight))),
        }
    }
}
