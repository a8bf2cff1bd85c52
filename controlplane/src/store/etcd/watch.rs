//! A watch: one stream from one member, until it is cut or the member goes. It isn't taken up here:
//! whoever watches knows how far it got, and asks again from there, of the next member.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use etcd_client::{
    Error, WatchOptions, WatchStream,
    proto::{PbEvent, PbWatchResponse},
};
use futures::{StreamExt as _, stream};
use wattle_model::Revision;

use super::{
    Client,
    assembly::Assembly,
    endpoints::Demand,
    failure::Kind,
    identity::Mark,
    keyspace::{Span, number, revision},
};
use crate::store::{Change, Key, Operation, StoreError, Watch, WatchError};

/// Within which a member must have begun a watch.
const BEGIN_WITHIN: Duration = Duration::from_secs(3);
/// A response's bytes, at most. etcd cuts larger ones into fragments of a megabyte and a half, but
/// for what it gathers before it has said that the watch is there.
const MAX_RESPONSE: usize = 64 << 20;

impl Client {
    pub(super) async fn watch(
        self: &Arc<Self>,
        prefix: &Key,
        after: Revision,
    ) -> Result<Watch, WatchError> {
        let Span { start, end } = self.keyspace.span(prefix, None);
        let options = WatchOptions::new()
            .with_range(end)
            .with_start_revision(number(after.next()))
            .with_fragment();
        let mark = self.identity.mark();
        let (stream, place) = self
            .endpoints
            .hold(Demand::Leader, BEGIN_WITHIN, |client| async move {
                let mut client = client.watch_client().max_decoding_message_size(MAX_RESPONSE);
                client.watch(start, Some(options)).await
            })
            .await
            .map_err(StoreError::from)?;
        let watcher = Watcher {
            client: self.clone(),
            stream,
            place,
            mark,
            assembly: Assembly::after(after),
            read: VecDeque::new(),
        };
        Ok(stream::unfold(Some(watcher), Watcher::next).boxed())
    }
}

struct Watcher {
    client: Arc<Client>,
    /// Its sending half, too: the watch lasts as long as that.
    stream: WatchStream,
    /// The member that it comes from.
    place: usize,
    mark: Mark,
    assembly: Assembly,
    read: VecDeque<Change>,
}

impl Watcher {
    async fn next(watcher: Option<Self>) -> Option<(Result<Change, WatchError>, Option<Self>)> {
        let mut watcher = watcher?;
        loop {
            if let Some(change) = watcher.read.pop_front() {
                return Some((Ok(change), Some(watcher)));
            }
            if let Err(error) = watcher.read().await {
                return Some((Err(error), None));
            }
        }
    }

    /// Takes the next response.
    async fn read(&mut self) -> Result<(), WatchError> {
        let response = match self.stream.message().await {
            Ok(Some(response)) => response,
            Ok(None) => return Err(self.lost(None)),
            Err(error) => return Err(self.lost(Some(&error))),
        };
        self.client.identity.still(response.header(), self.mark)?;
        let response = response.0;
        if response.canceled {
            return Err(self.canceled(&response));
        }
        let more = response.fragment;
        let events = response.events.into_iter().filter_map(|event| self.event(event));
        let events: Vec<_> = events.collect();
        self.read.extend(self.assembly.take(events, more));
        if let Some(last) = self.read.back() {
            self.client.identity.told(last.revision, self.mark);
        }
        Ok(())
    }

    fn event(&self, event: PbEvent) -> Option<(Revision, Operation)> {
        let kv = event.kv?;
        let key = self.client.keyspace.inner(&kv.key)?;
        let operation = match event.r#type {
            DELETE => Operation::Delete(key),
            _ => Operation::Put(key, kv.value.into()),
        };
        Some((revision(kv.mod_revision), operation))
    }

    /// 3.4 says first that the watch is there, and then that it isn't, with what was compacted.
    fn canceled(&self, response: &PbWatchResponse) -> WatchError {
        if response.compact_revision > 0 {
            return WatchError::Compacted(revision(response.compact_revision));
        }
        self.client.endpoints.leave(self.place, &"it ended a watch");
        let why = &response.cancel_reason;
        StoreError::Unavailable(format!("etcd ended the watch: {why}")).into()
    }

    fn lost(&self, error: Option<&Error>) -> WatchError {
        let failure = match error {
            Some(error) => self.client.endpoints.failed(self.place, error),
            None => self.client.endpoints.ended(self.place),
        };
        match failure.kind {
            // What can't be taken in one piece is listed, page by page.
            Kind::TooLarge | Kind::Compacted => WatchError::Compacted(Revision::ZERO),
            _ => {
                self.client.endpoints.leave(self.place, &failure);
                StoreError::from(failure).into()
            }
        }
    }
}

/// `mvccpb.Event.DELETE`.
const DELETE: i32 = 1;
