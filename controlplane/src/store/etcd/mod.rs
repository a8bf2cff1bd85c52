//! The etcd backend: any number of replicas over one etcd, 3.4 or later.
//!
//! `endpoints` owns the rotation among etcd's members and its timeouts; `reads`, `commit`, `watch`,
//! `lease` and `heartbeat` say what the trait's calls are in etcd's words. `identity` notices an etcd that was
//! replaced or restored, `members` that endpoints are of two. Nothing here is queued; what isn't
//! answered in time is an error.

mod assembly;
mod commit;
mod connect;
mod endpoints;
mod failure;
mod heartbeat;
mod identity;
mod keyspace;
mod lease;
mod members;
mod reads;
mod settings;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use wattle_model::Revision;
use wattle_runtime::shutdown::Shutdown;

use self::{
    endpoints::Endpoints, heartbeat::Heartbeat, identity::Identity, keyspace::Keyspace,
    lease::Lease, reads::Consistency,
};
pub use self::{
    members::TwoClusters,
    settings::{EtcdAddress, EtcdConfig, EtcdPrefix, EtcdUser, TlsFiles},
};
use super::{
    Key, Moment, Outcome, Page, Snapshot, Store, StoreError, Stored, Transaction, Watch,
    WatchError, moments::Moments,
};

/// A part of an etcd. Clones share its connections.
#[derive(Clone)]
pub struct Etcd {
    client: Arc<Client>,
    lease: Arc<Lease>,
    heartbeat: Arc<Heartbeat>,
}

/// What every call needs.
struct Client {
    endpoints: Endpoints,
    keyspace: Keyspace,
    identity: Identity,
    consistency: Consistency,
    moments: Moments,
}

impl Etcd {
    /// Opens a store. No member of etcd need answer yet: every call tries them all. Its tasks run
    /// until `shutdown`; the lease's then takes back what was announced.
    pub fn open(config: &EtcdConfig, shutdown: &Shutdown) -> Result<Self, StoreError> {
        let client = Arc::new(Client {
            endpoints: Endpoints::new(config)?,
            keyspace: Keyspace::new(&config.prefix),
            identity: Identity::default(),
            consistency: Consistency::default(),
            moments: Moments::default(),
        });
        let lease = Arc::new(Lease::new(client.clone()));
        shutdown.spawn("lease", lease.clone().keep(shutdown.token()));
        let heartbeat = Heartbeat::begin(client.clone(), lease.clone(), shutdown);
        Ok(Self { client, lease, heartbeat: Arc::new(heartbeat) })
    }
}

#[async_trait]
impl Store for Etcd {
    async fn head(&self) -> Result<Revision, StoreError> {
        self.client.head().await
    }

    async fn beat(&self) -> Result<Revision, StoreError> {
        self.heartbeat.beat().await
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, StoreError> {
        self.client.get(key).await
    }

    async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.client.list(prefix, after, limit).await
    }

    async fn snapshot(&self, prefix: &Key) -> Result<Snapshot, StoreError> {
        self.client.snapshot(prefix).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        self.client.commit(transaction).await
    }

    async fn announce(&self, key: Key, value: Bytes) -> Result<Revision, StoreError> {
        self.lease.announce(key, value).await
    }

    async fn watch(&self, prefix: &Key, after: Revision) -> Result<Watch, WatchError> {
        self.client.watch(prefix, after).await
    }

    fn replaced(&self) -> u64 {
        self.client.identity.replaced()
    }

    fn committed_at(&self, revision: Revision) -> Option<Moment> {
        self.client.moments.of(revision)
    }
}
