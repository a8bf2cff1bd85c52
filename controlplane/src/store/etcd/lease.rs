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
use crate::store::{Key, StoreError};

/// How long etcd keeps what a process has announced that says nothing any more.
const TIME_TO_LIVE: i64 = 10;
/// How often it is told that the process is there.
const KEEP_EVERY: Duration = Duration::from_millis(2500);
/// How long a call of the lease's tries.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) struct Lease {
    client: Arc<Client>,
    /// The lease, once there is one.
    id: Mutex<Option<i64>>,
    /// What a new lease comes with. Held while something of it is put: the last value announced is
    /// the last one put.
    announced: tokio::sync::Mutex<Announced>,
}

type Announced = BTreeMap<Key, Bytes>;

impl Lease {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self { client, id: Mutex::default(), announced: tokio::sync::Mutex::default() }
    }

    /// Puts a key that goes with this process.
    pub(super) async fn announce(&self, key: Key, value: Bytes) -> Result<Revision, StoreError> {
        let mut announced = self.announced.lock().await;
        announced.insert(key.clone(), value.clone());
        // Twice: a lease may be gone without our having heard of it.
        for _ in 0..2 {
            let id = self.leased(&announced).await?;
            match self.put(id, &key, &value).await {
                Ok(revision) => return Ok(revision),
                Err(Refused::NoLease) => self.forget(id),
                Err(Refused::Failed(error)) => return Err(error),
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
                self.id().await.map(drop)
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// The lease, made where there is none.
    pub(super) async fn id(&self) -> Result<i64, StoreError> {
        let id = *self.id.lock();
        if let Some(id) = id {
            return Ok(id);
        }
        let announced = self.announced.lock().await;
        self.leased(&announced).await
    }

    /// The lease. A new one comes with all that was announced.
    async fn leased(&self, announced: &Announced) -> Result<i64, StoreError> {
        let id = *self.id.lock();
        if let Some(id) = id {
            return Ok(id);
        }
        // One that was granted and not heard of runs out by itself, and so does one that is left here.
        let granted = self.client.endpoints.again(PATIENCE, |mut client| async move {
            client.lease_grant(TIME_TO_LIVE, None).await
        });
        let id = granted.await?.id();
        for (key, value) in announced {
            if let Err(Refused::Failed(error)) = self.put(id, key, value).await {
                return Err(error);
            }
        }
        *self.id.lock() = Some(id);
        Ok(id)
    }

    /// It has run out.
    pub(super) fn forget(&self, id: i64) {
        let mut current = self.id.lock();
        if *current == Some(id) {
            *current = None;
        }
    }

    async fn put(&self, id: i64, key: &Key, value: &Bytes) -> Result<Revision, Refused> {
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
                self.client.identity.linear(response.header(), mark).map_err(Refused::Failed)
            }
            Err(failure) => Err(failure.into()),
        }
    }
}

/// Why nothing was put.
pub(super) enum Refused {
    NoLease,
    Failed(StoreError),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        match failure.kind {
            Kind::NoLease => Self::NoLease,
            _ => Self::Failed(failure.into()),
        }
    }
}
