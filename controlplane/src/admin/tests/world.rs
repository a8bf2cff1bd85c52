//! One replica's service, its store and its callers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use prost::Message as _;
use tempfile::TempDir;
use tonic::{Request, Response, Status};
use wattle_certs::KeyPair;
use wattle_model::{JoinToken, OperatorId, PublicKey, ReplicaId, Revision};
use wattle_proto::{
    admin::{self, admin_service_server::AdminService as _},
    store as record,
};
use wattle_runtime::shutdown::Shutdown;

use super::store::Racing;
use crate::{
    access::{Principal, Role},
    admin::Admin,
    authority::{Authority, CaFiles},
    cluster,
    nodes::{Enrolled, Enrolment, Nodes},
    replica::Replica,
    replicas::{Replicas, Roster},
    store::{Store, embedded::Embedded, feed::Feed, keys},
    stream::Sessions,
};

pub(super) struct World {
    pub(super) admin: Admin,
    pub(super) replica: Arc<Replica>,
    pub(super) store: Arc<Racing>,
    pub(super) shutdown: Shutdown,
    pub(super) nodes: Nodes,
    requests: AtomicU64,
    pub(super) folder: TempDir,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with_log(10_000).await
    }

    /// With a store that remembers so many revisions.
    pub(super) async fn with_log(revisions: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::with_log(&folder.path().join("store.redb"), revisions).unwrap();
        let store = Arc::new(Racing::new(Arc::new(store)));
        let cluster =
            cluster::open(&*store, &CaFiles::of(folder.path()), SystemTime::now()).await.unwrap();
        let shutdown = Shutdown::new();
        let shared: Arc<dyn Store> = store.clone();
        let (feed, live) = Feed::new(shared.clone());
        shutdown.spawn("feed", feed.run(shutdown.token()));
        live.ready().await;
        let replica = Arc::new(Replica {
            id: ReplicaId::new([9; 16]),
            store: shared.clone(),
            live: live.clone(),
            authority: Authority::new(cluster.trust).unwrap(),
            trust_domain: cluster.trust_domain,
            advertised: vec!["192.0.2.1:7443".into()],
            roster: Roster::alone(&["192.0.2.1:7443".into()]),
            certificate_lifetime: Duration::from_secs(3600),
            started: SystemTime::now(),
        });
        let nodes = Nodes::new(shared, &shutdown);
        let sessions = Sessions::new(live);
        let (address, stop) = ("192.0.2.1:7443".into(), shutdown.token());
        let replicas = Replicas::new(replica.clone(), sessions, address, stop.clone());
        let admin = Admin::new(replicas, nodes.clone(), stop);
        Self { admin, replica, store, shutdown, nodes, requests: AtomicU64::new(0), folder }
    }

    pub(super) async fn head(&self) -> Revision {
        self.store.head().await.unwrap()
    }

    /// Waits until the view has all that the store has.
    pub(super) async fn reached(&self) {
        let head = self.head().await;
        self.replica.live.head().wait_for(|reached| *reached >= head).await.unwrap();
    }

    /// A request id that nobody used.
    pub(super) fn id(&self) -> Bytes {
        self.requests.fetch_add(1, Ordering::Relaxed).to_be_bytes().to_vec().into()
    }

    pub(super) async fn network(&self, name: &str, ipv4_range: &str) -> u64 {
        let request = admin::CreateNetworkRequest {
            request_id: self.id(),
            name: name.into(),
            ipv4_range: ipv4_range.into(),
            ..Default::default()
        };
        said(self.admin.create_network(local(request)).await).revision
    }

    pub(super) async fn token(&self, network: &str, max_uses: u32) -> JoinToken {
        let request = admin::CreateJoinTokenRequest {
            request_id: self.id(),
            network: network.into(),
            max_uses: Some(max_uses),
            ..Default::default()
        };
        said(self.admin.create_join_token(local(request)).await).token.parse().unwrap()
    }

    /// A machine becomes a node.
    pub(super) async fn enroll(&self, token: &JoinToken, name: &str) -> Enrolled {
        let wish = Enrolment {
            token: token.id,
            secret: token.secret.clone(),
            fingerprint: KeyPair::generate().fingerprint(),
            public_key: PublicKey::new(rand::random()).unwrap(),
            name: Some(name.parse().unwrap()),
            endpoints: Vec::new(),
            observed: None,
            root: self.replica.ca().pin(),
        };
        self.nodes.enroll(wish).await.unwrap()
    }

    /// A node in the default network.
    pub(super) async fn node(&self, name: &str) -> Enrolled {
        let token = self.token("default", 1).await;
        self.enroll(&token, name).await
    }

    pub(super) async fn operator(&self, name: &str, role: admin::Role) -> OperatorId {
        let request = admin::CreateOperatorRequest {
            request_id: self.id(),
            name: name.into(),
            role: role.into(),
            csr: KeyPair::generate().csr().into(),
            time_to_live: None,
        };
        let made = said(self.admin.create_operator(local(request)).await).operator.unwrap();
        OperatorId::try_from(made.id.as_ref()).unwrap()
    }

    pub(super) async fn operator_record(&self, id: OperatorId) -> record::Operator {
        let stored = self.store.get(&keys::operator(id)).await.unwrap().unwrap();
        record::Operator::decode(stored.value).unwrap()
    }
}

/// A call over the local socket.
pub(super) fn local<T>(message: T) -> Request<T> {
    by(Principal::Local, message)
}

/// A call of somebody whom `access` let through.
pub(super) fn by<T>(principal: Principal, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(principal);
    request
}

/// An operator as `access` would find them.
pub(super) fn operator(id: OperatorId, name: &str) -> Principal {
    Principal::Operator { id, name: name.parse().unwrap(), role: Role::Admin }
}

/// The answer to a call that works.
pub(super) fn said<T>(answer: Result<Response<T>, Status>) -> T {
    answer.unwrap().into_inner()
}

/// Why a call doesn't work.
pub(super) fn refused<T>(answer: Result<Response<T>, Status>) -> Status {
    answer.err().expect("it should have been refused")
}
