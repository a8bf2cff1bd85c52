//! A private key for TLS, made on the machine that uses it. It never leaves in a message: what
//! goes out is a signing request.

use std::{fmt, sync::Arc};

use rcgen::{CertificateParams, DistinguishedName, PublicKeyData as _};
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};
use wattle_model::Fingerprint;
use zeroize::Zeroizing;

use crate::{CsrKey, provider};

/// A key pair (ECDSA P-256) of an agent, an operator or a replica. `Debug` shows which, never what.
pub struct KeyPair {
    key: rcgen::KeyPair,
}

/// Text that isn't a private key. It never repeats the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a private key in PEM")]
pub struct InvalidKeyPair;

impl KeyPair {
    /// Makes a new one.
    ///
    /// # Panics
    /// Where the machine has no source of randomness.
    pub fn generate() -> Self {
        Self { key: rcgen::KeyPair::generate().expect("the machine has randomness") }
    }

    /// Reads what [`KeyPair::to_pem`] wrote.
    pub fn from_pem(pem: &str) -> Result<Self, InvalidKeyPair> {
        rcgen::KeyPair::from_pem(pem).map(|key| Self { key }).map_err(|_| InvalidKeyPair)
    }

    /// The secret as text, for a file that only its owner can read.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.key.serialize_pem())
    }

    /// A signing request (PKCS #10, DER) that says nothing but the public key.
    ///
    /// # Panics
    /// Where signing fails, which it can't with a key that was made or read here.
    pub fn csr(&self) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&self.key).expect("a sound key signs");
        csr.der().to_vec()
    }

    /// The public half, for a certificate that needs no request: a replica's own.
    ///
    /// # Panics
    /// Never: a key that was made or read here is of a kind that certificates may have.
    pub fn csr_key(&self) -> CsrKey {
        CsrKey::from_spki(&self.key.subject_public_key_info()).expect("our own keys are sound")
    }

    /// SHA-256 of the public key's SPKI.
    pub fn fingerprint(&self) -> Fingerprint {
        provider::fingerprint(&self.key.subject_public_key_info())
    }

    /// What TLS presents: a chain whose first certificate has this key.
    pub(crate) fn certified(
        &self,
        chain: Vec<CertificateDer<'static>>,
    ) -> Result<Arc<CertifiedKey>, rustls::Error> {
        let key = PrivatePkcs8KeyDer::from(self.key.serialized_der().to_vec());
        CertifiedKey::from_der(chain, PrivateKeyDer::from(key), &provider::provider()).map(Arc::new)
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_and_never_print() {
        let key = KeyPair::generate();
        let pem = key.to_pem();
        assert_eq!(KeyPair::from_pem(&pem).unwrap().fingerprint(), key.fingerprint());
        assert_eq!(format!("{key:?}"), format!("KeyPair({})", key.fingerprint()));
        assert_eq!(KeyPair::from_pem(&pem[..pem.len() / 2]).unwrap_err(), InvalidKeyPair);
    }
}
