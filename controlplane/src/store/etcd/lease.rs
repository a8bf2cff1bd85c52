//! What is there only while this process is: one lease, kept by one task, and what was announced
//! under it. A lease that was lost is made anew, and everything is put again.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse};
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use wattle_model::Revision;

use super::{
    Client,
    failure::{Failure, Kind},
    keyspace::{number, revision},
};
use crate::store::{Key, StoreError, keys};

/// How long etcd keeps what a process has announced that says nothing any more.
const TIME_TO_LIVE: i64 = 10;
/// How often it is told that the process is there.
const KEEP_EVERY: Duration = Duration::from_millis(2500);
/// How long a call of the lease's tries.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) struct Lease {
    client: Arc<Client>,
    /// The key of this process's heartbeats.
    beat: Key,
    /// The lease, once there is one.
    id: Mutex<Option<i64>>,
    /// Heartbeats asked for.
    asked: AtomicU64,
    /// Held while something is put: the last value announced is the last one put.
    state: tokio::sync::Mutex<State>,
}

#[derive(Default)]
struct State {
    announced: BTreeMap<Key, Bytes>,
    /// The last heartbeat: how many of those that asked it answers, and its revision.
    answered: u64,
    revision: Revision,
    /// Where our key is known to be, if it is.
    beaten_at: Option<Revision>,
    /// How often another store had been found by then.
    replaced: u64,
}

impl Lease {
    pub(super) fn new(client: Arc<Client>) -> Self {
        let beat = keys::beat(&hex::encode(rand::random::<[u8; 8]>()));
        Self {
            client,
            beat,
            id: Mutex::default(),
            asked: AtomicU64::new(0),
            state: tokio::sync::Mutex::default(),
        }
    }

    /// Puts this process's heartbeat, and says at which revision watches will tell of it. Many that
    /// ask at once share one that is put after all of them have asked.
    pub(super) async fn beat(&self) -> Result<Revision, StoreError> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut state = self.state.lock().await;
        if state.answered >= number {
            return Ok(state.revision);
        }
        let answers = self.asked.load(Ordering::SeqCst);
        let beaten = self.beat_once(&mut state).await;
        let replaced = self.client.identity.replaced();
        if beaten.is_err() || state.replaced != replaced {
            state.beaten_at = None;
        }
        // Somebody else's call may have found it; who beats must hear of it, too.
        if std::mem::replace(&mut state.replaced, replaced) != replaced {
            return Err(StoreError::Replaced("etcd isn't the one it was".to_owned()));
        }
        let revision = beaten?;
        (state.answered, state.revision) = (answers, revision);
        Ok(revision)
    }

    /// Nobody else writes our key. Where it is older than we left it, the store was set back, even
    /// if others have written so much since that its revision doesn't show it.
    async fn beat_once(&self, state: &mut State) -> Result<Revision, StoreError> {
        for _ in 0..2 {
            let id = self.leased(state).await?;
            match self.put_beat(id, state.beaten_at).await {
                Ok(Beaten::At(revision)) => {
                    state.beaten_at = Some(revision);
                    return Ok(revision);
                }
                Ok(Beaten::Gone) => state.beaten_at = None,
                Ok(Beaten::SetBack(revision)) => {
                    self.client.identity.set_back();
                    return Err(StoreError::Replaced(format!(
                        "etcd has our heartbeat of revision {revision} again"
                    )));
                }
                Err(Put::NoLease) => state.beaten_at = None,
                Err(Put::Failed(error)) => return Err(error),
            }
            self.forget(id);
        }
        Err(StoreError::Unavailable("etcd: leases don't last".to_owned()))
    }

    /// Puts a key that goes with this process.
    pub(super) async fn announce(&self, key: Key, value: Bytes) -> Result<Revision, StoreError> {
        let mut state = self.state.lock().await;
        state.announced.insert(key.clone(), value.clone());
        // Twice: a lease may be gone without our having heard of it.
        for _ in 0..2 {
            let id = self.leased(&state).await?;
            match self.put(id, &key, &value).await {
                Ok(revision) => return Ok(revision),
                Err(Put::NoLease) => self.forget(id),
                Err(Put::Failed(error)) => return Err(error),
            }
        }
        Err(StoreError::Unavailable("etcd: leases don't last".to_owned()))
    }

    /// Keeps the lease until `end`, and then gives it back.
    pub(super) async fn keep(self: Arc<Self>, end: CancellationToken) {
        let mut ticks = interval(KEEP_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while end.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = self.keep_once().await {
                tracing::debug!(%error, "lease not kept");
            }
        }
        let id = self.id.lock().take();
        if let Some(id) = id {
            let revoked = self.client.endpoints.again(PATIENCE, |mut client| async move {
                client.lease_revoke(id).await.map(drop)
            });
            // Where it can't be given back it runs out.
            let _ = timeout(PATIENCE, revoked).await;
        }
    }

    async fn keep_once(&self) -> Result<(), StoreError> {
        let id = *self.id.lock();
        let Some(id) = id else { return Ok(()) };
        let kept = self.client.endpoints.again(PATIENCE, |client| async move {
            client.lease_client().keep_alive(id).await.map(drop)
        });
        match kept.await {
            Ok(()) => Ok(()),
            Err(Failure { kind: Kind::NoLease, .. }) => {
                tracing::info!("the lease has run out: announcing again");
                self.forget(id);
                let state = self.state.lock().await;
                self.leased(&state).await.map(drop)
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// The lease. A new one comes with all that was announced.
    async fn leased(&self, state: &State) -> Result<i64, StoreError> {
        let id = *self.id.lock();
        if let Some(id) = id {
            return Ok(id);
        }
        // One that was granted and not heard of runs out by itself, and so does one that is left here.
        let granted = self.client.endpoints.again(PATIENCE, |mut client| async move {
            client.lease_grant(TIME_TO_LIVE, None).await
        });
        let id = granted.await?.id();
        for (key, value) in &state.announced {
            if let Err(Put::Failed(error)) = self.put(id, key, value).await {
                return Err(error);
            }
        }
        *self.id.lock() = Some(id);
        Ok(id)
    }

    fn forget(&self, id: i64) {
        let mut current = self.id.lock();
        if *current == Some(id) {
            *current = None;
        }
    }

    async fn put_beat(&self, id: i64, last: Option<Revision>) -> Result<Beaten, Put> {
        let mark = self.client.identity.mark();
        let key = self.client.keyspace.outer(&self.beat);
        let put = TxnOp::put(key.clone(), [], Some(PutOptions::new().with_lease(id)));
        let txn = match last {
            None => Txn::new().and_then([put]),
            Some(last) => {
                let same = Compare::mod_revision(key.clone(), CompareOp::Equal, number(last));
                Txn::new().when([same]).and_then([put]).or_else([TxnOp::get(key, None)])
            }
        };
        // Done twice, it is found done.
        let response = self.client.endpoints.again(PATIENCE, |mut client| {
            let txn = txn.clone();
            async move { client.txn(txn).await }
        });
        let response = response.await.map_err(Put::from)?;
        let header = self.client.identity.linear(response.header(), mark).map_err(Put::Failed)?;
        if response.succeeded() {
            return Ok(Beaten::At(header));
        }
        let found = response.op_responses().into_iter().find_map(|answer| match answer {
            TxnOpResponse::Get(got) => got.kvs().first().map(|kv| revision(kv.mod_revision())),
            _ => None,
        });
        Ok(match found {
            None => Beaten::Gone,
            Some(found) if Some(found) < last => Beaten::SetBack(found),
            Some(found) => Beaten::At(found),
        })
    }

    async fn put(&self, id: i64, key: &Key, value: &Bytes) -> Result<Revision, Put> {
        let mark = self.client.identity.mark();
        let key = self.client.keyspace.outer(key);
        let options = PutOptions::new().with_lease(id);
        // Done twice it is the same.
        let put = self.client.endpoints.again(PATIENCE, |mut client| {
            let (key, value, options) = (key.clone(), value.to_vec(), options.clone());
            async move { client.put(key, value, Some(options)).await }
        });
        match put.await {
            Ok(response) => {
                self.client.identity.linear(response.header(), mark).map_err(Put::Failed)
            }
            Err(failure) => Err(failure.into()),
        }
    }
}

/// What came of a heartbeat.
enum Beaten {
    /// It is at this revision.
    At(Revision),
    /// Our key isn't there: its lease has run out.
    Gone,
    /// Our key is there as it once was.
    SetBack(Revision),
}

/// Why nothing was put.
enum Put {
    NoLease,
    Failed(StoreError),
}

impl From<Failure> for Put {
    fn from(failure: Failure) -> Self {
        match failure.kind {
            Kind::NoLease => Self::NoLease,
            _ => Self::Failed(failure.into()),
        }
    }
}
