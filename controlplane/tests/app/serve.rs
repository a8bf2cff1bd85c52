//! What is served, and to whom.

use std::{
    os::unix::fs::PermissionsExt as _,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::FutureExt as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep},
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tower::util::BoxCloneSyncService;
use wattle_certs::{Ca, TrustDomain};
use wattle_controlplane::{
    app,
    authority::{Authority, CaFiles, Roots, Trust},
    certificate::OwnCertificate,
    config::Config,
    listener::{Connections, TlsListener},
    store::embedded::Embedded,
};
use wattle_model::ReplicaId;
use wattle_runtime::dial;

use crate::{Running, config, folder, start, start_with};

#[tokio::test]
async fn anybody_may_ask_for_health_and_only_operators_for_reflection() {
    let folder = folder();
    let running = start(folder.path()).await;
    let channel = running.anonymous().await;
    for service in ["", "wattle.sync.v1.SyncService"] {
        let request = HealthCheckRequest { service: service.into() };
        let answer = HealthClient::new(channel.clone()).check(request).await.unwrap();
        assert_eq!(answer.into_inner().status, 1, "{service:?} is serving");
    }
    let refused = reflect(channel).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    let socket = folder.path().join("admin.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let services = reflect(dial::unix(&socket).await.unwrap()).await.unwrap();
    for service in ["wattle.admin.v1.AdminService", "grpc.health.v1.Health"] {
        assert!(services.iter().any(|name| name == service), "{services:?}");
    }
    running.stop().await;
    assert!(!socket.exists());
}

async fn reflect(channel: tonic::transport::Channel) -> Result<Vec<String>, tonic::Status> {
    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let requests = futures::stream::iter([request]);
    let answers = ServerReflectionClient::new(channel).server_reflection_info(requests).await?;
    let answer = answers.into_inner().message().await?.expect("one answer");
    match answer.message_response {
        Some(MessageResponse::ListServicesResponse(list)) => {
            Ok(list.service.into_iter().map(|service| service.name).collect())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_second_start_is_the_same_control_plane() {
    let folder = folder();
    let first = start(folder.path()).await;
    let names = |replica: &wattle_controlplane::replica::Replica| {
        (
            replica.live.epoch(),
            replica.trust_domain.clone(),
            replica.ca().pin(),
            replica.roots().clone(),
        )
    };
    let before = (names(&first.replica), first.replica.id);
    first.stop().await;
    let second = start(folder.path()).await;
    assert_eq!(names(&second.replica), before.0);
    assert_ne!(second.replica.id, before.1, "each process has its own id");
    second.stop().await;
}

#[tokio::test]
async fn one_process_a_data_directory() {
    let folder = folder();
    let running = start(folder.path()).await;
    let error = app::build(config(folder.path())).await.err().expect("it is in use");
    assert!(format!("{error:#}").contains("in use by another process"), "{error:#}");
    running.stop().await;
}

/// A new store beside the old CA would look healthy and know nobody.
#[tokio::test]
async fn a_lost_store_is_not_replaced_by_an_empty_one() {
    let folder = folder();
    start(folder.path()).await.stop().await;
    let store = folder.path().join("store.redb");
    std::fs::remove_file(&store).unwrap();
    let error = app::build(config(folder.path())).await.err().expect("it is lost");
    assert!(format!("{error:#}").contains("store.redb is lost"), "{error:#}");
    assert!(!store.exists());
    // What a restore leaves that was killed at its very beginning.
    drop(Embedded::open(&store).unwrap());
    let error = app::build(config(folder.path())).await.err().expect("it is empty");
    assert!(format!("{error:#}").contains("store.redb is lost"), "{error:#}");
}

/// Nor where its CA lies elsewhere, as new as it may be.
#[tokio::test]
async fn a_lost_store_with_a_ca_by_file_is_not_replaced_either() {
    let (data, mount) = (folder(), folder());
    let ca = CaFiles::of(mount.path());
    ca.create(&Ca::generate(&"mesh.example".parse().unwrap(), SystemTime::now())).unwrap();
    let config = Config { ca, ..config(data.path()) };
    start_with(config.clone()).await.stop().await;
    start_with(config.clone()).await.stop().await;
    std::fs::remove_file(data.path().join("store.redb")).unwrap();
    let error = app::build(config).await.err().expect("it is lost");
    assert!(format!("{error:#}").contains("store.redb is lost"), "{error:#}");
}

#[tokio::test]
async fn a_first_start_that_was_interrupted_goes_on() {
    let folder = folder();
    // No CA can be written: it ends before there is one.
    let files = CaFiles::of(folder.path());
    std::fs::create_dir(&files.certificate).unwrap();
    app::build(config(folder.path())).await.err().expect("there is no CA");
    std::fs::remove_dir(&files.certificate).unwrap();
    // It ends after there is one, before the store says so.
    let ca = Ca::generate(&"mesh.example".parse().unwrap(), SystemTime::now());
    files.create(&ca).unwrap();
    start(folder.path()).await.stop().await;
    // From now on there is no other one.
    drop(Embedded::open(&folder.path().join("other.redb")).unwrap());
    std::fs::rename(folder.path().join("other.redb"), folder.path().join("store.redb")).unwrap();
    app::build(config(folder.path())).await.err().expect("its store is lost");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let folders = [folder(), folder()];
    let running = start(folders[0].path()).await;
    let mut config = config(folders[1].path());
    config.listen = running.address.parse().unwrap();
    let error = format!("{:#}", app::build(config).await.err().expect("it is taken"));
    assert!(error.contains(&running.address) && error.contains("--listen"), "{error}");
    running.stop().await;
}

#[tokio::test]
async fn noise_and_silence_on_the_port_disturb_nobody() {
    let folder = folder();
    let running = start(folder.path()).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(&running.address).await.unwrap());
    }
    // Another source, with more than there are handshakes at a time.
    let address = running.address.parse().unwrap();
    for _ in 0..400 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
        silent.push(socket.connect(address).await.unwrap());
    }
    for noise in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 255, 255, 0, 0], &[0; 4096]] {
        let mut stream = TcpStream::connect(&running.address).await.unwrap();
        stream.write_all(noise).await.unwrap();
    }
    let began = Instant::now();
    let mut health = HealthClient::new(running.anonymous().await);
    assert!(health.check(HealthCheckRequest::default()).await.is_ok());
    assert!(began.elapsed() < Duration::from_secs(3), "strangers wait behind their own only");
    let began = Instant::now();
    running.stop().await;
    assert!(began.elapsed() < Duration::from_secs(1), "half-open handshakes hold up no drain");
}

#[tokio::test]
async fn the_own_certificate_is_renewed_under_way() {
    let trust_domain: TrustDomain = "test.wattle.internal".parse().unwrap();
    let ca = Arc::new(Ca::generate(&trust_domain, std::time::SystemTime::now()));
    let roots = Roots::only(ca.certificate(), ca.pin());
    let authority = Authority::new(Trust::new(ca.clone(), roots)).unwrap();
    let lifetime = Duration::from_secs(3);
    let id = ReplicaId::new([1; 16]);
    let own = OwnCertificate::issue(&authority, trust_domain, id, lifetime).unwrap();
    let roots = [ca.certificate().clone()];
    let tls = wattle_certs::server_config(own.presented(), &roots).unwrap();
    let listener = TlsListener::bind(([127, 0, 0, 1], 0).into(), tls).await.unwrap();
    let address = listener.address().unwrap();
    let end = CancellationToken::new();
    let connections = Connections::new(end.clone());
    let nobody = tower::service_fn(|_| async { Ok(tonic::Status::unimplemented("").into_http()) });
    listener.serve(&connections, BoxCloneSyncService::new(nobody));
    let keeper = tokio::spawn(own.keep(end));
    let presented = || async {
        let tls = wattle_certs::client_config(&roots, None, None).unwrap();
        let tcp = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("any").unwrap();
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let first: CertificateDer<'static> = presented().await;
    assert_eq!(presented().await, first);
    sleep(lifetime * 5 / 6).await;
    assert_ne!(presented().await, first, "two thirds of its life are over");
    assert_eq!(connections.drain(Duration::ZERO, Duration::from_secs(1)).await, 0);
    keeper.map(|end| end.unwrap()).await;
}

/// Whether the peer ends a connection within a moment.
async fn ends(mut stream: impl AsyncRead + Unpin) -> bool {
    let read = async {
        let mut bytes = Vec::new();
        // Whatever it says before; an error is an end, too.
        let _ = stream.read_to_end(&mut bytes).await;
    };
    tokio::time::timeout(Duration::from_secs(3), read).await.is_ok()
}

/// A stranger's connection, on which nothing is said.
async fn silence(running: &Running) -> impl AsyncRead + Unpin {
    let tls = wattle_certs::client_config(&running.replica.roots(), None, None).unwrap();
    let tcp = TcpStream::connect(&running.address).await.unwrap();
    let name = ServerName::try_from("any").unwrap();
    TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.unwrap()
}

#[tokio::test]
async fn strangers_who_ask_for_nothing_are_sent_away_and_streams_stay() {
    let folder = folder();
    let running = start(folder.path()).await;
    let silent = silence(&running).await;
    let mut asked = HealthClient::new(running.anonymous().await);
    asked.check(HealthCheckRequest::default()).await.unwrap();
    let mut watch = HealthClient::new(running.anonymous().await)
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, 1);
    // In steps, so that keepalives are answered.
    for _ in 0..13 {
        sleep(Duration::from_millis(20)).await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(5)).await;
        tokio::time::resume();
    }
    assert!(ends(silent).await, "a connection without a call goes after a minute");
    let fresh = silence(&running).await;
    assert!(!ends(fresh).await, "and not before");
    // On a busy machine the view may have looked stale in these jumps, which is said on it.
    let end = async { while let Ok(Some(_)) = watch.message().await {} };
    let ended = tokio::time::timeout(Duration::from_millis(100), end).await;
    assert!(ended.is_err(), "a stream stays");
    asked.check(HealthCheckRequest::default()).await.expect("a client connects again by itself");
    drop((watch, asked));
    running.stop().await;
}
