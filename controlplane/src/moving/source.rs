//! What a store holds, record by record, as it was at one revision.

use std::collections::VecDeque;

use futures::{TryStreamExt as _, stream::BoxStream};
use prost::Message as _;
use wattle_model::{Epoch, Revision};
use wattle_proto::store as proto;

use super::{
    MoveError, Record,
    content::{Content, Tally, unreadable},
};
use crate::store::{Key, Store, StoreError, Stored, keys};

/// What is said of all records before the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The source's epoch.
    pub epoch: Epoch,
    /// The revision that the records show.
    pub revision: Revision,
    /// The control plane's.
    pub trust_domain: String,
}

/// A control plane's records, being read. It holds one page of them.
pub struct Source {
    /// What they are.
    pub header: Header,
    pages: BoxStream<'static, Result<Vec<Stored>, StoreError>>,
    page: VecDeque<Stored>,
    content: Content,
}

impl Source {
    /// Begins to read. Other records may be written meanwhile: they aren't shown.
    pub async fn open(store: &dyn Store) -> Result<Self, MoveError> {
        if let Some(moving) = store.get(&keys::moving()).await? {
            let from = proto::Moving::decode(moving.value).map(|moving| moving.from);
            return Err(MoveError::Half(from.unwrap_or_else(|_| "another store".into())));
        }
        let found = |key: Key| async move { store.get(&key).await?.ok_or(MoveError::Nothing(key)) };
        let (epoch, cluster) = (found(keys::epoch()).await?, found(keys::cluster()).await?);
        let record = proto::Cluster::decode(cluster.value.clone())
            .map_err(|error| unreadable(&cluster.key, error))?;
        let epoch = Epoch::try_from(epoch.value.as_ref())
            .map_err(|error| unreadable(&keys::epoch(), error))?;
        let snapshot = store.snapshot(&keys::all()).await?;
        let header =
            Header { epoch, revision: snapshot.revision, trust_domain: record.trust_domain };
        let (page, content) = (VecDeque::new(), Content::default());
        Ok(Self { header, pages: snapshot.pages, page, content })
    }

    /// The next record, in the order of keys; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Record>, MoveError> {
        loop {
            while let Some(stored) = self.page.pop_front() {
                if let Some(record) = self.content.take(&stored)? {
                    return Ok(Some(record));
                }
            }
            match self.pages.try_next().await? {
                Some(page) => self.page = page.into(),
                None => return Ok(None),
            }
        }
    }

    /// What was read.
    pub fn tally(self) -> Tally {
        self.content.tally()
    }
}
