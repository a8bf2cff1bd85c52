//! All services together: the first operator makes a token, a machine joins with it and is brought
//! to head; then the replica drains.

use std::{
    net::SocketAddr, os::unix::fs::PermissionsExt as _, path::Path, process::Command, sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming, transport::Channel};
use wattle_certs::{KeyPair, certificates_from_pem, client_config, pinned_client_config};
use wattle_model::JoinToken;
use wattle_proto::{
    admin::{
        CreateJoinTokenRequest, GetStatusRequest, ListNodesRequest, WaitAppliedRequest,
        admin_service_client::AdminServiceClient,
    },
    enroll::{EnrollRequest, EnrollResponse, enrollment_service_client::EnrollmentServiceClient},
    entry,
    sync::{
        self as proto, Hello, SyncRequest, SyncResponse, sync_request, sync_response::Message,
        sync_service_client::SyncServiceClient,
    },
};
use wattle_runtime::{credential::OperatorCredential, dial};

use crate::{Running, folder, start};

const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn dialed(address: &str, tls: rustls::ClientConfig) -> Channel {
    dial::channel(&[address.to_owned()], Arc::new(tls), PATIENCE).await.unwrap().channel
}

/// A connection of the holder of a credential file.
pub(crate) async fn operator(running: &Running, file: &Path) -> Channel {
    let credential = OperatorCredential::load(file).unwrap();
    let mode = std::fs::metadata(file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let certificates = |pem: &str| certificates_from_pem(pem).unwrap();
    let roots = certificates(&credential.ca_certificates.concat());
    let key = KeyPair::from_pem(credential.private_key.expose()).unwrap();
    let chain = certificates(&credential.certificate);
    let trust_domain = credential.trust_domain.parse().unwrap();
    let tls = client_config(&roots, Some((chain, &key)), Some(&trust_domain)).unwrap();
    dialed(&running.address, tls).await
}

/// A connection of a node.
pub(crate) async fn node(running: &Running, made: &EnrollResponse, key: &KeyPair) -> Channel {
    let certificate = made.credential.as_ref().unwrap().certificate.to_vec();
    let chain = vec![CertificateDer::from(certificate)];
    let tls = client_config(&running.replica.roots(), Some((chain, key)), None).unwrap();
    dialed(&running.address, tls).await
}

pub(crate) fn token_request() -> CreateJoinTokenRequest {
    CreateJoinTokenRequest {
        request_id: Bytes::from_static(b"1"),
        network: "default".into(),
        ..CreateJoinTokenRequest::default()
    }
}

/// A machine that joins with a token.
pub(crate) async fn join(token: &str, name: &str, key: &KeyPair) -> EnrollResponse {
    let token: JoinToken = token.parse().unwrap();
    let channel = dialed(&token.addresses[0], pinned_client_config(token.pin).unwrap()).await;
    let request = EnrollRequest {
        token_id: Bytes::copy_from_slice(token.id.as_bytes()),
        token_secret: Bytes::copy_from_slice(token.secret.expose_bytes()),
        csr: key.csr().into(),
        wireguard_public_key: rand::random::<[u8; 32]>().to_vec().into(),
        name: name.into(),
        ..EnrollRequest::default()
    };
    EnrollmentServiceClient::new(channel).enroll(request).await.unwrap().into_inner()
}

/// The stream of a node, after its Welcome.
async fn sync(
    running: &Running,
    made: &EnrollResponse,
    key: &KeyPair,
) -> (mpsc::Sender<SyncRequest>, Streaming<SyncResponse>) {
    let channel = node(running, made, key).await;
    let (requests, receiver) = mpsc::channel(8);
    let hello = Hello {
        protocol_version: 1,
        instance: vec![1; 16].into(),
        digest: vec![0; 16].into(),
        ..Hello::default()
    };
    let hello = SyncRequest { message: Some(sync_request::Message::Hello(hello)) };
    requests.send(hello).await.unwrap();
    let stream = SyncServiceClient::new(channel).sync(ReceiverStream::new(receiver)).await;
    let mut stream = stream.unwrap().into_inner();
    assert!(matches!(next(&mut stream).await, Message::Welcome(welcome) if welcome.full_set));
    (requests, stream)
}

async fn next(stream: &mut Streaming<SyncResponse>) -> Message {
    let message = timeout(PATIENCE, stream.message()).await.expect("a message within 10 s");
    message.unwrap().expect("the stream goes on").message.unwrap()
}

/// Frames up to the next commit: the names that they carry, and the commit.
async fn batch(stream: &mut Streaming<SyncResponse>) -> (Vec<String>, proto::Commit) {
    let mut names = Vec::new();
    loop {
        let Message::Frame(frame) = next(stream).await else { continue };
        names.extend(frame.entries.iter().map(|bytes| entry::decode(bytes).unwrap().name));
        if let Some(commit) = frame.commit {
            let mut names: Vec<_> = names.iter().map(ToString::to_string).collect();
            names.sort();
            return (names, commit);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_first_operator_to_a_drained_stream() {
    let folder = folder();
    let running = start(folder.path()).await;
    let admin = operator(&running, &folder.path().join("operator.json")).await;
    let mut admin = AdminServiceClient::new(admin);
    let request = CreateJoinTokenRequest { max_uses: Some(2), ..token_request() };
    let token = admin.create_join_token(request).await.unwrap().into_inner().token;

    let (one, two) = (KeyPair::generate(), KeyPair::generate());
    let made = join(&token, "one", &one).await;
    let (_requests, mut stream) = sync(&running, &made, &one).await;
    let (names, commit) = batch(&mut stream).await;
    assert_eq!((names, commit.full_set), (vec!["one".to_owned()], true));
    let joined = join(&token, "two", &two).await;
    let (names, commit) = batch(&mut stream).await;
    assert_eq!((names, commit.full_set), (vec!["two".to_owned()], false));
    assert_eq!(commit.revision, joined.revision);

    let nodes = admin.list_nodes(ListNodesRequest::default()).await.unwrap().into_inner().nodes;
    let online: Vec<_> =
        nodes.iter().map(|n| n.session.as_ref().is_some_and(|s| s.online)).collect();
    assert_eq!(online.iter().filter(|online| **online).count(), 1, "{nodes:?}");
    let wait = WaitAppliedRequest { revision: joined.revision, timeout: Some(SECOND) };
    let waited = admin.wait_applied(wait).await.unwrap().into_inner();
    assert_eq!(waited.pending_count, 1, "it has acked nothing: {waited:?}");

    drop(admin);
    let began = Instant::now();
    running.shutdown.begin();
    while !matches!(next(&mut stream).await, Message::Drain(_)) {}
    drop((stream, _requests));
    running.task.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

const SECOND: prost_types::Duration = prost_types::Duration { seconds: 1, nanos: 0 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_made_over_the_local_socket_may_what_their_role_may() {
    let folder = folder();
    let running = start(folder.path()).await;
    let create = |name: &'static str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wattle-controlplane"));
        command.args(["admin", "create", name, "--role", "viewer", "--data-dir"]);
        command.arg(folder.path()).current_dir(folder.path());
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let made = create("ann").await.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert_eq!(made.stdout, b"ann.json\n");
    let viewer = operator(&running, &folder.path().join("ann.json")).await;
    let mut viewer = AdminServiceClient::new(viewer);
    viewer.get_status(GetStatusRequest {}).await.unwrap();
    let refused = viewer.create_join_token(token_request()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    let before = std::fs::read(folder.path().join("ann.json")).unwrap();
    let again = create("ann").await.unwrap();
    assert!(!again.status.success());
    assert!(String::from_utf8_lossy(&again.stderr).contains("not overwritten"));
    assert_eq!(std::fs::read(folder.path().join("ann.json")).unwrap(), before);
    running.stop().await;
}

#[tokio::test]
async fn the_first_operators_file_is_made_once() {
    let folder = folder();
    let file = folder.path().join("operator.json");
    start(folder.path()).await.stop().await;
    let text = std::fs::read(&file).unwrap();
    start(folder.path()).await.stop().await;
    assert_eq!(std::fs::read(&file).unwrap(), text);
    std::fs::remove_file(&file).unwrap();
    let bound = wattle_controlplane::app::build(crate::config(folder.path())).await.unwrap();
    assert!(!file.exists());
    assert!(bound.greeting().contains("wattle-controlplane admin create"), "{}", bound.greeting());
    let address: SocketAddr = bound.address();
    assert_eq!(bound.replica().advertised, [address.to_string()]);
}
