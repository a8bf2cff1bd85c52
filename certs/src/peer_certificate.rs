//! What a certificate says of its holder, read strictly: exactly one name, a URI of ours, and the
//! usage that fits it and no other.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use wattle_model::Fingerprint;
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, prelude::FromDer as _, time::ASN1Time,
};

use crate::{Identity, InvalidSpiffeId, SpiffeId, provider};

/// Whoever is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Who it says it is.
    pub id: SpiffeId,
    /// SHA-256 of its key's SPKI.
    pub fingerprint: Fingerprint,
    /// The beginning of its life.
    pub not_before: SystemTime,
    /// The end of its life.
    pub not_after: SystemTime,
    /// Its serial number, big-endian.
    pub serial: Vec<u8>,
}

/// Why a certificate is refused, whoever signed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCertificate {
    /// Not X.509 in DER.
    #[error("the certificate is malformed")]
    Malformed,
    /// Not one or more certificates in PEM.
    #[error("no certificate in PEM")]
    Pem,
    /// Not exactly one name, or one that isn't a URI.
    #[error("a certificate has exactly one name, a URI; this one has {0} names")]
    Names(usize),
    /// The URI isn't one of ours.
    #[error("the certificate's URI: {0}")]
    Id(#[from] InvalidSpiffeId),
    /// A CA certificate is nobody's identity.
    #[error("a CA's certificate is nobody's identity")]
    Authority,
    /// Only a CA's certificate may be a root.
    #[error("the certificate is not a CA's")]
    NoAuthority,
    /// The extended key usage isn't the one that its identity has.
    #[error("the certificate's usage doesn't fit {0}")]
    Usage(String),
}

/// Reads who a certificate is for. Whether it is signed by whom it should be, and whether it has
/// run out, the handshake has checked.
pub fn peer_identity(
    certificate: &CertificateDer<'_>,
) -> Result<PeerCertificate, InvalidCertificate> {
    let parsed = parse(certificate)?;
    if parsed.is_ca() {
        return Err(InvalidCertificate::Authority);
    }
    let id: SpiffeId = only_uri(&parsed)?.parse()?;
    if !usage_fits(&parsed, &id.identity)? {
        return Err(InvalidCertificate::Usage(id.to_string()));
    }
    let validity = parsed.validity();
    Ok(PeerCertificate {
        id,
        fingerprint: provider::fingerprint(parsed.public_key().raw),
        not_before: time(validity.not_before),
        not_after: time(validity.not_after),
        serial: parsed.raw_serial().to_vec(),
    })
}

/// A certificate's date; what lies before 1970 becomes 1970.
pub(crate) fn time(date: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(date.timestamp()).unwrap_or(0))
}

/// SHA-256 of a certificate key's SPKI.
pub(crate) fn spki_fingerprint(
    certificate: &CertificateDer<'_>,
) -> Result<Fingerprint, InvalidCertificate> {
    Ok(provider::fingerprint(parse(certificate)?.public_key().raw))
}

/// A certificate key's SPKI, DER.
pub(crate) fn spki(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, InvalidCertificate> {
    Ok(parse(certificate)?.public_key().raw.to_vec())
}

pub(crate) fn parse<'a>(
    certificate: &'a CertificateDer<'_>,
) -> Result<X509Certificate<'a>, InvalidCertificate> {
    match X509Certificate::from_der(certificate) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(InvalidCertificate::Malformed),
    }
}

fn only_uri<'a>(parsed: &'a X509Certificate<'_>) -> Result<&'a str, InvalidCertificate> {
    let names = parsed.subject_alternative_name().map_err(|_| InvalidCertificate::Malformed)?;
    match names.map_or(&[][..], |names| &names.value.general_names) {
        [GeneralName::URI(uri)] => Ok(uri),
        others => Err(InvalidCertificate::Names(others.len())),
    }
}

/// Whether the extended key usage is exactly one that this kind of identity has. Which of them the
/// occasion asks for, the handshake has checked.
fn usage_fits(
    parsed: &X509Certificate<'_>,
    identity: &Identity,
) -> Result<bool, InvalidCertificate> {
    let usage = parsed.extended_key_usage().map_err(|_| InvalidCertificate::Malformed)?;
    let Some(usage) = usage.map(|usage| usage.value) else { return Ok(false) };
    let others = usage.any
        || usage.code_signing
        || usage.email_protection
        || usage.time_stamping
        || usage.ocsp_signing
        || !usage.other.is_empty();
    Ok(!others
        && match (identity, usage.client_auth, usage.server_auth) {
            (Identity::Node { .. } | Identity::Operator(_), client, server) => client && !server,
            // One to serve with and one to call other replicas with, never one for both.
            (Identity::Replica(_), client, server) => client != server,
        })
}
