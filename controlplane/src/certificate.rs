//! The replica's own certificate: made at start with a key that never leaves the process, and made
//! anew when two thirds of its life are over or another root signs.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wattle_certs::{CaError, Identity, KeyPair, ReplicaCertificate, SpiffeId, TrustDomain};
use wattle_model::ReplicaId;
use wattle_runtime::clock::{self, Looks};

use crate::authority::{Authority, Trust};

/// The wall clock is looked at this often at least: sleep doesn't count the time that the machine
/// was suspended.
const LOOK: Duration = Duration::from_secs(60);

/// Issues a replica's certificate to itself.
pub struct OwnCertificate {
    trust: watch::Receiver<Arc<Trust>>,
    id: SpiffeId,
    lifetime: Duration,
    presented: Arc<ReplicaCertificate>,
    issued: SystemTime,
}

impl OwnCertificate {
    /// Makes the first one.
    pub fn issue(
        authority: &Authority,
        trust_domain: TrustDomain,
        replica: ReplicaId,
        lifetime: Duration,
    ) -> anyhow::Result<Self> {
        let id = SpiffeId { trust_domain, identity: Identity::Replica(replica) };
        let (key, issued, mut trust) = (KeyPair::generate(), clock::now(), authority.changes());
        let chain = chain(&trust.borrow_and_update(), &id, &key, lifetime, issued)?;
        let presented = ReplicaCertificate::new(chain, &key)?;
        Ok(Self { trust, id, lifetime, presented, issued })
    }

    /// What TLS presents, now and after each renewal.
    pub fn presented(&self) -> Arc<ReplicaCertificate> {
        self.presented.clone()
    }

    /// Renews it until told to end.
    pub async fn keep(mut self, end: CancellationToken) {
        let look = LOOK.min(self.lifetime / 12);
        let mut looks = Looks::begin();
        loop {
            let changed = tokio::select! {
                () = end.cancelled() => return,
                // The sender may be gone: then nothing changes any more.
                Ok(()) = self.trust.changed() => true,
                () = looks.next(look) => false,
            };
            if !changed && !due(self.issued, self.lifetime, clock::now()) {
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
        let trust = self.trust.borrow_and_update().clone();
        let chain = chain(&trust, &self.id, &key, self.lifetime, now)?;
        self.presented.replace(chain, &key)?;
        self.issued = now;
        Ok(())
    }
}

/// Whether it is time for another one: two thirds of its life are over, or the clock was set back
/// and whoever has the right time doesn't believe it yet.
fn due(issued: SystemTime, lifetime: Duration, now: SystemTime) -> bool {
    now.duration_since(issued).map_or(true, |age| age >= lifetime * 2 / 3)
}

/// The certificate and what leads from it to every root that somebody may know: a machine that joins
/// compares those with its token's pin.
fn chain(
    trust: &Trust,
    id: &SpiffeId,
    key: &KeyPair,
    lifetime: Duration,
    now: SystemTime,
) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let certificate = trust.ca.issue(id, &key.csr_key(), lifetime, now)?;
    Ok([vec![certificate], trust.chain()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_is_due_late_in_its_life_and_when_the_clock_was_set_back() {
        let hour = Duration::from_secs(3600);
        let issued = SystemTime::UNIX_EPOCH + 1000 * hour;
        let due = |now| due(issued, 24 * hour, now);
        assert!(!due(issued) && !due(issued + 15 * hour));
        assert!(due(issued + 16 * hour) && due(issued + 100 * hour));
        assert!(due(issued - hour));
    }
}
