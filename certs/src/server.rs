//! TLS as the control plane serves it: 1.3, HTTP/2, a client certificate optional but never a bad
//! one, and a certificate of its own that is exchanged without a restart.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, TrustAnchor, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};

use crate::{
    KeyPair,
    provider::{ALPN, VERSIONS, provider},
    verify::{self, Untrusted, Usage},
};

/// The certificate that a replica presents. New connections get whatever was put in last.
#[derive(Debug)]
pub struct ReplicaCertificate(ArcSwap<CertifiedKey>);

impl ReplicaCertificate {
    /// Begins with a chain: the replica's certificate, then the roots, with which joining agents
    /// compare their token's pin, and what one root says of another.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self(ArcSwap::new(key.certified(chain)?))))
    }

    /// Puts in a new chain; connections that exist keep theirs.
    pub fn replace(&self, chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Result<(), Error> {
        self.0.store(key.certified(chain)?);
        Ok(())
    }
}

impl ResolvesServerCert for ReplicaCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// The roots that clients' certificates must come from. New handshakes go by whatever was put in
/// last.
#[derive(Debug)]
pub struct TrustedRoots(ArcSwap<Vec<TrustAnchor<'static>>>);

impl TrustedRoots {
    /// Begins with these.
    pub fn new(roots: &[CertificateDer<'_>]) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(anchors(roots)?))))
    }

    /// Puts others in; connections that exist stay.
    pub fn replace(&self, roots: &[CertificateDer<'_>]) -> Result<(), Error> {
        self.0.store(Arc::new(anchors(roots)?));
        Ok(())
    }
}

fn anchors(roots: &[CertificateDer<'_>]) -> Result<Vec<TrustAnchor<'static>>, Error> {
    Ok(verify::anchors(roots).map_err(Untrusted::from)?)
}

/// TLS for a server whose roots stay as they are: whoever presents a client certificate must have it
/// from one of them.
pub fn server_config(
    certificate: Arc<ReplicaCertificate>,
    roots: &[CertificateDer<'_>],
) -> Result<ServerConfig, Error> {
    following_server_config(certificate, TrustedRoots::new(roots)?)
}

/// TLS for a replica, whose roots may change while it serves.
pub fn following_server_config(
    certificate: Arc<ReplicaCertificate>,
    roots: Arc<TrustedRoots>,
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)?
        .with_client_cert_verifier(Arc::new(ClientVerifier { roots }))
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Every connection proves anew who it is. Tickets would save 15–20 % of a handshake and cost
    // memory for each agent.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

#[derive(Debug)]
struct ClientVerifier {
    roots: Arc<TrustedRoots>,
}

impl ClientCertVerifier for ClientVerifier {
    /// A machine that joins has none yet.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        verify::verify(end_entity, &[], &self.roots.0.load(), Usage::Client, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify::refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify::verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        verify::schemes()
    }
}
