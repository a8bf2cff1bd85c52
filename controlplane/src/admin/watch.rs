//! Watching: a stream of what changes, from any revision that the store remembers.
//!
//! Nothing is queued: the store is asked for the next transaction when the last message has left.
//! A watcher who is slower than the store remembers is told so (OUT_OF_RANGE) and lists again.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::BoxStream};
use tokio::{
    select,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use wattle_model::{NetworkName, Revision};
use wattle_proto::{
    admin::{WatchRequest, WatchResponse},
    store as record,
};
use wattle_runtime::clock;

use super::{changes, convert::parse, operators, records};
use crate::{
    access::Principal,
    nodes::store_failed,
    store::{Change, Store, Watch, WatchError, keys},
};

/// Watches at one time on one replica.
const MAX_WATCHES: usize = 256;
/// Between signs of life. Each carries the revision to resume from, so that a watcher of a quiet
/// network in a busy store doesn't fall behind what the store remembers.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// What a watch sends.
pub(super) type Responses = BoxStream<'static, Result<WatchResponse, Status>>;

/// Opens watches, so many and no more.
pub(super) struct Watches {
    store: Arc<dyn Store>,
    places: Arc<Semaphore>,
    drain: CancellationToken,
}

impl Watches {
    /// All of them end, cleanly, when `drain` is cancelled.
    pub(super) fn new(store: Arc<dyn Store>, drain: CancellationToken) -> Self {
        Self { store, places: Arc::new(Semaphore::new(MAX_WATCHES)), drain }
    }

    pub(super) async fn open(
        &self,
        principal: &Principal,
        request: &WatchRequest,
    ) -> Result<Responses, Status> {
        let network = match request.network.as_str() {
            "" => None,
            name => Some(parse("network", name)?),
        };
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "{MAX_WATCHES} watches are open on this replica, the most there may be: end one"
            ))
        })?;
        let after = self.start(request.after_revision).await?;
        let watch = self.store.watch(&keys::all(), after).await.map_err(refused)?;
        let mut life = interval_at(Instant::now() + SIGN_OF_LIFE, SIGN_OF_LIFE);
        life.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let watcher = Watcher {
            store: self.store.clone(),
            principal: principal.clone(),
            network,
            watch,
            seen: after,
            life,
            drain: self.drain.clone(),
            _place: place,
        };
        let begin = WatchResponse { revision: after.0, ..WatchResponse::default() };
        let changes = futures::stream::unfold(Some(watcher), next);
        Ok(futures::stream::once(async { Ok(begin) }).chain(changes).boxed())
    }

    /// Where to begin: now, or where the watcher was.
    async fn start(&self, after: Option<u64>) -> Result<Revision, Status> {
        let head = self.store.head().await.map_err(store_failed)?;
        match after.map(Revision) {
            None => Ok(head),
            Some(after) if after <= head => Ok(after),
            Some(_) => Err(Status::out_of_range(format!(
                "after_revision: the store is at {head}, it was perhaps restored: list again and \
                 watch without after_revision"
            ))),
        }
    }
}

/// One watch.
struct Watcher {
    store: Arc<dyn Store>,
    principal: Principal,
    network: Option<NetworkName>,
    watch: Watch,
    /// The revision to resume from.
    seen: Revision,
    life: Interval,
    drain: CancellationToken,
    _place: OwnedSemaphorePermit,
}

/// The next message; after an error, or when the replica stops, none.
async fn next(
    watcher: Option<Watcher>,
) -> Option<(Result<WatchResponse, Status>, Option<Watcher>)> {
    let mut watcher = watcher?;
    match watcher.next().await? {
        Ok(response) => Some((Ok(response), Some(watcher))),
        Err(status) => Some((Err(status), None)),
    }
}

impl Watcher {
    async fn next(&mut self) -> Option<Result<WatchResponse, Status>> {
        loop {
            // The sign of life before the store: among many changes of other networks it must
            // still get its turn.
            let change = select! {
                biased;
                () = self.drain.cancelled() => return None,
                _ = self.life.tick() => return Some(self.sign_of_life().await),
                change = self.watch.next() => change,
            };
            let response = match change {
                Some(Ok(change)) => self.tell(&change).await,
                Some(Err(error)) => Err(refused(error)),
                None => Err(Status::unavailable("the store ended the watch: resume it")),
            };
            if let Some(response) = response.transpose() {
                return Some(response);
            }
        }
    }

    async fn tell(&mut self, change: &Change) -> Result<Option<WatchResponse>, Status> {
        let changes = changes::of(&*self.store, change, self.network.as_ref()).await?;
        self.seen = change.revision;
        let committed = self.store.committed_at(self.seen).map(|moment| moment.date.into());
        let response = WatchResponse { revision: self.seen.0, changes, committed_at: committed };
        Ok((!response.changes.is_empty()).then_some(response))
    }

    async fn sign_of_life(&mut self) -> Result<WatchResponse, Status> {
        self.still_permitted().await?;
        Ok(WatchResponse { revision: self.seen.0, ..WatchResponse::default() })
    }

    /// A call is checked when it begins, and this one may last for days.
    async fn still_permitted(&mut self) -> Result<(), Status> {
        let Principal::Operator { id, .. } = &self.principal else { return Ok(()) };
        let stored = self.store.get(&keys::operator(*id)).await.map_err(store_failed)?;
        let live = stored.map(|stored| records::operator(&stored)).transpose()?.is_some_and(
            |(_, operator): (_, record::Operator)| operators::is_live(&operator, clock::now()),
        );
        if live {
            return Ok(());
        }
        Err(Status::permission_denied("this operator was revoked, or its time has run out"))
    }
}

fn refused(error: WatchError) -> Status {
    match error {
        WatchError::Compacted(revision) => Status::out_of_range(format!(
            "after_revision: the store remembers nothing before revision {revision}: list again \
             and watch without after_revision"
        )),
        WatchError::Store(error) => store_failed(error),
    }
}
