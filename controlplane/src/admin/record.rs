//! One history record as it was read, be it absent, and how it is written again. The writer of
//! network and policy records; those of nodes are written by `crate::nodes`.

use tonic::Status;
use wattle_model::{History, Revision};
use wattle_proto::record::{self, Body};

use super::error::unreadable;
use crate::{
    nodes::store_failed,
    store::{Key, Store, Stored, Transaction},
};

/// What a key held when it was read.
pub(super) struct Record<T> {
    key: Key,
    read: Option<(Stored, History<T>)>,
}

impl<T: Body + Clone> Record<T> {
    pub(super) async fn read(store: &dyn Store, key: Key) -> Result<Self, Status> {
        let stored = store.get(&key).await.map_err(store_failed)?;
        let read = |stored: Stored| {
            let history = record::decode_history(&stored.value, stored.modified);
            history.map(|history| (stored, history)).map_err(|error| unreadable(&key, &error))
        };
        Ok(Self { read: stored.map(read).transpose()?, key })
    }

    /// What it says now; `None` where there is no such thing.
    pub(super) fn present(&self) -> Option<&T> {
        self.read.as_ref()?.1.present().body.as_ref()
    }

    /// The revision at which it came to say so; zero where there is no such thing.
    pub(super) fn revision(&self) -> Revision {
        let present = self.read.as_ref().map(|(_, history)| history.present());
        present.filter(|present| present.body.is_some()).map_or(Revision::ZERO, |p| p.from)
    }

    /// Says something else from now on; `None` deletes it. Compares with what was read.
    pub(super) fn write(&self, body: Option<&T>) -> Transaction {
        let (transaction, key) = (Transaction::default(), self.key.clone());
        match (&self.read, body) {
            (None, None) => transaction.as_read(key, None),
            (None, Some(body)) => transaction.create(key, record::encode_first(body)),
            (Some((stored, history)), body) => {
                let changed = record::encode_changed(history.clone(), body.cloned());
                transaction.replace(stored, changed)
            }
        }
    }
}
