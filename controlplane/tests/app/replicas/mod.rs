//! Several replicas of the real program in one process, three over an etcd and others over one store
//! that they share.

mod keys;
pub(crate) mod light;
mod share;
mod status;
mod twice;

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tokio_util::sync::DropGuard;
use tonic::transport::Channel;
use wattle_controlplane::{
    app::{self, Company},
    store::{
        Store,
        embedded::Embedded,
        etcd::{Etcd, EtcdConfig},
    },
};
use wattle_etcd::{EtcdCluster, Version};
use wattle_proto::admin::{
    CreateJoinTokenRequest, ListReplicasRequest, ListReplicasResponse,
    admin_service_client::AdminServiceClient,
};
use wattle_runtime::{dial, shutdown::Shutdown};

use crate::{Running, config, folder};

type Admin = AdminServiceClient<Channel>;

/// Three replicas over an etcd, and a token for any number of machines.
pub(crate) struct Three {
    pub(crate) replicas: Vec<Running>,
    store: Arc<dyn Store>,
    pub(crate) token: String,
    folder: TempDir,
    _ends: Vec<DropGuard>,
    _etcd: EtcdCluster,
}

impl Three {
    pub(crate) async fn start() -> Self {
        let folder = folder();
        let etcd = EtcdCluster::start(Version::V36, 1).unwrap();
        let (store, end) = client(&etcd);
        let (mut replicas, mut ends) = (Vec::new(), vec![end]);
        for n in 0..3 {
            let (store, end) = client(&etcd);
            replicas.push(start(folder.path(), &store, n).await);
            ends.push(end);
        }
        let token = String::new();
        let mut three = Self { replicas, store, token, folder, _ends: ends, _etcd: etcd };
        for n in 0..3 {
            let know = async || three.replicas[n].replica.roster.others().len();
            eventually(know, |others| *others == 2).await;
        }
        let request = CreateJoinTokenRequest {
            request_id: Bytes::from_static(b"1"),
            network: "default".into(),
            max_uses: Some(0),
            ..CreateJoinTokenRequest::default()
        };
        let made = three.admin(0).await.create_join_token(request).await.unwrap();
        three.token = made.into_inner().token;
        three
    }

    /// An operator at the `n`th replica.
    async fn admin(&self, n: usize) -> Admin {
        let socket = self.folder.path().join(format!("admin-{n}.sock"));
        AdminServiceClient::new(dial::unix(&socket).await.unwrap())
    }

    pub(crate) async fn stop(self) {
        for replica in &self.replicas {
            replica.shutdown.begin();
        }
        for replica in self.replicas {
            replica.stop().await;
        }
    }
}

/// A client of its own, as each replica has it.
fn client(etcd: &EtcdCluster) -> (Arc<dyn Store>, DropGuard) {
    let config = EtcdConfig {
        endpoints: etcd.urls().iter().map(|url| url.parse().unwrap()).collect(),
        prefix: "/three/".parse().unwrap(),
        tls: None,
        user: None,
    };
    let shutdown = Shutdown::new();
    let store = Etcd::open(&config, &shutdown).unwrap();
    (Arc::new(store), shutdown.token().drop_guard())
}

/// Replicas share a data directory here, and with it the CA.
fn store(folder: &Path) -> Arc<dyn Store> {
    Arc::new(Embedded::open(&folder.join("store.redb")).unwrap())
}

/// One more replica; `n` tells its local socket from the others'.
async fn start(folder: &Path, store: &Arc<dyn Store>, n: usize) -> Running {
    let mut config = config(folder);
    config.admin_socket = folder.join(format!("admin-{n}.sock"));
    let bound = app::build_on(config, Arc::clone(store), Company::Others, Shutdown::new()).await;
    let bound = bound.unwrap();
    Running::run(bound)
}

/// What the `n`th replica says of all.
async fn listed(folder: &Path, n: usize) -> ListReplicasResponse {
    let socket = folder.join(format!("admin-{n}.sock"));
    let mut admin = AdminServiceClient::new(dial::unix(&socket).await.unwrap());
    admin.list_replicas(ListReplicasRequest {}).await.unwrap().into_inner()
}

/// Asks again until it is so.
async fn eventually<T: std::fmt::Debug>(
    mut ask: impl AsyncFnMut() -> T,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let began = Instant::now();
    loop {
        let answer = ask().await;
        if wanted(&answer) {
            return answer;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "still {answer:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_know_each_other_and_agents_are_told_all_addresses() {
    let folder = folder();
    let store = store(folder.path());
    let first = start(folder.path(), &store, 1).await;
    assert_eq!(first.replica.roster.addresses()[..], [first.address.as_str()]);
    let second = start(folder.path(), &store, 2).await;
    let both = [first.address.clone(), second.address.clone()];
    assert_eq!(*second.replica.roster.addresses(), both, "known before anybody is served");
    eventually(async || first.replica.roster.addresses(), |addresses| **addresses == both).await;
    for n in [1, 2] {
        let all =
            eventually(async || listed(folder.path(), n).await, |all| all.replicas.len() == 2)
                .await;
        let seen: Vec<_> = all.replicas.iter().map(|one| &one.addresses[0]).collect();
        assert_eq!(seen, both.each_ref(), "in the order of their start");
        assert_eq!(all.replicas.iter().position(|one| one.answers), Some(n - 1));
        assert!(all.replicas.iter().all(|one| one.replica_address == one.addresses[0]));
    }
    // Whoever stops says so and takes its record along; its address stays.
    second.stop().await;
    eventually(async || listed(folder.path(), 1).await, |all| all.replicas.len() == 1).await;
    assert_eq!(*first.replica.roster.addresses(), both);
    first.stop().await;
}
