//! Hop 4: one stream to any replica, resumed wherever it was cut, becomes committed changes for the
//! plan. It owns the committed set and decides when to connect where; it never touches the device
//! and never asks the control plane for anything on a timer.

mod acks;
mod addresses;
mod agreement;
mod codec;
mod convert;
mod follow;
mod keys;
mod link;
mod secrets;
mod stage;
mod status;
#[cfg(test)]
mod tests;
mod told;

use std::{sync::Arc, time::Duration};

use tokio::{
    select,
    sync::{Notify, watch},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;
use wattle_model::{Endpoint, InstanceId, Revision};
use wattle_plan::Update;
use wattle_runtime::backoff::Backoff;

use self::{
    addresses::Addresses,
    agreement::Agreement,
    convert::{Retry, RetryReason},
    link::{End, Leaving, Link},
};
pub(crate) use self::{
    convert::Rejection,
    status::{SessionState, SessionStatus},
};
use crate::{
    kernel::Host,
    reconcile::{Mesh, MeshStatus, Sighting},
    state::{
        committed_set::CommittedSet, held::Held, identity::SharedIdentity, secrets::KeptSecrets,
    },
};

/// The first wait is anywhere below this: ten thousand agents that lose one replica return over a
/// second.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Between one address that doesn't answer and the next one that wasn't tried.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);
/// Between two looks for another stream than the one that is to be left, half more or less.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// No wait is longer, so a control plane that is back has all its agents within this. Of ten thousand
/// agents two thousand try in a second then, which costs a replica less than what they do next.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// Times in a row that the control plane may hang up before the certificate is doubted.
const DOUBTED_AFTER: u32 = 3;
/// What a node that nobody knows says of itself.
const UNKNOWN: &str = "the control plane doesn't know this node: it was perhaps restored from a \
                       backup made before this machine joined; the mesh stays as it is, until on this \
                       machine somebody runs `wattle-agent leave --force` and joins anew";
/// Two machines with one identity push each other out; this keeps it slow and visible.
const DISPLACED_WAIT: Duration = Duration::from_secs(60);

/// What the session needs from the rest of the agent.
#[derive(Debug)]
pub(crate) struct Parts {
    /// Who this node is, and where its control plane was last known to be.
    pub(crate) identity: SharedIdentity,
    /// What it holds.
    pub(crate) set: CommittedSet,
    /// Where changes go.
    pub(crate) mesh: Mesh,
    /// This machine's addresses.
    pub(crate) host: watch::Receiver<Arc<Host>>,
    /// Endpoints given by flag, instead of guessed ones.
    pub(crate) declared: Vec<Endpoint>,
    /// Told when the certificate seems not to be believed.
    pub(crate) doubt: Arc<Notify>,
}

/// How the session ended for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The program is ending.
    Stopped,
    /// The node was deleted.
    Removed,
}

/// Before the next stream.
struct Pause {
    wait: Duration,
    /// By the control plane, so that it is kept.
    told: bool,
}

/// The session.
pub(crate) struct Session {
    parts: Parts,
    instance: InstanceId,
    addresses: Addresses,
    agreement: Agreement,
    /// The network's secrets, as the identity file has them unless the disk refused.
    secrets: KeptSecrets,
    backoff: Backoff,
    /// Streams that this run has tried to open.
    streams: u64,
    /// Times in a row that the control plane hung up before its first word.
    unanswered: u32,
    mesh_status: watch::Receiver<MeshStatus>,
    sightings: watch::Receiver<Vec<Sighting>>,
    status: watch::Sender<SessionStatus>,
    ended: CancellationToken,
}

/// What the plan is told at start: everything held, if anything ever was.
pub(crate) fn restored(held: &Held) -> Option<(Update, Revision)> {
    held.epoch()?;
    let (update, rejected) = convert::reset(held);
    for rejection in rejected {
        tracing::warn!(?rejection, "a peer on disk can't be read");
    }
    Some((update, held.revision()))
}

impl Session {
    /// A session that hasn't connected yet.
    pub(crate) fn new(
        parts: Parts,
        status: watch::Sender<SessionStatus>,
        ended: CancellationToken,
    ) -> Self {
        let session = Self {
            // One run's own: of two machines with one state, each tells itself from the other.
            instance: InstanceId::new(rand::random()),
            addresses: Addresses::new(parts.identity.get().settings.control_planes.clone()),
            agreement: Agreement::default(),
            secrets: parts.identity.get().secrets.clone(),
            backoff: Backoff::new(FIRST_WAIT, LONGEST_WAIT),
            streams: 0,
            unanswered: 0,
            mesh_status: parts.mesh.status(),
            sightings: parts.mesh.sightings(),
            parts,
            status,
            ended,
        };
        session.publish(|_| {});
        session
    }

    /// Runs until the program ends or the node is deleted.
    pub(crate) async fn run(mut self) -> Outcome {
        let ended = self.ended.clone();
        loop {
            let end = select! {
                () = ended.cancelled() => return Outcome::Stopped,
                link = self.connect() => match link {
                    Ok(link) => self.follow_through(link).await,
                    Err(end) => end,
                },
            };
            let pause = match self.settle(end) {
                Ok(pause) => pause,
                Err(outcome) => return outcome,
            };
            select! {
                () = ended.cancelled() => return Outcome::Stopped,
                () = sleep(pause.wait) => {}
                // Somewhere else the control plane may be within reach.
                Ok(()) = self.parts.host.changed(), if !pause.told => {}
            }
        }
    }

    async fn connect(&mut self) -> Result<Link, End> {
        let address = self.addresses.current().map(str::to_owned);
        self.publish(|status| status.control_plane.clone_from(&address));
        let Some(address) = address else {
            return Err(End::Unreachable("no control plane's address is known".into()));
        };
        self.open(address).await
    }

    async fn open(&mut self, address: String) -> Result<Link, End> {
        self.streams += 1;
        let (held, stale) = (self.parts.set.held(), self.addresses.accept_stale());
        let own = self.parts.mesh.public_key();
        let used = self.secrets.used();
        let hello = convert::hello(held, self.instance, self.streams, stale, (own, used));
        let mut link = Link::open(&self.parts.identity.get(), &[address], hello).await?;
        // Where the way there leads through the tunnel itself, or stays on this machine, nothing is
        // known of the address.
        let host = self.parts.host.borrow().clone();
        link.home = link.home.filter(|home| host.has(*home));
        if held.epoch() != Some(link.welcome.epoch) && !link.welcome.full_set {
            return Err(End::Broken("another epoch, and not with a full set".into()));
        }
        Ok(link)
    }

    /// Follows a stream and, when its replica wants it gone, the one that replaces it.
    async fn follow_through(&mut self, link: Link) -> End {
        let began = Instant::now();
        let end = self.follow_all(link).await;
        // What went wrong before a good stream is no reason to wait after it.
        if began.elapsed() >= LONGEST_WAIT {
            self.backoff.reset();
        }
        end
    }

    async fn follow_all(&mut self, mut link: Link) -> End {
        self.accepted(&link);
        loop {
            let end = self.follow(&mut link).await;
            let (End::Leave, Some(leaving)) = (&end, link.leaving.take()) else {
                self.agreement.cut();
                return end;
            };
            match self.replace(&leaving).await {
                Some(new) => {
                    self.agreement.cut();
                    link = new;
                    self.accepted(&link);
                }
                None => {
                    link.leaving = leaving.later(LOOK_AGAIN.mul_f64(rand::random_range(0.5..1.5)));
                    link.resume();
                }
            }
        }
    }

    /// Make before break: a stream elsewhere while the old one is still there. Nothing is missed
    /// meanwhile, because the new one resumes from the last commit. Every address is tried once, the
    /// present one last: it may be a name behind which there are several replicas.
    async fn replace(&mut self, leaving: &Leaving) -> Option<Link> {
        // The other half is for going on with the old stream if this finds nobody.
        let now = Instant::now();
        let until = now + leaving.until.saturating_duration_since(now) / 2;
        for address in self.addresses.elsewhere(&leaving.prefer) {
            let ended = self.ended.clone();
            let opened = select! {
                () = ended.cancelled() => return None,
                opened = timeout_at(until, self.open(address.clone())) => opened.ok()?,
            };
            match opened {
                Ok(link) => return Some(link),
                Err(end) => tracing::debug!(address, ?end, "the stream isn't taken there"),
            }
        }
        None
    }

    fn accepted(&mut self, link: &Link) {
        let welcome = link.welcome;
        self.addresses.accepted(&link.address);
        self.unanswered = 0;
        if self.parts.set.held().epoch() != Some(welcome.epoch) {
            self.agreement.new_epoch();
        }
        tracing::info!(control_plane = link.address, replica = %welcome.replica, "connected");
        self.publish(|status| {
            status.state = SessionState::Connected;
            status.control_plane = Some(link.address.clone());
            status.replica = Some(welcome.replica);
            status.error = None;
        });
    }

    /// What the end of a stream means: how long to wait before the next one, or that there is none.
    fn settle(&mut self, end: End) -> Result<Pause, Outcome> {
        let told = matches!(end, End::Retry(_));
        let (state, why, wait) = match end {
            End::Stopped => return Err(Outcome::Stopped),
            End::Removed => {
                self.disconnected(SessionState::Removed, "the node was deleted".into());
                return Err(Outcome::Removed);
            }
            End::Leave => (SessionState::Connecting, "drained".into(), self.lost()),
            End::Lost(why) => (SessionState::Connecting, why, self.lost()),
            End::Unreachable(why) => (SessionState::Connecting, why, self.unreachable()),
            End::Unanswered(why) => {
                self.unanswered += 1;
                // A replica that dies hangs up, too, but not again and again.
                if self.unanswered.is_multiple_of(DOUBTED_AFTER) {
                    self.parts.doubt.notify_one();
                }
                (SessionState::Connecting, why, self.unreachable())
            }
            End::Unknown => (SessionState::Unknown, UNKNOWN.into(), self.unreachable()),
            End::Broken(why) => {
                self.addresses.turn(false);
                (SessionState::Connecting, format!("protocol: {why}"), self.backoff.next())
            }
            End::Moved => {
                let why = "this machine's address is gone".to_owned();
                (SessionState::Connecting, why, Duration::ZERO)
            }
            End::Retry(retry) => self.retry(retry),
        };
        self.disconnected(state, why);
        Ok(Pause { wait, told })
    }

    fn lost(&mut self) -> Duration {
        self.addresses.turn(false);
        self.backoff.reset();
        self.backoff.next()
    }

    /// One replica of several that is gone is no reason to wait: only when every address was tried
    /// does the wait grow.
    fn unreachable(&mut self) -> Duration {
        self.addresses.turn(false);
        match self.addresses.all_tried() {
            true => self.backoff.next(),
            false => NEXT_ADDRESS.mul_f64(rand::random()),
        }
    }

    fn retry(&mut self, retry: Retry) -> (SessionState, String, Duration) {
        let wait = retry.after + self.backoff.next();
        let why = match retry.reason {
            RetryReason::Behind => "the replica is behind",
            RetryReason::Stale => "the replica can't see its store",
            RetryReason::Busy => "the replica is busy",
            RetryReason::Displaced => {
                let wait = wait.max(DISPLACED_WAIT) + self.backoff.next();
                let why = "another machine uses this node's identity: on one of the two, while it \
                           says this, run `wattle-agent leave --force` and join anew";
                tracing::warn!(wait = ?wait, "{why}");
                return (SessionState::Displaced, why.into(), wait);
            }
        };
        let stale = matches!(retry.reason, RetryReason::Behind | RetryReason::Stale);
        self.addresses.turn(stale);
        (SessionState::Connecting, why.into(), wait)
    }

    fn disconnected(&self, state: SessionState, why: String) {
        let before = self.status.borrow().state;
        if state == SessionState::Unknown && before != state {
            tracing::warn!("{why}");
        } else if before == SessionState::Connected {
            tracing::info!(why, "disconnected; the mesh stays as it is");
        } else {
            tracing::debug!(why, "not connected");
        }
        self.publish(|status| {
            status.state = state;
            status.replica = None;
            status.error = Some(why);
        });
    }

    fn publish(&self, change: impl FnOnce(&mut SessionStatus)) {
        let held = self.parts.set.held();
        self.status.send_modify(|status| {
            status.epoch = held.epoch();
            status.revision = held.revision();
            status.digest = held.digest();
            status.disk_error = self.parts.set.error().map(str::to_owned);
            change(status);
        });
    }
}
