//! A control plane's certificates, and handshakes over an in-memory pipe.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses a part"
)]

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, SanType};
use rustls::{ClientConfig, NamedGroup, ServerConfig, pki_types::CertificateDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use wattle_certs::{
    Ca, Identity, KeyPair, PeerCertificate, ReplicaCertificate, SpiffeId, TrustDomain, explain,
    peer_identity, server_config,
};
use wattle_model::{NodeId, OperatorId, ReplicaId};

pub const DAY: Duration = Duration::from_secs(24 * 3600);

pub type Chain = Vec<CertificateDer<'static>>;

/// One control plane's authority.
pub struct Domain {
    pub name: TrustDomain,
    pub ca: Ca,
}

/// What both ends of a handshake that worked saw.
#[derive(Debug)]
pub struct Met {
    pub client: Option<PeerCertificate>,
    pub server: PeerCertificate,
    pub alpn: Option<Vec<u8>>,
    pub key_exchange: Option<NamedGroup>,
}

impl Domain {
    pub fn new(name: &str) -> Self {
        let name: TrustDomain = name.parse().unwrap();
        Self { ca: Ca::generate(&name, SystemTime::now()), name }
    }

    pub fn id(&self, identity: Identity) -> SpiffeId {
        SpiffeId { trust_domain: self.name.clone(), identity }
    }

    pub fn node(&self) -> SpiffeId {
        let node = NodeId::new([1; 16]);
        self.id(Identity::Node { network: "default".parse().unwrap(), node })
    }

    pub fn replica(&self) -> SpiffeId {
        self.id(Identity::Replica(ReplicaId::new([2; 16])))
    }

    pub fn operator(&self) -> SpiffeId {
        self.id(Identity::Operator(OperatorId::new([3; 16])))
    }

    pub fn issue(&self, id: &SpiffeId, key: &KeyPair) -> Chain {
        let leaf = self.ca.issue(id, &key.csr_key(), DAY, SystemTime::now()).unwrap();
        vec![leaf, self.ca.certificate().clone()]
    }

    /// A certificate that this CA would never issue, signed with its key all the same.
    pub fn forge(&self, params: &CertificateParams, key: &KeyPair) -> Chain {
        let signer = rcgen::KeyPair::from_pem(&self.ca.key_pem()).unwrap();
        let issuer = Issuer::from_ca_cert_der(self.ca.certificate(), signer).unwrap();
        let key = rcgen::KeyPair::from_pem(&key.to_pem()).unwrap();
        let leaf = params.signed_by(&key, &issuer).unwrap().der().clone();
        vec![leaf, self.ca.certificate().clone()]
    }

    pub fn roots(&self) -> Chain {
        vec![self.ca.certificate().clone()]
    }

    /// A server with this chain, trusting clients of this CA.
    pub fn server(&self, chain: Chain, key: &KeyPair) -> ServerConfig {
        let certificate = ReplicaCertificate::new(chain, key).unwrap();
        server_config(certificate, &self.roots()).unwrap()
    }

    /// A server as it should be.
    pub fn good_server(&self) -> ServerConfig {
        let key = KeyPair::generate();
        self.server(self.issue(&self.replica(), &key), &key)
    }
}

/// A certificate with these names and usages.
pub fn params(uris: &[&str], usages: &[ExtendedKeyUsagePurpose]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names =
        uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.extended_key_usages = usages.to_vec();
    params
}

/// Meets over a pipe. An error is the client's where it had one, otherwise the server's.
pub async fn meet(client: ClientConfig, server: ServerConfig) -> Result<Met, String> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let serving = async {
        let mut tls = TlsAcceptor::from(Arc::new(server)).accept(far).await?;
        tls.write_all(b"!").await?;
        tls.flush().await?;
        io::Result::Ok(tls)
    };
    let calling = async {
        let name = "any.name".try_into().unwrap();
        let mut tls = TlsConnector::from(Arc::new(client)).connect(name, near).await?;
        // In TLS 1.3 a client learns only from what follows whether it was accepted.
        tls.read_u8().await?;
        io::Result::Ok(tls)
    };
    match tokio::join!(calling, serving) {
        (Ok(client), Ok(server)) => Ok(met(client.get_ref().1, server.get_ref().1)),
        (Err(client), Err(server)) => {
            Err(format!("client: {}; server: {}", explain(&client), explain(&server)))
        }
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Err(explain(&error)),
    }
}

fn met(client: &rustls::ClientConnection, server: &rustls::ServerConnection) -> Met {
    let first =
        |chain: Option<&[CertificateDer<'_>]>| chain.map(|chain| peer_identity(&chain[0]).unwrap());
    Met {
        client: first(server.peer_certificates()),
        server: first(client.peer_certificates()).unwrap(),
        alpn: client.alpn_protocol().map(<[u8]>::to_vec),
        key_exchange: client.negotiated_key_exchange_group().map(|group| group.name()),
    }
}
