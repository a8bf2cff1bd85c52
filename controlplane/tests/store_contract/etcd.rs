//! The etcd backend: the contract on both versions, and what an etcd does to its clients.

mod access;
mod compaction;
mod members;

use std::sync::{Arc, Mutex, Weak};

use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::DropGuard;
use wattle_controlplane::store::{
    Store,
    etcd::{Etcd, EtcdConfig},
};
use wattle_etcd::{EtcdCluster, Version};
use wattle_runtime::shutdown::Shutdown;

mod v34 {
    async fn open() -> (super::Arc<dyn super::Store>, super::Alone) {
        super::open(super::Version::V34).await
    }

    crate::contract_suite!(super::open);
}

mod v36 {
    async fn open() -> (super::Arc<dyn super::Store>, super::Alone) {
        super::open(super::Version::V36).await
    }

    crate::contract_suite!(super::open);
}

/// One etcd for all tests of a version, one test at a time: what others write would be seen in the
/// revisions. It goes with the last test that wants it.
struct Shared(Mutex<Weak<tokio::sync::Mutex<EtcdCluster>>>);

static SHARED: [Shared; 2] = [const { Shared(Mutex::new(Weak::new())) }; 2];

/// The etcd as long as a test has it, and its client's tasks.
pub(crate) struct Alone {
    _cluster: OwnedMutexGuard<EtcdCluster>,
    _end: DropGuard,
}

async fn open(version: Version) -> (Arc<dyn Store>, Alone) {
    let cluster = {
        let mut shared = SHARED[version as usize].0.lock().unwrap();
        shared.upgrade().unwrap_or_else(|| {
            let started = EtcdCluster::start(version, 1).unwrap();
            let started = Arc::new(tokio::sync::Mutex::new(started));
            *shared = Arc::downgrade(&started);
            started
        })
    };
    let cluster = cluster.lock_owned().await;
    let (store, end) = client(&cluster.urls(), &rand_prefix());
    (store, Alone { _cluster: cluster, _end: end })
}

fn rand_prefix() -> String {
    format!("/test-{}/", hex(&rand::random::<[u8; 8]>()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A store of its own in these members.
pub(crate) fn client(urls: &[String], prefix: &str) -> (Arc<dyn Store>, DropGuard) {
    let config = EtcdConfig {
        endpoints: urls.iter().map(|url| url.parse().unwrap()).collect(),
        prefix: prefix.parse().unwrap(),
        tls: None,
        user: None,
    };
    let shutdown = Shutdown::new();
    let store = Etcd::open(&config, &shutdown).unwrap();
    (Arc::new(store), shutdown.token().drop_guard())
}
