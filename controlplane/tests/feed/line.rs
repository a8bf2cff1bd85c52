//! A store behind a line that can be cut.

use std::sync::{Arc, Mutex};

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
    /// What becomes of the watch's changes.
    fault: Arc<Mutex<Fault>>,
}

/// What a watch does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The next change of a node is lost.
    Loses,
    /// Every change comes twice, and the one before it again.
    Repeats,
    /// Heartbeats are said to be where the first one was.
    BeatsOld,
}

impl Line {
    pub(crate) fn to(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            store,
            up: watch::Sender::new(true),
            fault: Arc::new(Mutex::new(Fault::None)),
        })
    }

    pub(crate) fn cut(&self) {
        self.up.send_replace(false);
    }

    pub(crate) fn mend(&self) {
        self.up.send_replace(true);
    }

    /// Makes the watch go wrong.
    pub(crate) fn set_fault(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    /// The next change was lost.
    pub(crate) fn has_lost(&self) -> bool {
        *self.fault.lock().unwrap() == Fault::None
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
        if *self.fault.lock().unwrap() == Fault::BeatsOld {
            return Ok(Revision(1));
        }
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

    fn replaced(&self) -> u64 {
        self.store.replaced()
    }

    async fn watch(&self, prefix: &Key, after: Revision) -> Result<Watch, WatchError> {
        self.check()?;
        let mut up = self.up.subscribe();
        let cut = async move {
            let _ = up.wait_for(|up| !*up).await;
        };
        let changes = self.store.watch(prefix, after).await?.take_until(Box::pin(cut));
        let (fault, mut last) = (self.fault.clone(), None);
        let changes = changes.flat_map(move |item| {
            let mut fault = fault.lock().unwrap();
            let Ok(change) = &item else { return stream::iter(vec![item]) };
            let of_a_node = change.operations.iter().any(|o| o.key().as_str().contains("/node/"));
            match *fault {
                Fault::Loses if of_a_node => {
                    *fault = Fault::None;
                    stream::iter(vec![])
                }
                Fault::Repeats => {
                    let again = last.replace(change.clone()).unwrap_or_else(|| change.clone());
                    stream::iter(vec![Ok(change.clone()), Ok(again), item])
                }
                _ => stream::iter(vec![item]),
            }
        });
        Ok(changes.chain(stream::iter([Err(down().into())])).boxed())
    }
}
