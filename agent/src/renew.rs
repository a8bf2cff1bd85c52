//! Keeps the node's certificate good: a new one at two thirds of its life, one of the present root
//! where it is of an older one, and one without a certificate when it has run out or isn't believed any
//! more, as on a machine that slept too long. The key stays the same.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use tokio::{select, sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use wattle_proto::enroll::{Credential, RecoverRequest, RenewRequest};
use wattle_runtime::{
    backoff::Backoff,
    clock::{self, Looks},
};

use crate::{
    control_plane::{self, CallError, request},
    session::Outcome,
    settings,
    state::identity::{Identity, SharedIdentity},
};

/// How often the machine's clock is looked at. A timer would sleep with the machine, and a clock
/// may jump.
const LOOK: Duration = Duration::from_secs(60);
/// Waits between attempts: a third of a certificate's life is left for them.
const FIRST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// All agents of a fleet that enrolled together don't renew together.
const SPREAD: f64 = 0.1;
/// All agents of a fleet hear of a new root at once. They ask for certificates of it over this part of a
/// certificate's life: five minutes of a day.
const MOVE_SPREAD: f64 = 1.0 / 288.0;
/// Between two attempts because the certificate seems not to be believed.
const DOUBT_EVERY: Duration = Duration::from_secs(60);

/// Runs until the program ends, or the control plane says that the node was deleted. `doubt` is told
/// when the control plane seems not to believe the certificate.
pub(crate) async fn run(
    identity: SharedIdentity,
    doubt: Arc<Notify>,
    ended: CancellationToken,
) -> Outcome {
    let mut renewal = Renewal {
        backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
        luck: rand::random(),
        refused: false,
        older_since: None,
    };
    let (mut looks, mut changes) = (Looks::begin(), identity.changes());
    let mut doubted: Option<Instant> = None;
    loop {
        changes.mark_unchanged();
        let wait = match renewal.step(&identity).await {
            Ok(wait) => wait,
            Err(outcome) => return outcome,
        };
        let waits = looks.next(wait);
        select! {
            () = ended.cancelled() => return Outcome::Stopped,
            () = waits => {}
            // Roots may be others now. While attempts fail, their pauses stay as they are.
            Ok(()) = changes.changed(), if wait == LOOK => {}
            () = doubt.notified() => {
                if doubted.is_none_or(|last| last.elapsed() >= DOUBT_EVERY) {
                    doubted = Some(Instant::now());
                    tracing::info!("the control plane hangs up: asking for another certificate");
                    if renewal.recover(&identity).await == Some(Outcome::Removed) {
                        return Outcome::Removed;
                    }
                }
            }
        }
    }
}

/// What is remembered from one look to the next.
struct Renewal {
    backoff: Backoff,
    luck: f64,
    refused: bool,
    /// Since when the certificate is known to be of an older root.
    older_since: Option<SystemTime>,
}

impl Renewal {
    /// Looks, and does what is due. Returns how long to wait.
    async fn step(&mut self, identity: &SharedIdentity) -> Result<Duration, Outcome> {
        let present = identity.get();
        let (due, wait) = self.due(&present);
        if due == Due::NotYet {
            return Ok(wait);
        }
        match attempt(&present, due == Due::Expired || self.refused).await {
            Ok(credential) => {
                self.refused = false;
                keep(identity, &credential);
                Ok(self.renewed(identity))
            }
            Err(CallError::Removed) => Err(Outcome::Removed),
            Err(error) => {
                tracing::warn!(%error, "the certificate can't be renewed");
                // The two clocks may differ: what isn't good for renewing is for recovering.
                let nobody = matches!(&error, CallError::Dial(error) if !error.hung_up());
                self.refused = !self.refused && !nobody;
                Ok(self.backoff.next().max(Duration::from_secs(1)))
            }
        }
    }

    /// What is due, and when to look again where nothing is.
    fn due(&mut self, identity: &Identity) -> (Due, Duration) {
        let (now, certificate) = (clock::now(), &identity.certificate);
        let due = Due::of(certificate, now, self.luck);
        if !is_of_an_older_root(identity) {
            self.older_since = None;
            return (due, LOOK);
        }
        let since = *self.older_since.get_or_insert(now);
        let spread = life(certificate).mul_f64(MOVE_SPREAD * self.luck);
        // Below zero the clock was set back: then it is asked again soon, not at once.
        let left = spread.saturating_sub(now.duration_since(since).unwrap_or_default());
        match due {
            Due::NotYet if left.is_zero() => (Due::Renew, LOOK),
            due => (due, left.min(LOOK)),
        }
    }

    /// How long to wait after a new certificate, which may not be as it should be.
    fn renewed(&mut self, identity: &SharedIdentity) -> Duration {
        let present = identity.get();
        if Due::of(&present.certificate, clock::now(), self.luck) != Due::NotYet {
            tracing::warn!("the control plane's clock and this machine's differ");
            return self.backoff.next().max(LOOK);
        }
        if is_of_an_older_root(&present) {
            tracing::debug!("that replica still signs with an older root");
            return self.backoff.next().max(Duration::from_secs(1));
        }
        self.backoff.reset();
        LOOK
    }

    /// A certificate for the key alone, whatever the present one is worth.
    async fn recover(&mut self, identity: &SharedIdentity) -> Option<Outcome> {
        match attempt(&identity.get(), true).await {
            Ok(credential) => keep(identity, &credential),
            Err(CallError::Removed) => return Some(Outcome::Removed),
            Err(error) => tracing::debug!(%error, "no other certificate"),
        }
        None
    }
}

/// Whether the control plane's roots begin with another one than the certificate's.
fn is_of_an_older_root(identity: &Identity) -> bool {
    let first = identity.ca_certificates.first();
    first.is_some_and(|root| {
        wattle_certs::root_of(&identity.certificate, std::slice::from_ref(root)).is_none()
    })
}

fn life(certificate: &CertificateDer<'_>) -> Duration {
    let read = wattle_certs::peer_identity(certificate);
    read.ok()
        .and_then(|read| read.not_after.duration_since(read.not_before).ok())
        .unwrap_or_default()
}

/// Where a certificate stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    NotYet,
    /// Late in its life, or before it: made while the control plane's clock was ahead, it would be
    /// good for nothing until then.
    Renew,
    Expired,
}

impl Due {
    /// `luck` is between 0 and 1.
    fn of(certificate: &CertificateDer<'_>, now: SystemTime, luck: f64) -> Self {
        let Ok(certificate) = wattle_certs::peer_identity(certificate) else {
            return Self::Expired;
        };
        Self::within(certificate.not_before, certificate.not_after, now, luck)
    }

    fn within(from: SystemTime, to: SystemTime, now: SystemTime, luck: f64) -> Self {
        let life = to.duration_since(from).unwrap_or_default();
        let age = now.duration_since(from).unwrap_or_default();
        if now >= to {
            Self::Expired
        } else if now < from || age >= life.mul_f64(2.0 / 3.0 + SPREAD * luck) {
            Self::Renew
        } else {
            Self::NotYet
        }
    }
}

async fn attempt(identity: &Identity, recover: bool) -> Result<Credential, CallError> {
    let csr = Bytes::from(identity.tls_key.csr());
    let credential = if recover {
        let tls = control_plane::anonymous_tls(identity)?;
        let mut client = control_plane::enrollment(identity, tls).await?;
        client.recover(request(RecoverRequest { csr })).await?.into_inner().credential
    } else {
        let tls = control_plane::tls(identity)?;
        let mut client = control_plane::enrollment(identity, tls).await?;
        client.renew(request(RenewRequest { csr })).await?.into_inner().credential
    };
    let empty = || CallError::from(tonic::Status::internal("the answer has no certificate"));
    let credential = credential.ok_or_else(empty)?;
    let certificate = CertificateDer::from(credential.certificate.to_vec());
    let says = wattle_certs::peer_identity(&certificate);
    match says.is_ok_and(|says| says.fingerprint == identity.tls_key.fingerprint()) {
        true => Ok(credential),
        false => Err(tonic::Status::internal("the certificate is for another key").into()),
    }
}

fn keep(identity: &SharedIdentity, credential: &Credential) {
    let kept = identity.update(|identity| {
        identity.certificate = CertificateDer::from(credential.certificate.to_vec());
        if let Some(roots) = settings::roots(&credential.ca_certificates) {
            identity.ca_certificates = roots;
        }
    });
    match kept {
        Ok(()) => tracing::info!("the certificate was renewed"),
        Err(error) => tracing::warn!(%error, "the new certificate can't be kept"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;
    use tonic::Status;
    use wattle_certs::peer_identity;

    use super::*;
    use crate::{
        scripted::{Asked, Authority, NODE, PATIENCE, Replica},
        state::StateDir,
    };

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_and_recovered_after_its_end() {
        let at = |hour: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(hour * 3600);
        let due = |now, luck| Due::within(at(100), at(130), at(now), luck);
        assert_eq!(due(119, 0.0), Due::NotYet);
        assert_eq!(due(120, 0.0), Due::Renew);
        assert_eq!(due(122, 1.0), Due::NotYet);
        assert_eq!(due(123, 1.0), Due::Renew);
        assert_eq!(due(130, 0.5), Due::Expired);
        assert_eq!(due(50, 0.0), Due::Renew, "a clock was set back");
    }

    /// What the agent asks for when its certificate is `age` old and lives a day.
    async fn asked_at(
        age: Duration,
        answers: Vec<Option<Status>>,
    ) -> (Vec<Asked>, Option<Outcome>) {
        asked_from(SystemTime::now() - age, answers).await
    }

    /// The same of a certificate that begins then.
    async fn asked_from(
        from: SystemTime,
        answers: Vec<Option<Status>>,
    ) -> (Vec<Asked>, Option<Outcome>) {
        asked_of(None, from, DAY, answers).await
    }

    /// The same of one that lives so long, and may be of another root than the control plane's.
    async fn asked_of(
        other: Option<&Authority>,
        from: SystemTime,
        life: Duration,
        answers: Vec<Option<Status>>,
    ) -> (Vec<Asked>, Option<Outcome>) {
        let authority = Authority::new();
        let replica = Replica::start(&authority).await;
        replica.enrollment.answer(answers);
        let folder = tempfile::tempdir().unwrap();
        let state = Arc::new(StateDir::open(folder.path()).unwrap());
        let mut identity = authority.identity(vec![replica.address.clone()]);
        let key = identity.tls_key.csr_key();
        let signer = other.unwrap_or(&authority);
        let old = signer.credential(NODE, &key, from, life).certificate.to_vec();
        identity.certificate = old.clone().into();
        let shared = SharedIdentity::new(state.clone(), identity);

        let ended = CancellationToken::new();
        let mut task = tokio::spawn(run(shared.clone(), Arc::default(), ended.clone()));
        let renewed = async {
            while shared.get().certificate.as_ref() == old.as_slice() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let outcome = select! {
            () = renewed => {
                let kept = state.identity().unwrap().unwrap();
                assert_eq!(kept.certificate, shared.get().certificate, "it isn't on disk");
                assert!(peer_identity(&kept.certificate).unwrap().not_after > SystemTime::now());
                None
            }
            outcome = &mut task => Some(outcome.unwrap()),
            () = sleep(PATIENCE) => panic!("nothing happened"),
        };
        ended.cancel();
        (replica.enrollment.take_asked(), outcome)
    }

    #[tokio::test]
    async fn a_certificate_late_in_its_life_is_renewed_with_itself() {
        let (asked, outcome) = asked_at(DAY * 9 / 10, vec![]).await;
        assert!(matches!(asked[..], [Asked::Renew]), "{asked:?}");
        assert_eq!(outcome, None);
    }

    #[tokio::test]
    async fn a_certificate_that_has_run_out_is_recovered_without_it() {
        let (asked, outcome) = asked_at(DAY * 3, vec![]).await;
        assert!(matches!(asked[..], [Asked::Recover]), "{asked:?}");
        assert_eq!(outcome, None);
    }

    /// Made by a control plane that then was two hours ahead: the handshake refuses it now, and
    /// nobody refuses its key.
    #[tokio::test]
    async fn a_certificate_that_has_not_begun_is_recovered() {
        let (asked, outcome) = asked_from(SystemTime::now() + DAY / 12, vec![]).await;
        assert!(matches!(asked[..], [Asked::Recover]), "{asked:?}");
        assert_eq!(outcome, None);
    }

    /// Fresh, and of a root that is gone: the control plane hangs up on it, and knows its key.
    #[tokio::test]
    async fn a_certificate_of_another_root_is_exchanged_long_before_its_end() {
        let other = Authority::new();
        let life = Duration::from_secs(600);
        let (asked, outcome) = asked_of(Some(&other), SystemTime::now(), life, vec![]).await;
        assert!(matches!(asked[..], [Asked::Recover]), "{asked:?}");
        assert_eq!(outcome, None);
    }

    #[tokio::test]
    async fn a_deleted_node_is_told_so() {
        let mut status = Status::permission_denied("this node was deleted");
        status.metadata_mut().insert("wattle-reason", "removed".parse().unwrap());
        let (asked, outcome) = asked_at(DAY * 3, vec![Some(status)]).await;
        assert!(matches!(asked[..], [Asked::Recover]), "{asked:?}");
        assert_eq!(outcome, Some(Outcome::Removed));
    }
}
