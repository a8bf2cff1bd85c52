//! Nodes: the only writer of node, peer, identity and claim keys, and of a token's uses.
//!
//! Enrolments go through one task ([`enroller`]), which groups them; changes of a node that exists
//! are planned on what was read ([`change`]) and repeated where the store changed meanwhile. An
//! entry's bytes are made here and nowhere else.

mod addresses;
mod change;
mod claims;
mod enroller;
mod group;
mod mapping;
mod prepare;
mod record;
mod refused;
mod rotation;
mod token;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};
use tonic::Status;
use wattle_model::{Endpoint, Fingerprint, Generation, NetworkName, NodeId, NodeName, Revision};
use wattle_runtime::{backoff::Backoff, clock, shutdown::Shutdown};

pub(crate) use self::refused::{removed, store_failed, unknown};
pub use self::{
    addresses::Ranges,
    change::LoadedNode,
    enroller::Validated,
    mapping::{NotObserved, Observed},
    prepare::{Enrolled, Enrolment},
    record::{Mapping, NodeRecord},
    refused::Refused,
    rotation::{Rotation, TURNS, Turn},
};

use self::enroller::{Answer, Enroller, Job};
use crate::store::{Outcome, Store, StoreError, Transaction, keys};

/// Enrolments that wait for the task. Where it is full, machines are told to come again.
const QUEUE: usize = 4096;
/// Times that a change is planned anew because the store changed under it.
const ATTEMPTS: usize = 10;

/// The nodes of all networks. Cheap to clone.
#[derive(Clone)]
pub struct Nodes {
    store: Arc<dyn Store>,
    jobs: mpsc::Sender<Job>,
}

/// Why a change of a node isn't done.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The node is deleted, or never was.
    #[error("no such node")]
    Gone,
    /// The WireGuard key that it would change to is, or was, somebody's.
    #[error("the next WireGuard key is taken")]
    KeyTaken,
    /// The store changed under every attempt.
    #[error("too much is changing: try again")]
    Contended,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ChangeError> for Status {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Gone => removed(),
            ChangeError::KeyTaken => Self::already_exists(error.to_string()),
            ChangeError::Contended => Self::unavailable(error.to_string()),
            ChangeError::Store(error) => store_failed(error),
        }
    }
}

/// A node's identity by its certificate key.
#[derive(Debug, Clone)]
pub enum KeyHolder {
    /// A live node.
    Live(NodeId, Box<NodeRecord>),
    /// A node that was deleted.
    Deleted,
    /// Nobody.
    Unknown,
}

impl Nodes {
    /// The nodes in `store`. Their enrolments run as a task of `shutdown`.
    pub fn new(store: Arc<dyn Store>, shutdown: &Shutdown) -> Self {
        let (jobs, receiver) = mpsc::channel(QUEUE);
        let enroller = Enroller::new(store.clone(), receiver);
        shutdown.spawn("enrolments", enroller.run(shutdown.token()));
        Self { store, jobs }
    }

    /// Makes a machine a node, or finds the node that the same request made before.
    pub async fn enroll(&self, wish: Enrolment) -> Result<Enrolled, Refused> {
        let (answer, answered) = oneshot::channel();
        self.ask(wish, Answer::Enrol(answer)).await?;
        answered.await.map_err(|_| Refused::Busy)?
    }

    /// Checks everything that [`Nodes::enroll`] would, and changes nothing.
    pub async fn validate(&self, wish: Enrolment) -> Result<Validated, Refused> {
        let (answer, answered) = oneshot::channel();
        self.ask(wish, Answer::Validate(answer)).await?;
        answered.await.map_err(|_| Refused::Busy)?
    }

    async fn ask(&self, wish: Enrolment, answer: Answer) -> Result<(), Refused> {
        // Whoever has no token must not fill the queue for those who have.
        prepare::token(&*self.store, &wish).await?;
        self.jobs.try_send(Job { wish, answer }).map_err(|_| Refused::Busy)
    }

    /// A live node.
    pub async fn load(&self, node: NodeId) -> Result<Option<LoadedNode>, StoreError> {
        LoadedNode::read(&*self.store, node).await
    }

    /// The live node with this id in hex, or else with this name.
    pub async fn find(
        &self,
        network: &NetworkName,
        text: &str,
    ) -> Result<Option<NodeId>, StoreError> {
        match self.by_id(network, text).await? {
            Some(node) => Ok(Some(node)),
            None => self.by_name(network, text).await,
        }
    }

    /// The live node with this id in hex.
    pub async fn by_id(
        &self,
        network: &NetworkName,
        text: &str,
    ) -> Result<Option<NodeId>, StoreError> {
        let Ok(node) = text.parse::<NodeId>() else { return Ok(None) };
        let live = self.load(node).await?;
        Ok(live.filter(|live| live.record.network == *network).map(|_| node))
    }

    /// The node with this name.
    pub async fn by_name(
        &self,
        network: &NetworkName,
        text: &str,
    ) -> Result<Option<NodeId>, StoreError> {
        let Ok(name) = text.parse::<NodeName>() else { return Ok(None) };
        let claim = prepare::claim(&*self.store, &keys::name(network, &name)).await?;
        Ok(claim.map(|(claim, _)| claim.node))
    }

    /// Whose certificate key this is.
    pub async fn by_fingerprint(&self, key: Fingerprint) -> Result<KeyHolder, StoreError> {
        let claim = prepare::claim(&*self.store, &keys::fingerprint(key)).await?;
        let Some((claim, _)) = claim else { return Ok(KeyHolder::Unknown) };
        Ok(match self.load(claim.node).await? {
            Some(loaded) => KeyHolder::Live(claim.node, Box::new(loaded.record)),
            None => KeyHolder::Deleted,
        })
    }

    /// Says where a node may be reached, and which of its network's secrets it holds. `None` where
    /// nothing changed.
    pub async fn report(
        &self,
        node: NodeId,
        own: &[Endpoint],
        observed: Option<Endpoint>,
        held: Generation,
    ) -> Result<Option<Revision>, ChangeError> {
        self.change(node, |loaded| Ok(loaded.plan_report(own, observed, held))).await
    }

    /// Another node sees this one at `seen`.
    pub async fn observe(&self, node: NodeId, seen: Endpoint) -> Result<Observed, NotObserved> {
        let changed = self.change(node, |loaded| loaded.plan_mapping(seen, clock::now())).await?;
        Ok(changed.map_or(Observed::Known, Observed::Accepted))
    }

    /// Says of which root a node's certificate is. Writes nothing where that is what the store says,
    /// or has never said where the root is the `first`.
    pub async fn set_root(
        &self,
        node: NodeId,
        root: Fingerprint,
        first: Fingerprint,
    ) -> Result<(), ChangeError> {
        self.change(node, |loaded| Ok(loaded.plan_root(root, first))).await.map(drop)
    }

    /// Deletes a node.
    pub async fn delete(&self, node: NodeId) -> Result<Revision, ChangeError> {
        let plan =
            |loaded: &LoadedNode| Ok::<_, ChangeError>(Some(loaded.plan_delete(clock::now())));
        self.change(node, plan).await?.ok_or(ChangeError::Gone)
    }

    /// Plans on what is read and commits, again where the store changed in between.
    async fn change<E: From<ChangeError> + From<StoreError>>(
        &self,
        node: NodeId,
        plan: impl Fn(&LoadedNode) -> Result<Option<Transaction>, E>,
    ) -> Result<Option<Revision>, E> {
        let mut backoff = Backoff::new(Duration::from_millis(2), Duration::from_millis(100));
        for _ in 0..ATTEMPTS {
            let loaded = self.load(node).await?.ok_or(ChangeError::Gone)?;
            let Some(transaction) = plan(&loaded)? else { return Ok(None) };
            if let Outcome::Committed(revision) = self.store.commit(transaction).await? {
                return Ok(Some(revision));
            }
            sleep(backoff.next()).await;
        }
        Err(ChangeError::Contended.into())
    }
}

/// Where a node may be reached by what the control plane saw of it: the address of its connection,
/// with the port that its WireGuard listens on. Loopback is nobody's address.
pub fn observed_endpoint(connection: IpAddr, listen_port: u16) -> Option<Endpoint> {
    let ip = connection.to_canonical();
    if ip.is_loopback() {
        return None;
    }
    Endpoint::new(SocketAddr::new(ip, listen_port)).ok()
}
