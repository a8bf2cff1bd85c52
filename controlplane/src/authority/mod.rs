//! The certificate authority as a running replica has it: which roots count, and which one it signs
//! with.
//!
//! The roots are the store's, the signing key is a file's, and both may change while the replica
//! serves: [`follow`] looks at them, everybody else reads [`Authority::now`] and may wait for the
//! next change.

mod files;
pub mod follow;
mod roots;

use std::sync::Arc;

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wattle_certs::{Ca, TrustedRoots};
use wattle_model::Fingerprint;

use crate::stream::Sessions;

pub use self::{
    files::{CaFileError, CaFiles},
    roots::{InvalidRoots, Roots},
};

/// What holds now: the store's roots, and the one of them that this replica has the key of.
#[derive(Debug, Clone)]
pub struct Trust {
    /// Signs certificates.
    pub ca: Arc<Ca>,
    /// The store's roots.
    pub roots: Roots,
    /// The roots that count, DER, as everybody is told them: the one that signs comes first.
    pub told: Vec<Bytes>,
}

impl Trust {
    /// One of the roots, with its key.
    pub fn new(ca: Arc<Ca>, roots: Roots) -> Self {
        let told = roots.told().map(|root| Bytes::copy_from_slice(root)).collect();
        Self { ca, roots, told }
    }

    /// What this replica presents after its own certificate: its root, which a machine that joins
    /// compares with its token's pin, and what older roots say of it.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.roots.chain(self.ca.certificate())
    }

    /// The root that a new join token names: the oldest that still counts and leads to what this
    /// replica presents. While replicas with the old key and with the new one run side by side, it
    /// is the one that all of them can prove.
    pub fn token_pin(&self) -> Fingerprint {
        let chain = self.chain();
        let presented = |root: &&CertificateDer<'static>| chain.contains(*root);
        let oldest = self.roots.trusted().iter().find(presented);
        let pin = oldest.and_then(|root| wattle_certs::Root::of(root).ok());
        pin.map_or_else(|| self.ca.pin(), |root| root.pin)
    }

    fn same(&self, other: &Self) -> bool {
        self.ca.pin() == other.ca.pin() && self.roots == other.roots
    }
}

/// Has every connected agent told of each change, until told to end.
pub async fn tell(
    mut changes: watch::Receiver<Arc<Trust>>,
    sessions: Sessions,
    end: CancellationToken,
) {
    while let Some(Ok(())) = end.run_until_cancelled(changes.changed()).await {
        sessions.reconfigure();
    }
}

/// A handle on what holds. Clones are one.
#[derive(Clone)]
pub struct Authority {
    present: Arc<watch::Sender<Arc<Trust>>>,
    tls: Arc<TrustedRoots>,
}

impl Authority {
    /// Begins with what was found at start.
    pub fn new(trust: Trust) -> Result<Self, rustls::Error> {
        let tls = TrustedRoots::new(trust.roots.trusted())?;
        Ok(Self { present: Arc::new(watch::Sender::new(Arc::new(trust))), tls })
    }

    /// What holds now.
    pub fn now(&self) -> Arc<Trust> {
        self.present.borrow().clone()
    }

    /// Tells of every change.
    pub fn changes(&self) -> watch::Receiver<Arc<Trust>> {
        self.present.subscribe()
    }

    /// The roots that handshakes go by.
    pub fn trusted(&self) -> Arc<TrustedRoots> {
        self.tls.clone()
    }

    /// Puts in what holds from now on; says whether that is something else.
    fn replace(&self, trust: Trust) -> Result<bool, rustls::Error> {
        if self.now().same(&trust) {
            return Ok(false);
        }
        self.tls.replace(trust.roots.trusted())?;
        self.present.send_replace(Arc::new(trust));
        Ok(true)
    }
}
