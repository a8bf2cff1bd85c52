//! The loop that owns the data plane: wake on a commit or a timer, observe, plan, apply, look
//! again. Nobody else touches the device; the session asks through [`Mesh`] and waits for the
//! answer, so a slow device slows the stream and nothing queues.

mod drift;
mod reconciler;
#[cfg(test)]
mod tests;

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use wattle_model::{Endpoint, NodeId, PrivateKey, PublicKey, Revision, Secrets};
use wattle_plan::{Observed, Translated, Update};

pub(crate) use self::{
    drift::Repairs,
    reconciler::{Keys, Open, Reconciler, Surroundings, Wishes},
};
use crate::{
    kernel::{DataPlaneKind, KernelError},
    session::Rejection,
    settings::Settings,
};

/// Requests waiting for the loop. The session has one at a time; the rest is for status and leave.
/// When it is full, whoever asks waits.
const REQUESTS: usize = 4;

/// A committed change of the mesh.
#[derive(Debug)]
pub(crate) struct Change {
    /// Of the peers.
    pub(crate) update: Update,
    /// This node's own settings, where they changed too.
    pub(crate) settings: Option<Settings>,
    /// What preshared keys are derived of, where that changed too.
    pub(crate) secrets: Option<Secrets>,
    /// The device's next key, where from this revision on peers know it by that.
    pub(crate) key: Option<PrivateKey>,
    /// The revision it leads to.
    pub(crate) revision: Revision,
}

/// The answer to a change.
#[derive(Debug)]
pub(crate) struct Applied {
    /// When the device answered.
    pub(crate) at: Instant,
    /// Peers that the device wasn't given, and hadn't been refused before.
    pub(crate) rejected: Vec<Rejection>,
}

/// How the device stands. Published when it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MeshStatus {
    /// What moves the packets.
    pub(crate) kind: DataPlaneKind,
    /// The device's key.
    pub(crate) public_key: PublicKey,
    /// The port it listens on; 0 while it hasn't chosen one.
    pub(crate) listen_port: u16,
    /// The revision last applied.
    pub(crate) applied: Revision,
    /// The last revision at which a fresh dump differed in nothing.
    pub(crate) verified: Revision,
    /// The link's MTU.
    pub(crate) mtu: u32,
    /// Why it is to be so.
    pub(crate) mtu_from: MtuFrom,
    /// How often somebody else's changes were put right.
    pub(crate) repairs: Repairs,
    /// What went wrong last, until it goes right.
    pub(crate) errors: Vec<String>,
}

/// Who decided on the link's MTU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MtuFrom {
    /// It is what the path carries.
    Path,
    /// The network has one.
    Network,
    /// This machine's administrator.
    Here,
}

impl MtuFrom {
    /// As statuses call it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Network => "network",
            Self::Here => "flag",
        }
    }
}

/// Where the device hears from a peer behind NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// Which node.
    pub(crate) node: NodeId,
    /// From where.
    pub(crate) endpoint: Endpoint,
    /// When the last handshake completed.
    pub(crate) handshake: Instant,
    /// Rises with each new one.
    pub(crate) number: u64,
}

impl Sighting {
    fn now(found: Translated) -> Self {
        let Translated { node, endpoint, handshake, number } = found;
        let now = Instant::now();
        // A machine that has been up for less than a handshake's age has another clock.
        let handshake = now.checked_sub(handshake).unwrap_or(now);
        Self { node, endpoint, handshake, number }
    }
}

/// The device in full, looked at now, for `status`.
#[derive(Debug)]
pub(crate) struct Description {
    /// As dumped.
    pub(crate) observed: Observed,
    /// The peers there should be.
    pub(crate) peers: Vec<wattle_model::PeerSpec>,
}

enum Request {
    Apply(Box<Change>, oneshot::Sender<Applied>),
    Moved(Revision),
    Describe(oneshot::Sender<Result<Description, KernelError>>),
    Remove(oneshot::Sender<Result<(), KernelError>>),
}

/// The loop has ended: the program is ending.
#[derive(Debug, thiserror::Error)]
#[error("the agent is stopping")]
pub(crate) struct Stopped;

/// A handle on the loop.
#[derive(Debug, Clone)]
pub(crate) struct Mesh {
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<MeshStatus>,
    sightings: watch::Receiver<Vec<Sighting>>,
}

impl Mesh {
    /// Applies a committed change, and returns when the device has answered.
    pub(crate) async fn apply(&self, change: Change) -> Result<Applied, Stopped> {
        self.ask(|answer| Request::Apply(Box::new(change), answer)).await
    }

    /// The set is the same at a later revision.
    pub(crate) async fn moved(&self, revision: Revision) -> Result<(), Stopped> {
        self.requests.send(Request::Moved(revision)).await.map_err(|_| Stopped)
    }

    /// A fresh look at the device.
    pub(crate) async fn describe(&self) -> Result<Result<Description, KernelError>, Stopped> {
        self.ask(Request::Describe).await
    }

    /// Takes the device away, for good.
    pub(crate) async fn remove(&self) -> Result<Result<(), KernelError>, Stopped> {
        self.ask(Request::Remove).await
    }

    /// How the device stands, now and whenever that changes.
    pub(crate) fn status(&self) -> watch::Receiver<MeshStatus> {
        self.status.clone()
    }

    /// Where peers behind NAT are heard from: as many as there are peers, at the most.
    pub(crate) fn sightings(&self) -> watch::Receiver<Vec<Sighting>> {
        self.sightings.clone()
    }

    /// The device's public key.
    pub(crate) fn public_key(&self) -> PublicKey {
        self.status.borrow().public_key
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Stopped> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).await.map_err(|_| Stopped)?;
        answered.await.map_err(|_| Stopped)
    }
}
