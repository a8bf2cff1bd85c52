//! The first operator: whoever can read the control plane's data folder.

use std::{io, path::Path, time::SystemTime};

use bytes::Bytes;
use prost::Message as _;
use rustls::pki_types::CertificateDer;
use wattle_certs::{
    CaError, Identity, InvalidCertificate, KeyPair, SpiffeId, certificate_to_pem,
    certificates_from_pem, peer_identity, root_of,
};
use wattle_model::{OperatorId, OperatorName};
use wattle_proto::store as record;
use wattle_runtime::{
    clock,
    credential::{CredentialError, OperatorCredential, PrivateKeyPem},
};

use super::operators::LIFETIME;
use crate::{
    replica::Replica,
    store::{Outcome, StoreError, Transaction, keys},
};

/// What the first operator is called.
const NAME: &str = "admin";

/// Why there is no first operator.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The store can't be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The CA can't sign.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The file can't be written.
    #[error("writing the credential: {0}")]
    Write(#[from] io::Error),
    /// The file is there and can't be read.
    #[error(transparent)]
    Read(#[from] CredentialError),
    /// The file is there and is somebody else's.
    #[error("the credential there is not of this control plane: move it away and start again")]
    Foreign,
    /// The file's certificate is malformed.
    #[error("the credential there: {0}: move it away and start again")]
    Certificate(#[from] InvalidCertificate),
}

/// Makes the first operator, an administrator, where the store has none yet, and writes the
/// credential to `path`. Says whether it did.
///
/// The file comes first: a start that is interrupted in between finds it and goes on from there.
/// Where the store has or had operators, nothing is done, whether the file is there or not:
/// somebody may have moved it, and one who was revoked must not come back with it.
pub async fn bootstrap_credential(
    replica: &Replica,
    path: &Path,
    now: SystemTime,
) -> Result<bool, BootstrapError> {
    // The records of operators are forgotten some day after their end; the first one's name stays.
    let had_one = replica.store.get(&keys::operator_name(&name())).await?.is_some();
    if had_one || !replica.store.list(&keys::operators(), None, 1).await?.items.is_empty() {
        return Ok(false);
    }
    let credential = match OperatorCredential::load(path) {
        Ok(credential) => credential,
        Err(CredentialError::Read(error)) if error.kind() == io::ErrorKind::NotFound => {
            let credential = make(replica, now)?;
            credential.create(path)?;
            credential
        }
        Err(error) => return Err(error.into()),
    };
    let transaction = first_operator(replica, &credential, now)?;
    // A conflict: another replica that shares the store was faster, and its file counts.
    Ok(matches!(replica.store.commit(transaction).await?, Outcome::Committed(_)))
}

/// The addresses in the first operator's file, where the control plane has none of them any more:
/// it listens elsewhere now. The file is its operator's, who has to correct it.
pub fn stale_addresses(replica: &Replica, path: &Path) -> Option<Vec<String>> {
    let credential = OperatorCredential::load(path).ok()?;
    let all = replica.roster.addresses();
    let there = |address| all.contains(address);
    (!credential.control_planes.iter().any(there)).then_some(credential.control_planes)
}

fn make(replica: &Replica, now: SystemTime) -> Result<OperatorCredential, BootstrapError> {
    let (id, key) = (OperatorId::new(rand::random()), KeyPair::generate());
    let trust_domain = replica.trust_domain.clone();
    let spiffe = SpiffeId { trust_domain, identity: Identity::Operator(id) };
    let trust = replica.authority.now();
    let certificate = trust.ca.issue(&spiffe, &key.csr_key(), LIFETIME, now)?;
    Ok(OperatorCredential {
        control_planes: replica.roster.addresses().to_vec(),
        trust_domain: replica.trust_domain.to_string(),
        ca_certificates: trust.roots.told().map(certificate_to_pem).collect(),
        certificate: certificate_to_pem(&certificate),
        private_key: PrivateKeyPem::new(key.to_pem()),
        name: name(),
        id,
    })
}

/// The record of whoever has the credential's certificate.
fn first_operator(
    replica: &Replica,
    credential: &OperatorCredential,
    now: SystemTime,
) -> Result<Transaction, BootstrapError> {
    let certificates = certificates_from_pem(&credential.certificate)?;
    let leaf: &CertificateDer<'_> = certificates.first().ok_or(InvalidCertificate::Pem)?;
    let peer = peer_identity(leaf)?;
    let trust = replica.authority.now();
    let root = root_of(leaf, trust.roots.trusted());
    let ours = peer.id.trust_domain == replica.trust_domain
        && peer.id.identity == Identity::Operator(credential.id);
    let Some(root) = root.filter(|_| ours) else { return Err(BootstrapError::Foreign) };
    let operator = record::Operator {
        name: name().to_string(),
        role: record::Role::Admin.into(),
        fingerprint: Bytes::copy_from_slice(peer.fingerprint.as_bytes()),
        created_at_millis: clock::unix_millis(now),
        expires_at_millis: clock::unix_millis(peer.not_after),
        revoked: false,
        root: Bytes::copy_from_slice(root.as_bytes()),
    };
    let id = Bytes::copy_from_slice(credential.id.as_bytes());
    Ok(Transaction::default()
        .create(keys::operator(credential.id), operator.encode_to_vec().into())
        .create(keys::operator_name(&name()), id))
}

fn name() -> OperatorName {
    NAME.parse().expect("it is a name")
}
