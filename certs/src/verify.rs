//! Whether a presented certificate is to be believed: signed by a root, alive, with its usage
//! *present*, and saying who it is in the one way we write it. Between a root and a server there may
//! be an old root's word for a new one; between a root and a client there is nothing.
//!
//! webpki checks a usage only where there is one, so a certificate without any would pass for
//! everything; it is demanded here.

use std::{io, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature},
    pki_types::{CertificateDer, TrustAnchor, UnixTime},
};
use webpki::{EndEntityCert, KeyUsage};

use crate::{InvalidCertificate, PeerCertificate, peer_identity, provider};

/// Why the other side isn't believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// No certificate in the chain has the pinned key.
    #[error("the control plane there is not the one this token was made for")]
    WrongPin,
    /// Signed by somebody else, or not as it should be.
    #[error("its certificate is not one of this control plane's: {0}")]
    Chain(webpki::Error),
    /// What the certificate says is malformed or doesn't fit.
    #[error(transparent)]
    Certificate(#[from] InvalidCertificate),
    /// A good certificate, but not of somebody who may be at this end.
    #[error("{0} is not {1}")]
    Role(String, &'static str),
    /// A control plane, but another one.
    #[error("the control plane there belongs to the trust domain {0}, not {1}")]
    TrustDomain(String, String),
}

impl From<Untrusted> for Error {
    fn from(error: Untrusted) -> Self {
        // Dates keep their own alert: the other side can then say why, and renew or set its clock.
        let error = match error {
            Untrusted::Chain(webpki::Error::CertExpired { time, not_after }) => {
                CertificateError::ExpiredContext { time, not_after }
            }
            Untrusted::Chain(webpki::Error::CertNotValidYet { time, not_before }) => {
                CertificateError::NotValidYetContext { time, not_before }
            }
            // The other side is told that its authority is unknown, and can ask for another
            // certificate.
            Untrusted::Chain(webpki::Error::UnknownIssuer) => CertificateError::UnknownIssuer,
            other => CertificateError::Other(OtherError(Arc::new(other))),
        };
        Self::InvalidCertificate(error)
    }
}

/// Why a handshake failed, for people: our own words where rustls wraps them in its own.
pub fn explain(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match tls {
        Some(Error::InvalidCertificate(CertificateError::Other(other))) => other.0.to_string(),
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            Untrusted::Chain(webpki::Error::UnknownIssuer).to_string()
        }
        Some(Error::AlertReceived(alert)) => {
            format!("the other side refused the connection ({alert:?})")
        }
        _ => error.to_string(),
    }
}

/// The usage that a certificate must name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Usage {
    Server,
    Client,
}

impl Usage {
    const fn required(self) -> KeyUsage {
        // id-kp-serverAuth and id-kp-clientAuth, 1.3.6.1.5.5.7.3.1 and .2.
        match self {
            Self::Server => KeyUsage::required(&[43, 6, 1, 5, 5, 7, 3, 1]),
            Self::Client => KeyUsage::required(&[43, 6, 1, 5, 5, 7, 3, 2]),
        }
    }
}

/// Checks a certificate against the roots and reads it. `between` is what may lie in between.
pub(crate) fn verify(
    certificate: &CertificateDer<'_>,
    between: &[CertificateDer<'_>],
    roots: &[TrustAnchor<'_>],
    usage: Usage,
    now: UnixTime,
) -> Result<PeerCertificate, Untrusted> {
    let algorithms = algorithms().all;
    EndEntityCert::try_from(certificate)
        .and_then(|leaf| {
            leaf.verify_for_usage(algorithms, roots, between, now, usage.required(), None, None)
                .map(|_| ())
        })
        .map_err(Untrusted::Chain)?;
    Ok(peer_identity(certificate)?)
}

/// What roots are to webpki.
pub(crate) fn anchors(
    roots: &[CertificateDer<'_>],
) -> Result<Vec<TrustAnchor<'static>>, InvalidCertificate> {
    let anchor = |root| {
        let anchor = webpki::anchor_from_trusted_cert(root);
        anchor.map(|anchor| anchor.to_owned()).map_err(|_| InvalidCertificate::Malformed)
    };
    roots.iter().map(anchor).collect()
}

/// Checks that the other side has the private key of the certificate it presented.
pub(crate) fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature(message, certificate, signature, &algorithms())
}

/// TLS 1.2 is never offered.
pub(crate) fn refuse_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("TLS 1.2 is not spoken here".into()))
}

pub(crate) fn schemes() -> Vec<SignatureScheme> {
    algorithms().supported_schemes()
}

pub(crate) fn algorithms() -> WebPkiSupportedAlgorithms {
    provider::provider().signature_verification_algorithms
}
