//! TLS as agents and operators speak it. The server must be a control plane of the right trust
//! domain: its URI says so. DNS names and addresses don't count; they change, and prove nothing.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime},
    sign::{CertifiedKey, SingleCertAndKey},
};
use wattle_model::Fingerprint;

use crate::{
    Identity, KeyPair, TrustDomain,
    peer_certificate::spki_fingerprint,
    provider::{ALPN, VERSIONS, provider},
    verify::{self, Untrusted, Usage},
};

/// TLS for whoever knows the roots. `credential` is the client's own certificate and its key;
/// where `trust_domain` is given, the server must be of it.
pub fn client_config(
    roots: &[CertificateDer<'_>],
    credential: Option<(Vec<CertificateDer<'static>>, &KeyPair)>,
    trust_domain: Option<&TrustDomain>,
) -> Result<ClientConfig, Error> {
    let roots = verify::anchors(roots).map_err(Untrusted::from)?;
    let trust = Trust::Roots { roots, trust_domain: trust_domain.cloned() };
    let certified = credential.map(|(chain, key)| key.certified(chain)).transpose()?;
    build(trust, certified)
}

/// TLS for a machine that joins: it knows nothing but the pin in its token. Whichever certificate
/// of the presented chain has the pinned key is the root.
pub fn pinned_client_config(pin: Fingerprint) -> Result<ClientConfig, Error> {
    build(Trust::Pin(pin), None)
}

fn build(trust: Trust, certified: Option<Arc<CertifiedKey>>) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerVerifier(trust)));
    let mut config = match certified {
        Some(certified) => {
            let resolver: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(certified));
            builder.with_client_cert_resolver(resolver)
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}

#[derive(Debug)]
enum Trust {
    Roots { roots: Vec<TrustAnchor<'static>>, trust_domain: Option<TrustDomain> },
    Pin(Fingerprint),
}

#[derive(Debug)]
struct ServerVerifier(Trust);

impl ServerVerifier {
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Untrusted> {
        let peer = match &self.0 {
            Trust::Roots { roots, .. } => verify::verify(leaf, rest, roots, Usage::Server, now)?,
            Trust::Pin(pin) => verify::verify(leaf, rest, &pinned(rest, pin)?, Usage::Server, now)?,
        };
        if !matches!(peer.id.identity, Identity::Replica(_)) {
            return Err(Untrusted::Role(peer.id.to_string(), "a control plane"));
        }
        match &self.0 {
            Trust::Roots { trust_domain: Some(wanted), .. } if *wanted != peer.id.trust_domain => {
                let (got, wanted) = (peer.id.trust_domain.to_string(), wanted.to_string());
                Err(Untrusted::TrustDomain(got, wanted))
            }
            _ => Ok(()),
        }
    }
}

fn pinned(
    chain: &[CertificateDer<'_>],
    pin: &Fingerprint,
) -> Result<Vec<TrustAnchor<'static>>, Untrusted> {
    let root = chain
        .iter()
        .find(|certificate| spki_fingerprint(certificate).is_ok_and(|found| found == *pin))
        .ok_or(Untrusted::WrongPin)?;
    Ok(verify::anchors(std::slice::from_ref(root))?)
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
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
