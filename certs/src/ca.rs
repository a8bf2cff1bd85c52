//! The certificate authority: a root, and nothing between it and what it issues. Everything in a
//! certificate but its public key is decided here.
//!
//! While one root takes the place of another, the old one certifies the new one's key
//! ([`Ca::cross_sign`]): whoever knows only the old root then believes what the new one signs.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, PublicKeyData as _, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateDer;
use wattle_model::{Fingerprint, ReplicaId};
use zeroize::Zeroizing;

use crate::{
    CsrKey, Identity, InvalidKeyPair, SpiffeId, TrustDomain, certificates_from_pem,
    peer_certificate, provider, root::Root,
};

/// Certificates begin this much before they are made, for machines whose clocks are late.
const BACKDATED: Duration = Duration::from_mins(5);

/// How long a root lives: twenty years.
const ROOT_LIFETIME: Duration = Duration::from_hours(20 * 365 * 24);

/// How long an old root vouches for a new one: longer than any join token lives (a year), because a
/// token knows the control plane by the root of the day it was made.
const CROSS_LIFETIME: Duration = Duration::from_hours(400 * 24);

/// A certificate authority and its private key. `Debug` shows its pin alone.
pub struct Ca {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, rcgen::KeyPair>,
}

/// Why a certificate authority can't be read or can't sign.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The certificate is malformed.
    #[error("the CA certificate is malformed")]
    Certificate,
    /// The private key is malformed.
    #[error("the CA key: {0}")]
    Key(#[from] InvalidKeyPair),
    /// Certificate and key belong to two authorities.
    #[error("the CA key is not the one of the CA certificate")]
    Mismatch,
    /// The other authority's name isn't one that this program writes.
    #[error("the new CA was not made by `wattle-controlplane ca`: its name can't be repeated")]
    ForeignName,
    /// Signing failed.
    #[error("signing a certificate: {0}")]
    Sign(#[from] rcgen::Error),
}

impl Ca {
    /// Makes a new authority for a trust domain.
    ///
    /// # Panics
    /// Where the machine has no source of randomness.
    pub fn generate(trust_domain: &TrustDomain, now: SystemTime) -> Self {
        let key = rcgen::KeyPair::generate().expect("the machine has randomness");
        let mut params = CertificateParams::default();
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now + ROOT_LIFETIME).into();
        params.serial_number = Some(serial());
        // Two roots of one trust domain have two names.
        let pin = provider::fingerprint(&key.subject_public_key_info()).to_string();
        params.distinguished_name = named(&format!("Wattle {trust_domain} {}", &pin[..8]));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).expect("a new key signs").der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// Reads an authority from its private key and a file of certificates, one of which is its own.
    pub fn from_pem(certificates: &str, key: &str) -> Result<Self, CaError> {
        let certificates = certificates_from_pem(certificates).map_err(|_| CaError::Certificate)?;
        let key = rcgen::KeyPair::from_pem(key).map_err(|_| InvalidKeyPair)?;
        let wanted = provider::fingerprint(&key.subject_public_key_info());
        let mut own = None;
        for certificate in certificates {
            let root = Root::of(&certificate).map_err(|_| CaError::Certificate)?;
            // Another authority's word for it is no root.
            if root.pin == wanted && root.is_self_issued {
                own.get_or_insert(certificate);
            }
        }
        let certificate = own.ok_or(CaError::Mismatch)?;
        let issuer =
            Issuer::from_ca_cert_der(&certificate, key).map_err(|_| CaError::Certificate)?;
        Ok(Self { certificate, issuer })
    }

    /// The private key, for a file that only its owner can read.
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// The root certificate.
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What join tokens carry: SHA-256 of the root's SPKI.
    pub fn pin(&self) -> Fingerprint {
        provider::fingerprint(&self.issuer.key().subject_public_key_info())
    }

    /// This authority's word for another one's key, under the other one's name: good for servers
    /// alone, and for as long as both authorities and any join token of today live.
    pub fn cross_sign(
        &self,
        other: &CertificateDer<'_>,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, CaError> {
        let (own, root) = (self.root(), Root::of(other).map_err(|_| CaError::Certificate)?);
        let key = peer_certificate::spki(other).map_err(|_| CaError::Certificate)?;
        let key = SubjectPublicKeyInfo::from_der(&key).map_err(|_| CaError::Certificate)?;
        let mut params = CertificateParams::default();
        params.not_before = (now - BACKDATED).into();
        let until = (now + CROSS_LIFETIME).min(own.not_after).min(root.not_after);
        params.not_after = until.into();
        params.serial_number = Some(serial());
        params.distinguished_name = named(&root.name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // webpki demands the leaf's usage of everything above it.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let cross = params.signed_by(&key, &self.issuer)?.der().clone();
        let same = Root::of(&cross).is_ok_and(|cross| cross.subject == root.subject);
        same.then_some(cross).ok_or(CaError::ForeignName)
    }

    /// What its certificate says.
    ///
    /// # Panics
    /// Never: the certificate was read before.
    pub fn root(&self) -> Root {
        Root::of(&self.certificate).expect("an authority's certificate can be read")
    }

    /// A certificate for `key` that says `id` and what `id` may do, and nothing else.
    pub fn issue(
        &self,
        id: &SpiffeId,
        key: &CsrKey,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, CaError> {
        let (kind, usage) = match id.identity {
            Identity::Node { .. } => ("node", ExtendedKeyUsagePurpose::ClientAuth),
            Identity::Operator(_) => ("operator", ExtendedKeyUsagePurpose::ClientAuth),
            Identity::Replica(_) => ("control plane", ExtendedKeyUsagePurpose::ServerAuth),
        };
        self.sign(id, kind, usage, key, lifetime, now)
    }

    /// A certificate with which a replica calls others. It is for that alone: nobody takes whoever
    /// presents it for a server.
    pub fn issue_caller(
        &self,
        trust_domain: &TrustDomain,
        replica: ReplicaId,
        key: &CsrKey,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, CaError> {
        let identity = Identity::Replica(replica);
        let id = SpiffeId { trust_domain: trust_domain.clone(), identity };
        let usage = ExtendedKeyUsagePurpose::ClientAuth;
        self.sign(&id, "control plane", usage, key, lifetime, now)
    }

    fn sign(
        &self,
        id: &SpiffeId,
        kind: &str,
        usage: ExtendedKeyUsagePurpose,
        key: &CsrKey,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, CaError> {
        let mut params = CertificateParams::default();
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now + lifetime).into();
        params.serial_number = Some(serial());
        params.distinguished_name = named(&format!("Wattle {kind}"));
        params.subject_alt_names = vec![SanType::URI(id.to_string().try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(&key.key, &self.issuer)?.der().clone())
    }
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ca({})", self.pin())
    }
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// 16 random bytes. rcgen's default is a hash of the key, the same at every renewal.
fn serial() -> SerialNumber {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the machine has randomness");
    SerialNumber::from_slice(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate_to_pem;

    fn ca() -> Ca {
        Ca::generate(&"test".parse().unwrap(), SystemTime::now())
    }

    #[test]
    fn an_authority_round_trips() {
        let made = ca();
        let read = Ca::from_pem(&certificate_to_pem(made.certificate()), &made.key_pem()).unwrap();
        assert_eq!(read.pin(), made.pin());
        assert_eq!(peer_certificate::spki_fingerprint(made.certificate()).unwrap(), made.pin());
    }

    #[test]
    fn a_key_of_another_authority_is_refused() {
        let result = Ca::from_pem(&certificate_to_pem(ca().certificate()), &ca().key_pem());
        assert!(matches!(result, Err(CaError::Mismatch)));
    }

    #[test]
    fn its_certificate_is_found_among_others() {
        let (old, new) = (ca(), ca());
        let cross = old.cross_sign(new.certificate(), SystemTime::now()).unwrap();
        let bundle = [&cross, old.certificate(), new.certificate()].map(certificate_to_pem);
        let read = Ca::from_pem(&bundle.concat(), &new.key_pem()).unwrap();
        assert_eq!(read.certificate(), new.certificate(), "not the other's word for it");
        let without = [&cross, old.certificate()].map(certificate_to_pem).concat();
        let result = Ca::from_pem(&without, &new.key_pem());
        assert!(matches!(result, Err(CaError::Mismatch)), "{result:?}");
    }

    #[test]
    fn the_key_never_prints() {
        let ca = ca();
        assert_eq!(format!("{ca:?}"), format!("Ca({})", ca.pin()));
    }
}
