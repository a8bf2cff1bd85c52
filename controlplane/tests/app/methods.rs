//! Every method of the running program, over real TLS: no service is mounted past the access
//! check. Who may what in detail is in `tests/access.rs`.

use prost::Message as _;
use tonic::{Code, Request, Status, client::Grpc, transport::Channel};
use tonic_prost::ProstCodec;
use wattle_certs::KeyPair;
use wattle_proto::admin::admin_service_client::AdminServiceClient;

use crate::{folder, start, whole};

/// What anybody may call.
const OPEN: [&str; 3] = [
    "/wattle.enroll.v1.EnrollmentService/Enroll",
    "/wattle.enroll.v1.EnrollmentService/Recover",
    "/grpc.health.v1.Health/",
];
/// What only nodes may call.
const OF_NODES: [&str; 3] = [
    "/wattle.enroll.v1.EnrollmentService/Renew",
    "/wattle.enroll.v1.EnrollmentService/Leave",
    "/wattle.sync.v1.SyncService/",
];

fn is_of(path: &str, these: &[&str]) -> bool {
    these.iter().any(|of| path.starts_with(of))
}

/// All methods but those that anybody may call.
fn guarded() -> Vec<String> {
    let sets = [
        wattle_proto::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let mut paths = Vec::new();
    for set in sets {
        for file in prost_types::FileDescriptorSet::decode(set).unwrap().file {
            for service in &file.service {
                let name = format!("/{}.{}/", file.package(), service.name());
                paths.extend(service.method.iter().map(|method| name.clone() + method.name()));
            }
        }
    }
    paths.retain(|path| !is_of(path, &OPEN));
    paths
}

/// How a call with an empty message is refused.
async fn refused(channel: &Channel, path: &str) -> Status {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let codec: ProstCodec<(), ()> = ProstCodec::default();
    let path = path.parse().unwrap();
    client.unary(Request::new(()), path, codec).await.expect_err("it must be refused")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_method_is_mounted_past_the_access_check() {
    let folder = folder();
    let running = start(folder.path()).await;
    let operator = whole::operator(&running, &folder.path().join("operator.json")).await;
    let mut admin = AdminServiceClient::new(operator.clone());
    let token = admin.create_join_token(whole::token_request()).await.unwrap().into_inner().token;
    let key = KeyPair::generate();
    let made = whole::join(&token, "one", &key).await;
    let node = whole::node(&running, &made, &key).await;
    let nobody = running.anonymous().await;

    let guarded = guarded();
    assert!(guarded.len() > 20, "{guarded:?}");
    for path in &guarded {
        let status = refused(&nobody, path).await;
        assert_eq!(status.code(), Code::Unauthenticated, "nobody calls {path}: {status}");
        let other = if is_of(path, &OF_NODES) { &operator } else { &node };
        let status = refused(other, path).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{path}: {status}");
    }
    let unknown = refused(&operator, "/wattle.admin.v1.AdminService/Shutdown").await;
    assert_eq!(unknown.code(), Code::Unimplemented, "{unknown}");
    drop((nobody, node, operator, admin));
    running.stop().await;
}
