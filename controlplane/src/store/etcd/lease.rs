//! What is there only while this process is: one lease, kept by one task, and what was announced
//! under it. A lease that was lost is made anew, and everything is put again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use etcd_client::PutOptions;
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use wattle_model::Revision;

use super::{
    Client,
    failure::{Failure, Kind},
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
    /// Held while something is put: the last value announced is the last one put.
    announced: tokio::sync::Mutex<BTreeMap<Key, Bytes>>,
}

impl Lease {
    pub(super) fn new(client: Arc<Client>) -> Self {
        let beat = keys::beat(&hex::encode(rand::random::<[u8; 8]>()));
        Self { client, beat, id: Mutex::default(), announced: Default::default() }
    }

    /// Puts this process's heartbeat, and says at which revision watches will tell of it.
    pub(super) async fn beat(&self) -> Result<Revision, StoreError> {
        self.announce(self.beat.clone(), Bytes::new()).await
    }

    /// Puts a key that goes with this process.
    pub(super) async fn announce(&self, key: Key, value: Bytes) -> Result<Revision, StoreError> {
        let mut announced = self.announced.lock().await;
        announced.insert(key.clone(), value);
        // Twice: a lease may be gone without our having heard of it.
        for _ in 0..2 {
            let (id, made) = self.lease().await?;
            let mut last = None;
            // Under a new lease all of it, and the one that is asked for at the end.
            let others = announced.iter().filter(|(other, _)| made && **other != key);
            let this = announced.get_key_value(&key);
            for (key, value) in others.chain(this) {
                last = Some(self.put(id, key, value).await);
                if matches!(last, Some(Err(_))) {
                    break;
                }
            }
            match last {
                Some(Err(Put::NoLease)) => self.forget(id),
                Some(Err(Put::Failed(error))) => {
                    // The next one puts all of it again.
                    if made {
                        self.forget(id);
                    }
                    return Err(error);
                }
                Some(Ok(revision)) => return Ok(revision),
                None => break,
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
                self.beat().await.map(drop)
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// The lease, and whether it is new.
    async fn lease(&self) -> Result<(i64, bool), StoreError> {
        let id = *self.id.lock();
        if let Some(id) = id {
            return Ok((id, false));
        }
        // One that was granted and not heard of runs out by itself.
        let granted = self.client.endpoints.again(PATIENCE, |mut client| async move {
            client.lease_grant(TIME_TO_LIVE, None).await
        });
        let id = granted.await?.id();
        *self.id.lock() = Some(id);
        Ok((id, true))
    }

    fn forget(&self, id: i64) {
        let mut current = self.id.lock();
        if *current == Some(id) {
            *current = None;
        }
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
            Err(Failure { kind: Kind::NoLease, .. }) => Err(Put::NoLease),
            Err(failure) => Err(Put::Failed(failure.into())),
        }
    }
}

/// Why nothing was put.
enum Put {
    NoLease,
    Failed(StoreError),
}
