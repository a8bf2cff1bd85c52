//! TLS as etcd speaks it: ordinary names and roots, for its certificates aren't ours.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::provider::{ALPN, provider};

/// A PEM text that doesn't do; which one.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEtcdTls {
    /// The certificates that etcd's is to be verified with.
    #[error("the CA: {0}")]
    Roots(String),
    /// The client's certificate.
    #[error("the certificate: {0}")]
    Certificate(String),
    /// The client's key.
    #[error("the key: {0}")]
    Key(String),
    /// Certificate and key don't make a client.
    #[error("certificate and key: {0}")]
    Pair(rustls::Error),
}

/// TLS to an etcd whose certificate one of `roots` signed. `credential` is the client's certificate
/// with its chain, and its key.
pub fn etcd_client_config(
    roots: &str,
    credential: Option<(&str, &str)>,
) -> Result<ClientConfig, InvalidEtcdTls> {
    let mut trusted = RootCertStore::empty();
    for root in certificates(roots).map_err(InvalidEtcdTls::Roots)? {
        trusted.add(root).map_err(|error| InvalidEtcdTls::Roots(error.to_string()))?;
    }
    // etcd is built with Go, which has TLS 1.3; so no older one is spoken.
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(crate::provider::VERSIONS)
        .map_err(InvalidEtcdTls::Pair)?
        .with_root_certificates(Arc::new(trusted));
    let mut config = match credential {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate).map_err(InvalidEtcdTls::Certificate)?;
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
                .map_err(|error| InvalidEtcdTls::Key(error.to_string()))?;
            builder.with_client_auth_cert(chain, key).map_err(InvalidEtcdTls::Pair)?
        }
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err("no certificate in it".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
