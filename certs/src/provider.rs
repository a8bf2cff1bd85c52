//! The one source of cryptography for TLS: aws-lc-rs, which prefers the post-quantum hybrid key
//! exchange X25519MLKEM768. Named explicitly, so that no dependency's choice becomes ours.

use std::sync::{Arc, LazyLock};

use rustls::{SupportedProtocolVersion, crypto::CryptoProvider};
use wattle_model::Fingerprint;

static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));

/// TLS 1.3 alone.
pub(crate) const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// HTTP/2 alone.
pub(crate) const ALPN: &[u8] = b"h2";

pub(crate) fn provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
}

/// SHA-256 of a SubjectPublicKeyInfo.
pub(crate) fn fingerprint(spki: &[u8]) -> Fingerprint {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, spki);
    Fingerprint::try_from(digest.as_ref()).expect("SHA-256 has 32 bytes")
}
