//! What makes a store a control plane's: epoch, trust domain, schema version and CA bundle, made
//! together on the first start and found as they were on every later one.
//!
//! The CA's private key isn't in the store. It lies in the data directory, is made before the
//! store's record that names it, and is never overwritten.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use bytes::Bytes;
use prost::Message as _;
use rustls::pki_types::CertificateDer;
use wattle_certs::{Ca, CaError, InvalidTrustDomain, TrustDomain, certificate_to_pem};
use wattle_model::{Epoch, InvalidId, Mode, NetworkName};
use wattle_proto::{
    record::{NetworkBody, encode_first},
    store as proto,
};
use wattle_runtime::{clock::unix_millis, files};
use zeroize::Zeroizing;

use crate::store::{Outcome, Store, StoreError, Stored, Transaction, keys};

/// How keys and values are laid out. A replica that knows another one must not touch them.
const SCHEMA_VERSION: u32 = 1;
/// The network that is there from the start.
const DEFAULT_NETWORK: &str = "default";
const DEFAULT_IPV4_RANGE: &str = "10.90.0.0/16";

/// A control plane's names and its authority.
#[derive(Debug)]
pub struct Cluster {
    /// The store's identity.
    pub epoch: Epoch,
    /// The name in every certificate.
    pub trust_domain: TrustDomain,
    /// Signs certificates.
    pub ca: Ca,
    /// The certificates to trust.
    pub roots: Vec<CertificateDer<'static>>,
}

/// Why a store and a data directory don't make a control plane.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The store can't be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The CA's files can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the CA holds something else.
    #[error("{}: {source}: put back a copy of the file", path.display())]
    Ca {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: CaError,
    },
    /// The key is there, and isn't the store's.
    #[error(
        "{} belongs to none of the store's CA certificates: copy the file from the replica that made the store, or start with an empty data directory",
        .0.display()
    )]
    ForeignKey(PathBuf),
    /// The store was written by another version.
    #[error(
        "the store has schema version {found}, this control plane reads version {SCHEMA_VERSION}: run the version that wrote it"
    )]
    Schema {
        /// The version found.
        found: u32,
    },
    /// The store's own record can't be read.
    #[error("{key}: {what}: put back a copy of the store")]
    Malformed {
        /// Which record.
        key: crate::store::Key,
        /// What is wrong with it.
        what: String,
    },
}

/// Finds the control plane that the store holds, or makes one in an empty store.
pub async fn open(
    store: &dyn Store,
    data_dir: &Path,
    now: SystemTime,
) -> Result<Cluster, ClusterError> {
    let files = CaFiles::of(data_dir);
    if let Some(stored) = store.get(&keys::cluster()).await? {
        return found(store, &files, &stored).await;
    }
    let made = make(&files, now)?;
    match store.commit(first_transaction(&made, now)).await? {
        Outcome::Committed(revision) => {
            tracing::info!(trust_domain = %made.trust_domain, %revision, "new control plane");
            Ok(made)
        }
        // Another replica was faster.
        Outcome::Conflict => match store.get(&keys::cluster()).await? {
            Some(stored) => found(store, &files, &stored).await,
            None => Err(malformed(keys::cluster(), "missing, and other records are there")),
        },
    }
}

async fn found(
    store: &dyn Store,
    files: &CaFiles,
    stored: &Stored,
) -> Result<Cluster, ClusterError> {
    let bad = |what: String| malformed(keys::cluster(), what);
    let record = proto::Cluster::decode(stored.value.clone()).map_err(|e| bad(e.to_string()))?;
    if record.schema_version != SCHEMA_VERSION {
        return Err(ClusterError::Schema { found: record.schema_version });
    }
    let trust_domain =
        record.trust_domain.parse().map_err(|e: InvalidTrustDomain| bad(e.to_string()))?;
    let epoch = store.get(&keys::epoch()).await?;
    let epoch = epoch.ok_or_else(|| malformed(keys::epoch(), "missing"))?;
    let epoch = Epoch::try_from(epoch.value.as_ref())
        .map_err(|error: InvalidId| malformed(keys::epoch(), error))?;
    let roots: Vec<_> =
        record.ca_certificates.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    let ca = files.read_key_of(&roots)?;
    Ok(Cluster { epoch, trust_domain, ca, roots })
}

fn make(files: &CaFiles, now: SystemTime) -> Result<Cluster, ClusterError> {
    let trust_domain = format!("{}.wattle.internal", hex::encode(rand::random::<[u8; 8]>()));
    let trust_domain = trust_domain.parse().expect("hex and dots are a trust domain");
    // A key without a record in the store is what an interrupted first start leaves.
    let ca = match files.read()? {
        Some(ca) => ca,
        None => files.create(Ca::generate(&trust_domain, now))?,
    };
    let roots = vec![ca.certificate().clone()];
    Ok(Cluster { epoch: Epoch::new(rand::random()), trust_domain, ca, roots })
}

fn first_transaction(made: &Cluster, now: SystemTime) -> Transaction {
    let cluster = proto::Cluster {
        trust_domain: made.trust_domain.to_string(),
        schema_version: SCHEMA_VERSION,
        ca_certificates: made.roots.iter().map(|der| Bytes::copy_from_slice(der)).collect(),
    };
    let network: NetworkName = DEFAULT_NETWORK.parse().expect("it is a name");
    let body = NetworkBody {
        created_at_millis: unix_millis(now),
        ipv4_range: DEFAULT_IPV4_RANGE.into(),
        ipv6_range: random_ula(),
        mode: Mode::Mesh,
    };
    Transaction::default()
        .create(keys::epoch(), Bytes::copy_from_slice(made.epoch.as_bytes()))
        .create(keys::cluster(), cluster.encode_to_vec().into())
        .create(keys::horizon(), proto::Horizon::default().encode_to_vec().into())
        .create(keys::ranges(), DEFAULT_NETWORK.into())
        .create(keys::network(&network), encode_first(&body))
}

/// The first /64 of a random /48 of locally assigned addresses, as RFC 4193 has it.
fn random_ula() -> String {
    let [a, b, c, d, e] = rand::random::<[u8; 5]>();
    let prefix = std::net::Ipv6Addr::from([0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    format!("{prefix}/64")
}

fn malformed(key: crate::store::Key, what: impl ToString) -> ClusterError {
    ClusterError::Malformed { key, what: what.to_string() }
}

/// The file of the CA's private key in the data directory.
pub fn ca_key(data_dir: &Path) -> PathBuf {
    data_dir.join("ca.key")
}

/// The CA's certificate and private key in the data directory.
struct CaFiles {
    certificate: PathBuf,
    key: PathBuf,
}

impl CaFiles {
    fn of(data_dir: &Path) -> Self {
        Self { certificate: data_dir.join("ca.crt"), key: ca_key(data_dir) }
    }

    /// The authority whose key is in the file and whose certificate is one of `roots`.
    fn read_key_of(&self, roots: &[CertificateDer<'static>]) -> Result<Ca, ClusterError> {
        let key = Zeroizing::new(read(&self.key)?);
        for root in roots {
            match Ca::from_pem(&certificate_to_pem(root), &key) {
                Ok(ca) => return Ok(ca),
                Err(CaError::Mismatch) => {}
                Err(source) => return Err(ClusterError::Ca { path: self.key.clone(), source }),
            }
        }
        Err(ClusterError::ForeignKey(self.key.clone()))
    }

    /// The authority in the files, if there is a key.
    fn read(&self) -> Result<Option<Ca>, ClusterError> {
        if !self.key.exists() {
            return Ok(None);
        }
        let (certificate, key) = (read(&self.certificate)?, Zeroizing::new(read(&self.key)?));
        let ca = Ca::from_pem(&certificate, &key);
        ca.map(Some).map_err(|source| ClusterError::Ca { path: self.key.clone(), source })
    }

    /// The certificate first: a key that is there has its certificate beside it.
    fn create(&self, ca: Ca) -> Result<Ca, ClusterError> {
        let file = |path: &Path| {
            let path = path.to_owned();
            move |source| ClusterError::File { path, source }
        };
        let certificate = certificate_to_pem(ca.certificate());
        files::write_private(&self.certificate, certificate.as_bytes())
            .map_err(file(&self.certificate))?;
        files::create_private(&self.key, ca.key_pem().as_bytes()).map_err(file(&self.key))?;
        Ok(ca)
    }
}

fn read(path: &Path) -> Result<String, ClusterError> {
    fs::read_to_string(path).map_err(|source| ClusterError::File { path: path.to_owned(), source })
}
