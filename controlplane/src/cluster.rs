//! What makes a store a control plane's: epoch, trust domain, schema version and CA bundle, made
//! together on the first start and found as they were on every later one.
//!
//! The CA's private key isn't in the store. It lies in a file, is made before the store's record
//! that names it, and is never overwritten.

use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;
use prost::Message as _;
use wattle_certs::{Ca, InvalidTrustDomain, TrustDomain};
use wattle_model::{Epoch, InvalidId, Mode, NetworkName};
use wattle_proto::{
    record::{NetworkBody, encode_first},
    store as proto,
};
use wattle_runtime::clock::unix_millis;

use crate::{
    authority::{CaFileError, CaFiles, InvalidRoots, Roots, Trust},
    store::{Outcome, Store, StoreError, Stored, Transaction, keys},
};

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
    /// Its roots, and the one that this replica signs with.
    pub trust: Trust,
}

/// Why a store and the CA's files don't make a control plane.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The store can't be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The CA's files can't be used.
    #[error(transparent)]
    Files(#[from] CaFileError),
    /// Somebody is moving another store's records here, or began to.
    #[error(
        "records from {0} are half-way into this store: finish that first, by giving the same \
         command again"
    )]
    Moving(String),
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
    files: &CaFiles,
    now: SystemTime,
) -> Result<Cluster, ClusterError> {
    match find(store, files).await? {
        Some(found) => Ok(found),
        None => begin(store, files, now).await,
    }
}

/// The control plane that the store holds, if it holds one.
pub async fn find(store: &dyn Store, files: &CaFiles) -> Result<Option<Cluster>, ClusterError> {
    if let Some(moving) = store.get(&keys::moving()).await? {
        let from = proto::Moving::decode(moving.value).map(|moving| moving.from);
        return Err(ClusterError::Moving(from.unwrap_or_else(|_| "another store".into())));
    }
    match store.get(&keys::cluster()).await? {
        Some(stored) => found(store, files, &stored).await.map(Some),
        None => Ok(None),
    }
}

async fn begin(
    store: &dyn Store,
    files: &CaFiles,
    now: SystemTime,
) -> Result<Cluster, ClusterError> {
    let (made, new) = make(files, now)?;
    match store.commit(first_transaction(&made, now)).await? {
        Outcome::Committed(revision) => {
            tracing::info!(trust_domain = %made.trust_domain, %revision, "new control plane");
            Ok(made)
        }
        // Another replica was faster: its CA counts, and ours has never signed anything.
        Outcome::Conflict => {
            if new {
                files.discard();
            }
            match store.get(&keys::cluster()).await? {
                Some(stored) => found(store, files, &stored).await,
                None => Err(malformed(keys::cluster(), "missing, and other records are there")),
            }
        }
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
    let roots = Roots::read(&record).map_err(|e: InvalidRoots| bad(e.to_string()))?;
    let ca = Arc::new(files.read_key_of(roots.trusted())?);
    Ok(Cluster { epoch, trust_domain, trust: Trust::new(ca, roots) })
}

/// A new control plane, and whether its CA was made just now. A CA that is there without a record in
/// the store is what `ca init` or an interrupted first start leaves.
fn make(files: &CaFiles, now: SystemTime) -> Result<(Cluster, bool), ClusterError> {
    let found = files.read()?;
    let trust_domain = found.as_ref().and_then(|ca| ca.root().trust_domain());
    let trust_domain = trust_domain.unwrap_or_else(random_trust_domain);
    let new = found.is_none();
    let ca = match found {
        Some(ca) => ca,
        None => {
            let ca = Ca::generate(&trust_domain, now);
            files.create(&ca)?;
            ca
        }
    };
    let roots = Roots::only(ca.certificate(), ca.pin());
    let trust = Trust::new(Arc::new(ca), roots);
    Ok((Cluster { epoch: Epoch::new(rand::random()), trust_domain, trust }, new))
}

/// A trust domain that nobody else has.
pub fn random_trust_domain() -> TrustDomain {
    let text = format!("{}.wattle.internal", hex::encode(rand::random::<[u8; 8]>()));
    text.parse().expect("hex and dots are a trust domain")
}

fn first_transaction(made: &Cluster, now: SystemTime) -> Transaction {
    let mut cluster = proto::Cluster {
        trust_domain: made.trust_domain.to_string(),
        schema_version: SCHEMA_VERSION,
        ..Default::default()
    };
    made.trust.roots.write(&mut cluster);
    let network: NetworkName = DEFAULT_NETWORK.parse().expect("it is a name");
    let body = NetworkBody {
        created_at_millis: unix_millis(now),
        ipv4_range: DEFAULT_IPV4_RANGE.into(),
        ipv6_range: random_ula(),
        mode: Mode::Mesh,
        key_rotation_seconds: 0,
        mtu: None,
        preshared_keys: false,
    };
    Transaction::default()
        .as_read(keys::moving(), None)
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
