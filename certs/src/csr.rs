//! Signing requests. The public key is all that is ever taken from one: what else it asks for
//! (subject, names, CA:true, usages) isn't even looked at. rcgen's own reading of requests copies
//! those into the certificate, so it is not used.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, UnparsedPublicKey,
    VerificationAlgorithm,
};
use rcgen::{
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData as _,
    SubjectPublicKeyInfo,
};
use wattle_model::Fingerprint;
use x509_parser::{
    certification_request::X509CertificationRequest,
    oid_registry::{OID_SIG_ECDSA_WITH_SHA256, OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ED25519, Oid},
    prelude::FromDer as _,
};

use crate::provider;

/// Larger requests aren't read.
const MAX_BYTES: usize = 8 * 1024;

/// A public key whose holder proved that it has the private one.
#[derive(Clone, PartialEq, Eq)]
pub struct CsrKey {
    pub(crate) key: SubjectPublicKeyInfo,
}

/// Why a signing request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCsr {
    /// Larger than any honest one.
    #[error("a signing request has at most {MAX_BYTES} bytes, got {0}")]
    TooLarge(usize),
    /// Not PKCS #10 in DER.
    #[error("not a signing request (PKCS #10, DER)")]
    Malformed,
    /// A weak or unknown kind of key.
    #[error("the key of a signing request is ECDSA P-256, ECDSA P-384 or Ed25519")]
    Key,
    /// Its signature isn't its key's.
    #[error("the signature of the signing request doesn't match its key")]
    Signature,
}

impl CsrKey {
    /// Checks a request's signature and takes its public key.
    pub fn from_der(der: &[u8]) -> Result<Self, InvalidCsr> {
        if der.len() > MAX_BYTES {
            return Err(InvalidCsr::TooLarge(der.len()));
        }
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|_| InvalidCsr::Malformed)?;
        if !rest.is_empty() {
            return Err(InvalidCsr::Malformed);
        }
        let info = &request.certification_request_info;
        let key = Self::from_spki(info.subject_pki.raw)?;
        let (signed_with, algorithm) = key.signature();
        if request.signature_algorithm.algorithm != signed_with {
            return Err(InvalidCsr::Signature);
        }
        UnparsedPublicKey::new(algorithm, key.key.der_bytes())
            .verify(info.raw, &request.signature_value.data)
            .map_err(|_| InvalidCsr::Signature)?;
        Ok(key)
    }

    /// A key that needs no proof, because it is our own.
    pub(crate) fn from_spki(spki: &[u8]) -> Result<Self, InvalidCsr> {
        let key = SubjectPublicKeyInfo::from_der(spki).map_err(|_| InvalidCsr::Key)?;
        // One key has one encoding, and so one fingerprint: points are uncompressed, and what we
        // would write is what was sent.
        let algorithm = key.algorithm();
        let length =
            [(&PKCS_ECDSA_P256_SHA256, 65), (&PKCS_ECDSA_P384_SHA384, 97), (&PKCS_ED25519, 32)]
                .into_iter()
                .find_map(|(known, length)| (*known == *algorithm).then_some(length));
        if length != Some(key.der_bytes().len()) || key.subject_public_key_info() != spki {
            return Err(InvalidCsr::Key);
        }
        Ok(Self { key })
    }

    /// SHA-256 of the key's SPKI, as in the certificate that will hold it.
    pub fn fingerprint(&self) -> Fingerprint {
        provider::fingerprint(&self.key.subject_public_key_info())
    }

    fn signature(&self) -> (Oid<'static>, &'static dyn VerificationAlgorithm) {
        let algorithm = self.key.algorithm();
        if *algorithm == PKCS_ECDSA_P256_SHA256 {
            (OID_SIG_ECDSA_WITH_SHA256, &ECDSA_P256_SHA256_ASN1)
        } else if *algorithm == PKCS_ECDSA_P384_SHA384 {
            (OID_SIG_ECDSA_WITH_SHA384, &ECDSA_P384_SHA384_ASN1)
        } else {
            (OID_SIG_ED25519, &ED25519)
        }
    }
}

impl fmt::Debug for CsrKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CsrKey({})", self.fingerprint())
    }
}
