//! A control plane for tests that does nothing by itself: real TLS and real gRPC on loopback, and a
//! test that says every word of it.

mod enrollment;
mod sync;

use std::{
    net::SocketAddr,
    sync::{Arc, Once},
    time::{Duration, SystemTime},
};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet, time::timeout};
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;
use wattle_certs::{Ca, Identity as Whose, KeyPair, ReplicaCertificate, SpiffeId, TrustDomain};
use wattle_model::{Fingerprint, JoinToken, NodeId, ReplicaId, TokenId, TokenSecret};
use wattle_proto::{
    enroll::{Credential, enrollment_service_server::EnrollmentServiceServer},
    sync::sync_service_server::SyncServiceServer,
};

pub(crate) use self::{
    enrollment::{Asked, Enrollment},
    sync::{Stream, digest_of, has, key, node, peer, peer_at, peer_holding},
};
use crate::{
    settings::{Addresses, Settings},
    state::identity::Identity,
    wireguard_key,
};

/// Nothing that a test waits for takes longer, except on a machine that is out of order.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The node that the tests are about.
pub(crate) const NODE: NodeId = NodeId::new([0xaa; 16]);

/// What all replicas of a test share.
#[derive(Debug)]
pub(crate) struct Authority {
    pub(crate) ca: Ca,
    pub(crate) trust_domain: TrustDomain,
}

impl Authority {
    pub(crate) fn new() -> Arc<Self> {
        static LOGS: Once = Once::new();
        LOGS.call_once(|| {
            let _ = wattle_runtime::telemetry::init("test", Default::default());
        });
        let trust_domain: TrustDomain = "test.wattle".parse().unwrap();
        Arc::new(Self { ca: Ca::generate(&trust_domain, SystemTime::now()), trust_domain })
    }

    /// The certificate of the tests' node for `key`, living for `lifetime` from `from`.
    pub(crate) fn credential(
        &self,
        node: NodeId,
        key: &wattle_certs::CsrKey,
        from: SystemTime,
        lifetime: Duration,
    ) -> Credential {
        let identity = Whose::Node { network: "default".parse().unwrap(), node };
        let id = SpiffeId { trust_domain: self.trust_domain.clone(), identity };
        Credential {
            certificate: self.ca.issue(&id, key, lifetime, from).unwrap().to_vec().into(),
            ca_certificates: vec![self.ca.certificate().to_vec().into()],
            trust_domain: self.trust_domain.to_string(),
        }
    }

    /// An identity as an enrolment leaves it.
    pub(crate) fn identity(&self, control_planes: Vec<String>) -> Identity {
        let tls_key = KeyPair::generate();
        let life = Duration::from_secs(3600);
        let credential = self.credential(NODE, &tls_key.csr_key(), SystemTime::now(), life);
        Identity {
            node_id: NODE,
            trust_domain: self.trust_domain.clone(),
            settings: Settings {
                network: "default".parse().unwrap(),
                name: "tested".parse().unwrap(),
                addresses: Addresses {
                    ipv4: Some([10, 90, 0, 250].into()),
                    ipv4_range: Some("10.90.0.0/16".parse().unwrap()),
                    ..Default::default()
                },
                control_planes,
                observed: None,
                mtu: None,
            },
            deleted: false,
            certificate: credential.certificate.to_vec().into(),
            ca_certificates: vec![self.ca.certificate().clone()],
            tls_key: Arc::new(tls_key),
            wireguard_key: wireguard_key::generate(),
            next_wireguard_key: None,
            secrets: Default::default(),
        }
    }
}

/// One replica.
pub(crate) struct Replica {
    pub(crate) address: String,
    pub(crate) authority: Arc<Authority>,
    pub(crate) enrollment: Enrollment,
    streams: mpsc::Receiver<Stream>,
    server: JoinSet<()>,
}

impl Replica {
    /// Listens on a free port.
    pub(crate) async fn start(authority: &Arc<Authority>) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), authority).await
    }

    async fn start_at(address: SocketAddr, authority: &Arc<Authority>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, streams) = mpsc::channel(8);
        let enrollment = Enrollment::new(authority.clone(), &address);
        let routes = Routes::new(SyncServiceServer::new(sync::Service(sender)))
            .add_service(EnrollmentServiceServer::new(enrollment.clone()));
        let tls = TlsAcceptor::from(Arc::new(tls(authority)));
        let mut server = JoinSet::new();
        server.spawn(serve(listener, tls, routes));
        Self { address, authority: authority.clone(), enrollment, streams, server }
    }

    /// Goes away, with all its connections.
    pub(crate) async fn stop(&mut self) {
        self.server.shutdown().await;
    }

    /// Is back where it was.
    pub(crate) async fn come_back(&mut self) {
        let (address, authority) = (self.address.parse().unwrap(), self.authority.clone());
        *self = Self::start_at(address, &authority).await;
    }

    /// The next stream that an agent opens; it has said Hello.
    pub(crate) async fn stream(&mut self) -> Stream {
        let stream = timeout(PATIENCE, self.streams.recv()).await;
        stream.expect("an agent should have connected").unwrap()
    }

    /// A stream that an agent has opened already.
    pub(crate) fn stream_now(&mut self) -> Option<Stream> {
        self.streams.try_recv().ok()
    }

    /// Nobody connects for a while.
    pub(crate) async fn expect_nobody(&mut self, wait: Duration) {
        let stream = timeout(wait, self.streams.recv()).await;
        assert!(stream.is_err(), "an agent connected: {:?}", stream.unwrap().unwrap().hello);
    }

    /// A token for this replica.
    pub(crate) fn token(&self, pin: Fingerprint) -> JoinToken {
        JoinToken {
            id: TokenId::new([1; 8]),
            secret: TokenSecret::new([2; 32]),
            pin,
            addresses: vec![self.address.clone()],
        }
    }
}

fn tls(authority: &Authority) -> rustls::ServerConfig {
    let key = KeyPair::generate();
    let id = SpiffeId {
        trust_domain: authority.trust_domain.clone(),
        identity: Whose::Replica(ReplicaId::new([7; 16])),
    };
    let life = Duration::from_secs(3600);
    let leaf = authority.ca.issue(&id, &key.csr_key(), life, SystemTime::now()).unwrap();
    let root = authority.ca.certificate().clone();
    let certificate = ReplicaCertificate::new(vec![leaf, root.clone()], &key).unwrap();
    wattle_certs::server_config(certificate, &[root]).unwrap()
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, routes: Routes) {
    let mut connections = JoinSet::new();
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (tls, service) = (tls.clone(), TowerToHyperService::new(routes.clone()));
        connections.spawn(async move {
            // Agents that were made to mistrust us hang up in the handshake.
            let Ok(stream) = tls.accept(tcp).await else { return };
            let server = auto::Builder::new(TokioExecutor::new()).http2_only();
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
