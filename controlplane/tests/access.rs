//! Every method of every service against every kind of caller. The expectations are written out
//! here once more, on purpose: a method that is in the protocol but not in this list fails.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use prost::Message as _;
use tempfile::TempDir;
use tonic::{Code, Status, body::Body};
use tower::{Layer as _, ServiceExt as _, service_fn};
use wattle_certs::{Identity, PeerCertificate, SpiffeId, TrustDomain};
use wattle_controlplane::{
    access::{AccessLayer, PeerInfo, Principal, Role},
    nodes::NodeRecord,
    replicas::Presence,
    store::{Store, Transaction, embedded::Embedded, feed::Feed, keys},
    stream::Summary,
};
use wattle_model::{
    Fingerprint, Generation, NodeId, OperatorId, PublicKey, ReplicaId, Revision, TokenId,
};
use wattle_proto::{reason, store as record};
use wattle_runtime::clock;

const NODE: NodeId = NodeId::new([1; 16]);
const DELETED: NodeId = NodeId::new([2; 16]);
const REPLICA: ReplicaId = ReplicaId::new([1; 16]);
const KEY: Fingerprint = Fingerprint::new([7; 32]);
const HOUR: Duration = Duration::from_secs(3600);

/// Callers in the order of the letters below.
const CALLERS: [&str; 19] = [
    "anonymous",
    "node",
    "viewer",
    "operator",
    "admin",
    "local",
    "deleted node",
    "unknown node",
    "node with another key",
    "node of another network",
    "node past its certificate",
    "node of another trust domain",
    "revoked operator",
    "expired operator",
    "operator with another key",
    "replica",
    "replica that is gone",
    "replica with another key",
    "replica of another trust domain",
];

/// Who may: y for yes, - for no, in the order of `CALLERS`.
const ANYONE: &str = "yyyyyyyyyyyyyyyyyyy";
const NODES: &str = "-y-----------------";
const VIEWERS: &str = "--yyyy-------------";
const OPERATORS: &str = "---yyy-------------";
const ADMINS: &str = "----yy-------------";
const REPLICAS: &str = "---------------y---";

fn expected() -> BTreeMap<String, &'static str> {
    let admin = |method: &str| format!("/wattle.admin.v1.AdminService/{method}");
    let replica = |method: &str| format!("/wattle.replica.v1.ReplicaService/{method}");
    let enroll = |method: &str| format!("/wattle.enroll.v1.EnrollmentService/{method}");
    let mut table = BTreeMap::from([
        ("/wattle.sync.v1.SyncService/Sync".to_owned(), NODES),
        ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".to_owned(), VIEWERS),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo".to_owned(), VIEWERS),
    ]);
    let health = |method: &str| format!("/grpc.health.v1.Health/{method}");
    table.extend(["Check", "Watch"].map(|method| (health(method), ANYONE)));
    table.extend(["Enroll", "Recover"].map(|method| (enroll(method), ANYONE)));
    table.extend(["Renew", "Leave"].map(|method| (enroll(method), NODES)));
    table.extend(
        ["ListSessions", "WatchApplied", "Inspect", "TellEntered"]
            .map(|method| (replica(method), REPLICAS)),
    );
    table.extend(
        [
            "GetStatus",
            "ListReplicas",
            "GetNetwork",
            "ListNetworks",
            "GetNode",
            "ListNodes",
            "GetPolicy",
            "ListPolicies",
            "Explain",
            "ListJoinTokens",
            "ListOperators",
            "Watch",
            "WaitApplied",
            "RenewOperator",
            "GetCa",
        ]
        .map(|method| (admin(method), VIEWERS)),
    );
    table.extend(
        [
            "CreateNetwork",
            "UpdateNetwork",
            "DeleteNetwork",
            "RotateNetworkSecret",
            "LabelNode",
            "DeleteNode",
            "RotateNodeKey",
            "Apply",
            "CreateJoinToken",
            "RevokeJoinToken",
        ]
        .map(|method| (admin(method), OPERATORS)),
    );
    table.extend(
        ["CreateOperator", "RevokeOperator", "TrustRoot", "RetireRoots", "Backup"]
            .map(|method| (admin(method), ADMINS)),
    );
    table
}

/// Every method of every service that a replica has.
fn methods() -> BTreeSet<String> {
    let mut methods = BTreeSet::new();
    for set in [
        wattle_proto::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ] {
        for file in prost_types::FileDescriptorSet::decode(set).unwrap().file {
            let package = file.package().to_owned();
            for service in file.service {
                let path = |method: &str| format!("/{package}.{}/{method}", service.name());
                methods.extend(service.method.iter().map(|method| path(method.name())));
            }
        }
    }
    methods
}

struct Fixture {
    layer: AccessLayer,
    _folder: TempDir,
}

async fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(&folder.path().join("store.redb")).unwrap();
    let store: Arc<dyn Store> = Arc::new(store);
    let transaction = Transaction::default()
        .put(keys::identity(NODE), node(None))
        .put(keys::identity(DELETED), node(Some(SystemTime::now())))
        .put(keys::replica(REPLICA), presence());
    let transaction = operators().into_iter().fold(transaction, |transaction, (id, operator)| {
        transaction.put(keys::operator(id), operator.encode_to_vec().into())
    });
    let _ = store.commit(transaction).await.unwrap();
    let (_feed, live) = Feed::new(store.clone());
    Fixture { layer: AccessLayer::new(store, live, domain()), _folder: folder }
}

fn presence() -> Bytes {
    Presence {
        id: REPLICA,
        addresses: Vec::new(),
        replica_address: String::new(),
        started: SystemTime::now(),
        version: String::new(),
        sessions: 0,
        indexed: Revision::ZERO,
        stale: false,
        draining: false,
        fingerprint: KEY,
        root: Fingerprint::new([9; 32]),
        beat: 1,
        last_change: Summary::default(),
    }
    .encode()
}

fn domain() -> TrustDomain {
    "test".parse().unwrap()
}

fn node(deleted_at: Option<SystemTime>) -> Bytes {
    NodeRecord {
        network: "default".parse().unwrap(),
        name: "a".parse().unwrap(),
        fingerprint: KEY,
        public_key: PublicKey::new([1; 32]).unwrap(),
        next_public_key: None,
        keyed_at: SystemTime::now(),
        ipv4: Some([10, 90, 0, 1].into()),
        ipv6: None,
        token: TokenId::new([1; 8]),
        enrolled_at: SystemTime::now(),
        deleted_at,
        own_endpoints: Vec::new(),
        observed_endpoint: None,
        mapping: None,
        root: None,
        secret_generation: Generation::NONE,
    }
    .encode()
}

/// Viewer, operator and admin, then one that is revoked and one that has expired.
fn operators() -> Vec<(OperatorId, record::Operator)> {
    let now = SystemTime::now();
    let operator = |role: record::Role, revoked, until: SystemTime| record::Operator {
        name: "ann".into(),
        role: role.into(),
        fingerprint: Bytes::copy_from_slice(KEY.as_bytes()),
        created_at_millis: 1,
        expires_at_millis: clock::unix_millis(until),
        revoked,
        root: Bytes::new(),
    };
    let all = [
        operator(record::Role::Viewer, false, now + HOUR),
        operator(record::Role::Operator, false, now + HOUR),
        operator(record::Role::Admin, false, now + HOUR),
        operator(record::Role::Admin, true, now + HOUR),
        operator(record::Role::Admin, false, now - HOUR),
    ];
    (1..).map(|n| OperatorId::new([n; 16])).zip(all).collect()
}

fn certificate(identity: Identity) -> PeerCertificate {
    PeerCertificate {
        id: SpiffeId { trust_domain: domain(), identity },
        fingerprint: KEY,
        not_before: SystemTime::UNIX_EPOCH,
        not_after: SystemTime::now() + HOUR,
        serial: vec![1],
    }
}

fn node_certificate(network: &str, node: NodeId) -> PeerCertificate {
    certificate(Identity::Node { network: network.parse().unwrap(), node })
}

fn operator_certificate(n: u8) -> PeerCertificate {
    certificate(Identity::Operator(OperatorId::new([n; 16])))
}

fn remote(certificate: Option<PeerCertificate>) -> PeerInfo {
    PeerInfo::remote("192.0.2.1:999".parse().unwrap(), certificate.map(Arc::new))
}

fn caller(name: &str) -> PeerInfo {
    remote(Some(match name {
        "anonymous" => return remote(None),
        "local" => return PeerInfo::local(),
        "node" => node_certificate("default", NODE),
        "viewer" => operator_certificate(1),
        "operator" => operator_certificate(2),
        "admin" => operator_certificate(3),
        "deleted node" => node_certificate("default", DELETED),
        "unknown node" => node_certificate("default", NodeId::new([9; 16])),
        "node with another key" => PeerCertificate {
            fingerprint: Fingerprint::new([8; 32]),
            ..node_certificate("default", NODE)
        },
        "node of another network" => node_certificate("other", NODE),
        "node past its certificate" => PeerCertificate {
            not_after: SystemTime::now() - HOUR,
            ..node_certificate("default", NODE)
        },
        "node of another trust domain" => PeerCertificate {
            id: SpiffeId {
                trust_domain: "other".parse().unwrap(),
                ..node_certificate("default", NODE).id
            },
            ..node_certificate("default", NODE)
        },
        "operator with another key" => {
            PeerCertificate { fingerprint: Fingerprint::new([8; 32]), ..operator_certificate(3) }
        }
        "replica" => certificate(Identity::Replica(REPLICA)),
        "replica that is gone" => certificate(Identity::Replica(ReplicaId::new([9; 16]))),
        "replica with another key" => PeerCertificate {
            fingerprint: Fingerprint::new([8; 32]),
            ..certificate(Identity::Replica(REPLICA))
        },
        "replica of another trust domain" => PeerCertificate {
            id: SpiffeId {
                trust_domain: "other".parse().unwrap(),
                identity: Identity::Replica(REPLICA),
            },
            ..certificate(Identity::Replica(REPLICA))
        },
        "revoked operator" => operator_certificate(4),
        "expired operator" => operator_certificate(5),
        other => panic!("no caller {other}"),
    }))
}

impl Fixture {
    /// Who the service behind the layer sees; an error where the call doesn't reach it.
    async fn call(&self, path: &str, peer: Option<PeerInfo>) -> Result<Principal, Status> {
        let service = self.layer.layer(service_fn(|request: http::Request<Body>| {
            let mut response = http::Response::new(Body::empty());
            let principal = request.extensions().get::<Principal>().cloned();
            response.extensions_mut().insert(principal.unwrap());
            async { Ok::<_, Infallible>(response) }
        }));
        let mut request = http::Request::new(Body::empty());
        *request.uri_mut() = path.parse().unwrap();
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        let response = service.oneshot(request).await.unwrap();
        match Status::from_header_map(response.headers()) {
            Some(status) => Err(status),
            None => Ok(response.extensions().get::<Principal>().cloned().unwrap()),
        }
    }
}

#[tokio::test]
async fn every_method_against_every_caller() {
    let fixture = fixture().await;
    let expected = expected();
    let listed: BTreeSet<_> = expected.keys().cloned().collect();
    assert_eq!(listed, methods(), "a method without an expectation, or one that is gone");
    for (method, may) in &expected {
        for (name, may) in CALLERS.iter().zip(may.chars()) {
            let result = fixture.call(method, Some(caller(name))).await;
            assert_eq!(result.is_ok(), may == 'y', "{name} calls {method}: {result:?}");
        }
    }
}

#[tokio::test]
async fn what_the_table_doesnt_name_nobody_may_call() {
    let fixture = fixture().await;
    for path in [
        "/wattle.admin.v1.AdminService/Shutdown",
        "/wattle.admin.v1.AdminService/GetStatus/",
        "/wattle.admin.v2.AdminService/GetStatus",
        "/wattle.sync.v1.SyncService/sync",
        "/",
        "/x",
    ] {
        for name in CALLERS {
            let status = fixture.call(path, Some(caller(name))).await.unwrap_err();
            assert_eq!(status.code(), Code::Unimplemented, "{name} calls {path}");
        }
    }
}

#[tokio::test]
async fn a_connection_without_peer_info_may_nothing() {
    let fixture = fixture().await;
    let status = fixture.call("/grpc.health.v1.Health/Check", None).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
}

#[tokio::test]
async fn a_deleted_node_can_tell_that_it_was_removed() {
    let fixture = fixture().await;
    for method in ["Renew", "Leave"] {
        let path = format!("/wattle.enroll.v1.EnrollmentService/{method}");
        let status = fixture.call(&path, Some(caller("deleted node"))).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.metadata().get(reason::KEY).unwrap(), reason::REMOVED);
        let other = fixture.call(&path, Some(caller("unknown node"))).await.unwrap_err();
        assert_eq!(other.metadata().get(reason::KEY).unwrap(), reason::UNKNOWN, "its mesh stays");
    }
}

#[tokio::test]
async fn principals_say_who_calls() {
    let fixture = fixture().await;
    let status = "/wattle.admin.v1.AdminService/GetStatus";
    let (id, name) = (OperatorId::new([2; 16]), "ann".parse().unwrap());
    assert_eq!(
        fixture.call(status, Some(caller("operator"))).await.unwrap(),
        Principal::Operator { id, name, role: Role::Operator }
    );
    let sync = "/wattle.sync.v1.SyncService/Sync";
    let network = "default".parse().unwrap();
    assert_eq!(
        fixture.call(sync, Some(caller("node"))).await.unwrap(),
        Principal::Node { network, node: NODE, fingerprint: KEY }
    );
}
