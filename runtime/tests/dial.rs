//! Dialling over loopback: the first address that answers as it should, and why the others didn't.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    io::copy,
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_rustls::TlsAcceptor;
use wattle_certs::{
    Ca, Identity, KeyPair, ReplicaCertificate, SpiffeId, pinned_client_config, server_config,
};
use wattle_model::ReplicaId;
use wattle_runtime::dial::{ConnectError, channel};

const PATIENCE: Duration = Duration::from_secs(5);

fn authority() -> Ca {
    Ca::generate(&"test".parse().unwrap(), SystemTime::now())
}

/// A control plane's TLS that serves nothing, for as long as the set lives.
async fn listen(ca: &Ca, tasks: &mut JoinSet<()>) -> String {
    let (key, now) = (KeyPair::generate(), SystemTime::now());
    let identity = Identity::Replica(ReplicaId::new([1; 16]));
    let id = SpiffeId { trust_domain: "test".parse().unwrap(), identity };
    let leaf = ca.issue(&id, &key.csr_key(), Duration::from_secs(3600), now).unwrap();
    let root = ca.certificate().clone();
    let certificate = ReplicaCertificate::new(vec![leaf, root.clone()], &key).unwrap();
    let tls = TlsAcceptor::from(Arc::new(server_config(certificate, &[root]).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok(mut stream) = tls.accept(stream).await {
                let _ = copy(&mut stream, &mut tokio::io::sink()).await;
            }
        }
    });
    address
}

/// An address where nobody listens.
async fn dead() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test]
async fn the_first_address_that_answers_is_taken() {
    let (ca, mut tasks) = (authority(), JoinSet::new());
    let addresses = [dead().await, listen(&ca, &mut tasks).await];
    let tls = Arc::new(pinned_client_config(ca.pin()).unwrap());
    let dialed = channel(&addresses, tls, PATIENCE).await.unwrap();
    assert_eq!(dialed.address, addresses[1]);
}

#[tokio::test]
async fn every_address_that_didnt_do_is_listed_with_its_reason() {
    let mut tasks = JoinSet::new();
    let addresses = [dead().await, listen(&authority(), &mut tasks).await];
    let tls = Arc::new(pinned_client_config(authority().pin()).unwrap());
    let error = channel(&addresses, tls, PATIENCE).await.unwrap_err();
    assert!(error.is_untrusted());
    let text = error.to_string();
    assert!(text.contains(&format!("{}: Connection refused", addresses[0])), "{text}");
    let reason = "the control plane there is not the one this token was made for";
    assert!(text.contains(&format!("{}: {reason}", addresses[1])), "{text}");
}

#[tokio::test]
async fn whoever_accepts_and_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = [listener.local_addr().unwrap().to_string()];
    let tls = Arc::new(pinned_client_config(authority().pin()).unwrap());
    let error = channel(&addresses, tls, Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error.attempts()[0].1, ConnectError::Timeout(_)), "{error}");
    assert!(!error.is_untrusted());
}

/// A listener whose queue is full drops what comes, as a black hole does.
#[tokio::test]
async fn an_address_that_swallows_packets_costs_two_seconds() {
    let (ca, mut tasks) = (authority(), JoinSet::new());
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let hole = socket.listen(1).unwrap();
    let address = hole.local_addr().unwrap();
    let mut fill = JoinSet::new();
    for _ in 0..8 {
        fill.spawn(TcpStream::connect(address));
    }
    sleep(Duration::from_millis(200)).await;
    let addresses = [address.to_string(), listen(&ca, &mut tasks).await];
    let tls = Arc::new(pinned_client_config(ca.pin()).unwrap());
    let began = Instant::now();
    let dialed = channel(&addresses, tls, PATIENCE).await.unwrap();
    let took = began.elapsed();
    assert_eq!(dialed.address, addresses[1]);
    assert!(took > Duration::from_millis(1900), "it swallowed nothing: {took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test]
async fn whoever_hangs_up_is_not_called_untrusted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = [listener.local_addr().unwrap().to_string()];
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(listener.accept().await) });
    let tls = Arc::new(pinned_client_config(authority().pin()).unwrap());
    let error = channel(&addresses, tls, PATIENCE).await.unwrap_err();
    assert!(!error.is_untrusted(), "{error}");
}
