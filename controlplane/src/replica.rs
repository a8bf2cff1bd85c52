//! What every service of one replica shares: who it is, its store, its view and its authority.
//! `app` makes it once at start; nothing in it changes but what is behind the store, the view and the
//! authority.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::pki_types::CertificateDer;
use wattle_certs::{Ca, TrustDomain};
use wattle_model::ReplicaId;

use crate::{
    authority::Authority,
    replicas::Roster,
    store::{Store, feed::Live},
};

/// One control-plane process.
pub struct Replica {
    /// Its own id, new at every start.
    pub id: ReplicaId,
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// What agents may see, kept at the store's head.
    pub live: Live,
    /// Signs certificates, and says which count.
    pub authority: Authority,
    /// The control plane's name in every certificate.
    pub trust_domain: TrustDomain,
    /// Where agents reach this replica, `host:port`.
    pub advertised: Vec<String>,
    /// The other replicas, and where agents reach any of them.
    pub roster: Roster,
    /// How long a node's or a replica's certificate lives.
    pub certificate_lifetime: Duration,
    /// When the process began.
    pub started: SystemTime,
}

/// Addresses in a join token: it is pasted by people.
const IN_TOKEN: usize = 8;

impl Replica {
    /// Where a machine that joins finds the control plane: this replica first, then others.
    pub fn token_addresses(&self) -> Vec<String> {
        let all = self.roster.addresses();
        let others = all.iter().filter(|address| !self.advertised.contains(address));
        self.advertised.iter().chain(others).take(IN_TOKEN).cloned().collect()
    }

    /// Signs certificates now.
    pub fn ca(&self) -> Arc<Ca> {
        self.authority.now().ca.clone()
    }

    /// The roots that count now.
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        self.authority.now().roots.trusted().to_vec()
    }
}
