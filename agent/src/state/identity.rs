//! Who this machine is in the mesh: its keys, its certificate, and what it needs to find and know
//! the control plane. One file, readable by its owner alone.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use wattle_certs::{KeyPair, TrustDomain};
use wattle_model::{NodeId, PrivateKey};

use super::{StateDir, StateError, key_material, secrets::KeptSecrets, text};
use crate::settings::Settings;

/// A node's identity. Its `Debug` shows no key: each key's own type sees to that.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Given at enrolment; never reused.
    #[serde(with = "text")]
    pub(crate) node_id: NodeId,
    /// Whose certificates count.
    #[serde(with = "text")]
    pub(crate) trust_domain: TrustDomain,
    /// What the control plane last said of this node.
    #[serde(flatten)]
    pub(crate) settings: Settings,
    /// The node was deleted: nothing here is good any more, and only a person enrols it again.
    #[serde(default)]
    pub(crate) deleted: bool,
    /// This node's certificate.
    #[serde(with = "key_material::certificate")]
    pub(crate) certificate: CertificateDer<'static>,
    /// Root certificates that replicas are checked against.
    #[serde(with = "key_material::certificates")]
    pub(crate) ca_certificates: Vec<CertificateDer<'static>>,
    /// The certificate's key.
    #[serde(with = "key_material::tls_key")]
    pub(crate) tls_key: Arc<KeyPair>,
    /// The device's key.
    #[serde(with = "key_material::wireguard_key")]
    pub(crate) wireguard_key: PrivateKey,
    /// The key that the device will have next: kept before anybody hears of it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "key_material::wireguard_key::option"
    )]
    pub(crate) next_wireguard_key: Option<PrivateKey>,
    /// What its preshared keys are derived of.
    #[serde(default)]
    pub(crate) secrets: KeptSecrets,
}

/// Keys made for an enrolment that may not have been answered yet. Kept before the request goes
/// out, so that repeating it after a crash asks for the same node again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Pending {
    /// The token that the keys were first used with: with another one, new keys are made.
    #[serde(with = "text")]
    pub(crate) token: wattle_model::TokenId,
    /// The certificate's key.
    #[serde(with = "key_material::tls_key")]
    pub(crate) tls_key: Arc<KeyPair>,
    /// The device's key.
    #[serde(with = "key_material::wireguard_key")]
    pub(crate) wireguard_key: PrivateKey,
}

/// The identity of a running agent: whoever changes it does so here, one at a time and on disk
/// first; everybody else reads.
#[derive(Debug, Clone)]
pub(crate) struct SharedIdentity {
    state: Arc<StateDir>,
    present: watch::Sender<Arc<Identity>>,
    writer: Arc<Mutex<()>>,
}

impl SharedIdentity {
    /// Shares what the file holds.
    pub(crate) fn new(state: Arc<StateDir>, identity: Identity) -> Self {
        let present = watch::Sender::new(Arc::new(identity));
        Self { state, present, writer: Arc::default() }
    }

    /// The identity as it is now.
    pub(crate) fn get(&self) -> Arc<Identity> {
        self.present.borrow().clone()
    }

    /// Tells of every change.
    pub(crate) fn changes(&self) -> watch::Receiver<Arc<Identity>> {
        self.present.subscribe()
    }

    /// Changes the identity, on disk and then for all readers; nothing is written where nothing
    /// changes. Blocks on the disk for some milliseconds, a few times in the life of a certificate.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Identity)) -> Result<(), StateError> {
        let _one_at_a_time = self.writer.lock();
        let before = self.get();
        let mut identity = Identity::clone(&before);
        change(&mut identity);
        if identity.same_file(&before) {
            return Ok(());
        }
        self.state.save_identity(&identity)?;
        self.present.send_replace(Arc::new(identity));
        Ok(())
    }
}

impl Identity {
    /// Whether both write the same file. The certificate's key never changes without it.
    fn same_file(&self, other: &Self) -> bool {
        self.node_id == other.node_id
            && self.settings == other.settings
            && self.deleted == other.deleted
            && self.certificate == other.certificate
            && self.ca_certificates == other.ca_certificates
            && self.wireguard_key == other.wireguard_key
            && self.next_wireguard_key == other.next_wireguard_key
            && self.secrets == other.secrets
    }
}
