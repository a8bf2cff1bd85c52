//! The replica's own certificate: made at start with a key that never leaves the process, and made
//! anew when two thirds of its life are over.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;
use wattle_certs::{Ca, CaError, Identity, KeyPair, ReplicaCertificate, SpiffeId, TrustDomain};
use wattle_model::ReplicaId;
use wattle_runtime::clock::{self, Looks};

/// The wall clock is looked at this often at least: sleep doesn't count the time that the machine
/// was suspended.
const LOOK: Duration = Duration::from_secs(60);

/// Issues a replica's certificate to itself.
pub struct OwnCertificate {
    ca: Arc<Ca>,
    id: SpiffeId,
    lifetime: Duration,
    presented: Arc<ReplicaCertificate>,
    issued: SystemTime,
}

impl OwnCertificate {
    /// Makes the first one.
    pub fn issue(
        ca: Arc<Ca>,
        trust_domain: TrustDomain,
        replica: ReplicaId,
        lifetime: Duration,
    ) -> anyhow::Result<Self> {
        let id = SpiffeId { trust_domain, identity: Identity::Replica(replica) };
        let (key, issued) = (KeyPair::generate(), clock::now());
        let presented = ReplicaCertificate::new(chain(&ca, &id, &key, lifetime, issued)?, &key)?;
        Ok(Self { ca, id, lifetime, presented, issued })
    }

    /// What TLS presents, now and after each renewal.
    pub fn presented(&self) -> Arc<ReplicaCertificate> {
        self.presented.clone()
    }

    /// Renews it until told to end.
    pub async fn keep(mut self, end: CancellationToken) {
        let look = LOOK.min(self.lifetime / 12);
        let mut looks = Looks::begin();
        while end.run_until_cancelled(looks.next(look)).await.is_some() {
            let age = clock::now().duration_since(self.issued).unwrap_or_default();
            if age < self.lifetime * 2 / 3 {
                continue;
            }
            match self.renew() {
                Ok(()) => tracing::info!("own certificate renewed"),
                Err(error) => tracing::error!(%error, "own certificate not renewed"),
            }
        }
    }

    fn renew(&mut self) -> anyhow::Result<()> {
        let (key, now) = (KeyPair::generate(), clock::now());
        let chain = chain(&self.ca, &self.id, &key, self.lifetime, now)?;
        self.presented.replace(chain, &key)?;
        self.issued = now;
        Ok(())
    }
}

/// The certificate and the root: a machine that joins compares the root with its token's pin.
fn chain(
    ca: &Ca,
    id: &SpiffeId,
    key: &KeyPair,
    lifetime: Duration,
    now: SystemTime,
) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let certificate = ca.issue(id, &key.csr_key(), lifetime, now)?;
    Ok(vec![certificate, ca.certificate().clone()])
}
