//! What a root certificate says of itself, and which root a certificate comes from.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use wattle_model::Fingerprint;
use webpki::EndEntityCert;
use x509_parser::certificate::X509Certificate;

use crate::{InvalidCertificate, TrustDomain, peer_certificate, provider, verify};

/// A root, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// SHA-256 of its SPKI: what join tokens know it by.
    pub pin: Fingerprint,
    /// Its whole name, as text.
    pub subject: String,
    /// The name's one part that this program writes.
    pub name: String,
    /// It names itself as the one who signed it.
    pub is_self_issued: bool,
    /// The beginning of its life.
    pub not_before: SystemTime,
    /// The end of its life.
    pub not_after: SystemTime,
}

impl Root {
    /// Reads a CA's certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, InvalidCertificate> {
        let parsed = peer_certificate::parse(certificate)?;
        if !parsed.is_ca() {
            return Err(InvalidCertificate::NoAuthority);
        }
        let validity = parsed.validity();
        let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        Ok(Self {
            pin: provider::fingerprint(parsed.public_key().raw),
            subject: parsed.subject().to_string(),
            name: name.unwrap_or_default().to_owned(),
            is_self_issued: parsed.subject().as_raw() == parsed.issuer().as_raw(),
            not_before: peer_certificate::time(validity.not_before),
            not_after: peer_certificate::time(validity.not_after),
        })
    }

    /// The trust domain that it was made for, where this program made it.
    pub fn trust_domain(&self) -> Option<TrustDomain> {
        self.name.strip_prefix("Wattle ")?.split(' ').next()?.parse().ok()
    }
}

/// Which of `roots` signed a certificate, be it somebody's or another CA's, by its pin; `None` where
/// none of them did. Dates and usages don't count.
pub fn root_of(
    certificate: &CertificateDer<'_>,
    roots: &[CertificateDer<'_>],
) -> Option<Fingerprint> {
    let parsed = peer_certificate::parse(certificate).ok()?;
    let signed = roots.iter().find(|root| is_signed_by(&parsed, root))?;
    peer_certificate::spki_fingerprint(signed).ok()
}

fn is_signed_by(certificate: &X509Certificate<'_>, root: &CertificateDer<'_>) -> bool {
    let Ok(parsed) = peer_certificate::parse(root) else { return false };
    // Only to have webpki hold the root's key.
    let Ok(key) = EndEntityCert::try_from(root) else { return false };
    let (signed, signature) =
        (certificate.tbs_certificate.as_ref(), &certificate.signature_value.data);
    parsed.subject().as_raw() == certificate.issuer().as_raw()
        && verify::algorithms()
            .all
            .iter()
            .any(|algorithm| key.verify_signature(*algorithm, signed, signature).is_ok())
}
