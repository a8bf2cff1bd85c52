//! Certificates: the CA, what it issues to whom, and the TLS configurations built on both.
//!
//! The only user of rcgen, and the only place that decides whether a certificate is good. From a
//! signing request it takes the public key and nothing else. It does no I/O; whether the record
//! behind a certificate still lives is the control plane's to say.

mod ca;
mod client;
mod csr;
mod etcd;
mod key_pair;
mod peer_certificate;
mod provider;
mod root;
mod server;
mod spiffe;
mod verify;

pub use ca::{Ca, CaError};
pub use client::{client_config, pinned_client_config};
pub use csr::{CsrKey, InvalidCsr};
pub use etcd::{InvalidEtcdTls, etcd_client_config};
pub use key_pair::{InvalidKeyPair, KeyPair};
pub use peer_certificate::{InvalidCertificate, PeerCertificate, peer_identity};
pub use root::{Root, root_of};
pub use server::{ReplicaCertificate, TrustedRoots, following_server_config, server_config};
pub use spiffe::{Identity, InvalidSpiffeId, InvalidTrustDomain, SpiffeId, TrustDomain};
pub use verify::{Untrusted, explain};

use pem::{EncodeConfig, LineEnding, Pem};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

/// A certificate as PEM text.
pub fn certificate_to_pem(certificate: &CertificateDer<'_>) -> String {
    let lines = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new("CERTIFICATE", certificate.as_ref()), lines)
}

/// Every certificate in a PEM text; an error where there is none or one is malformed.
pub fn certificates_from_pem(
    pem: &str,
) -> Result<Vec<CertificateDer<'static>>, InvalidCertificate> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(InvalidCertificate::Pem),
    }
}
