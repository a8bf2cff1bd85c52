//! What is told in pieces: snapshots, each from one pinned read transaction, and watches, each a
//! place in the log.

use std::{collections::VecDeque, sync::Arc};

use futures::{StreamExt as _, stream};
use redb::ReadTransaction;
use tokio::sync::watch;
use wattle_model::Revision;

use super::{
    reader::{self, Logged},
    reads::Reads,
};
use crate::store::{Change, Key, Snapshot, StoreError, Stored, Watch, WatchError};

/// Keys of one page of a snapshot.
const PAGE: usize = 1000;

/// Everything under a prefix.
pub(super) async fn snapshot(reads: &Reads, prefix: Key) -> Result<Snapshot, StoreError> {
    let pinned = reads.pin().await?;
    let revision = reads.run_in(pinned.clone(), reader::head).await?;
    let rest = Rest { pinned, prefix, after: None, reads: reads.clone() };
    Ok(Snapshot { revision, pages: stream::try_unfold(Some(rest), Rest::next_page).boxed() })
}

/// What a snapshot has still to show.
struct Rest {
    pinned: Arc<ReadTransaction>,
    prefix: Key,
    after: Option<Key>,
    reads: Reads,
}

impl Rest {
    async fn next_page(
        rest: Option<Self>,
    ) -> Result<Option<(Vec<Stored>, Option<Self>)>, StoreError> {
        let Some(mut rest) = rest else { return Ok(None) };
        let (prefix, after) = (rest.prefix.clone(), rest.after.clone());
        let list =
            move |pinned: &ReadTransaction| reader::list(pinned, &prefix, after.as_ref(), PAGE);
        let page = rest.reads.run_in(rest.pinned.clone(), list).await?;
        rest.after = page.items.last().map(|item| item.key.clone());
        Ok(Some((page.items, page.more.then_some(rest))))
    }
}

/// One watch: a place in the log, and what was read from there and not yet told.
pub(super) struct Watcher {
    reads: Reads,
    head: watch::Receiver<Revision>,
    prefix: Key,
    reached: Revision,
    read: VecDeque<Change>,
}

impl Watcher {
    /// Begins to watch. A revision that is already forgotten is told here, not at the first change.
    pub(super) async fn start(
        reads: &Reads,
        head: watch::Receiver<Revision>,
        prefix: Key,
        after: Revision,
    ) -> Result<Watch, WatchError> {
        let (reads, read) = (reads.clone(), VecDeque::new());
        let mut watcher = Self { reads, head, prefix, reached: after, read };
        watcher.read_log().await?;
        Ok(stream::unfold(Some(watcher), Self::next).boxed())
    }

    async fn next(watcher: Option<Self>) -> Option<(Result<Change, WatchError>, Option<Self>)> {
        let mut watcher = watcher?;
        loop {
            if let Some(change) = watcher.read.pop_front() {
                return Some((Ok(change), Some(watcher)));
            }
            if let Err(error) = watcher.wait_and_read().await {
                return Some((Err(error), None));
            }
        }
    }

    async fn wait_and_read(&mut self) -> Result<(), WatchError> {
        let reached = self.reached;
        let waited = self.head.wait_for(|head| *head > reached).await.map(drop);
        waited.map_err(|_| StoreError::Unavailable("the store is closed".into()))?;
        self.read_log().await
    }

    async fn read_log(&mut self) -> Result<(), WatchError> {
        let (prefix, after) = (self.prefix.clone(), self.reached);
        let logged = self.reads.run(move |t| reader::log(t, &prefix, after)).await?;
        match logged {
            Logged::Compacted(first) => Err(WatchError::Compacted(first)),
            Logged::Changes(changes, reached) => {
                self.read.extend(changes);
                self.reached = reached;
                Ok(())
            }
        }
    }
}
