//! What the control plane knows of one node's agent, while it is connected and after.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use wattle_model::{InstanceId, NetworkName, NodeId, Revision};
use wattle_runtime::clock;

use super::{claim::Claim, convert::DataPlane, orders::Orders};

/// Acks whose time is remembered, for waits that begin after the ack.
const MAX_ACKS: usize = 16;
/// How long a node is shown as displaced. The loser comes back after a minute or so, and then it
/// displaces in its turn: for as long as both machines run, the node stays displaced.
const DISPLACED_SHOWN: Duration = Duration::from_secs(300);
/// How long an agent that was told to go elsewhere is counted as gone.
const LEAVES_WITHIN: Duration = Duration::from_secs(15);
/// An agent isn't told again before this.
const SHED_EVERY: Duration = Duration::from_secs(600);
/// One full set on request in this time.
const RESYNC_EVERY: Duration = Duration::from_secs(60);

/// What operators may know of a node's agent.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// The node's network.
    pub network: NetworkName,
    /// A stream is open.
    pub online: bool,
    /// When the stream began, or ended.
    pub since: SystemTime,
    /// The last revision applied, with the right digest.
    pub applied: Revision,
    /// The last revision at which the data plane differed in nothing.
    pub verified: Revision,
    /// How long the last batch took to apply.
    pub last_apply: Option<Duration>,
    /// Entries that the agent couldn't apply.
    pub rejected: Vec<Rejected>,
    /// As the agent says.
    pub agent_version: String,
    /// As the agent says.
    pub data_plane: Option<DataPlane>,
    /// Two machines use this node's identity, and one of them is connected.
    pub displaced: bool,
    /// Tells one machine from its clone.
    pub instance: InstanceId,
    /// Which of the instance's streams it is, or was; 0 where the agent doesn't count them.
    pub stream: u64,
    /// The moment of `since`.
    pub moved: Instant,
}

impl SessionInfo {
    /// This replica's hold on the node's identity.
    pub const fn claim(&self) -> Claim {
        Claim { online: self.online, instance: self.instance, stream: self.stream, at: self.moved }
    }
}

/// An entry that the agent couldn't apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Whose entry.
    pub node: NodeId,
    /// Why, as the agent says.
    pub reason: String,
    /// It came in the batch after this revision,
    pub after: Revision,
    /// and up to this one.
    pub upto: Revision,
}

/// The registry's record of one node.
pub(super) struct Record {
    pub(super) network: NetworkName,
    pub(super) node: NodeId,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) info: SessionInfo,
    pub(super) stream: Option<Stream>,
    acks: VecDeque<AckAt>,
    displaced_at: Option<Instant>,
    resynced_at: Option<Instant>,
    /// When it was last told to go to another replica.
    shed_at: Option<Instant>,
    /// When endpoints may be written for the node: its streams share this.
    pub(super) write_at: Instant,
}

/// The stream that holds the node's identity.
pub(super) struct Stream {
    /// Tells this stream from the one before and after it.
    pub(super) number: u64,
    pub(super) orders: Arc<Orders>,
}

#[derive(Debug, Clone, Copy)]
struct AckAt {
    revision: Revision,
    at: Instant,
}

impl Record {
    pub(super) fn new(network: NetworkName, node: NodeId) -> Self {
        let info = SessionInfo {
            network: network.clone(),
            online: false,
            since: clock::now(),
            applied: Revision::ZERO,
            verified: Revision::ZERO,
            last_apply: None,
            rejected: Vec::new(),
            agent_version: String::new(),
            data_plane: None,
            displaced: false,
            instance: InstanceId::default(),
            stream: 0,
            moved: Instant::now(),
        };
        let state = State {
            info,
            stream: None,
            acks: VecDeque::new(),
            displaced_at: None,
            resynced_at: None,
            shed_at: None,
            write_at: Instant::now(),
        };
        Self { network, node, state: Mutex::new(state) }
    }

    /// Never take the index's lock while this is held: its readers take this one.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(super) fn info(&self) -> SessionInfo {
        let state = self.lock();
        // Of two machines that are both away neither pushes the other out.
        let displaced = state.stream.is_some()
            && state.displaced_at.is_some_and(|at| at.elapsed() < DISPLACED_SHOWN);
        SessionInfo { displaced, ..state.info.clone() }
    }
}

impl State {
    /// A stream takes the identity over. Returns the one that held it.
    pub(super) fn enter(&mut self, stream: Stream, hello: Entering) -> Option<Stream> {
        let info = &mut self.info;
        info.online = true;
        info.since = clock::now();
        info.applied = hello.applied;
        info.verified = info.verified.min(hello.applied);
        info.agent_version = hello.agent_version;
        (info.instance, info.stream) = (hello.instance, hello.stream);
        info.moved = Instant::now();
        self.acks.clear();
        self.stream.replace(stream)
    }

    /// A stream is over. Says whether it still held the identity: the end of one that was
    /// replaced must not touch its successor.
    pub(super) fn leave(&mut self, number: u64) -> bool {
        if self.stream.as_ref().is_none_or(|stream| stream.number != number) {
            return false;
        }
        self.stream = None;
        self.info.online = false;
        (self.info.since, self.info.moved) = (clock::now(), Instant::now());
        true
    }

    pub(super) fn displaced(&mut self) {
        self.displaced_at = Some(Instant::now());
    }

    /// The agent has applied a batch, or verified it again.
    pub(super) fn applied(&mut self, ack: Applied) {
        let info = &mut self.info;
        info.verified = info.verified.max(ack.verified);
        if let Some(rejected) = ack.rejected {
            info.rejected = rejected;
            info.last_apply = Some(ack.apply);
        }
        if ack.revision > info.applied {
            info.applied = ack.revision;
            if self.acks.len() == MAX_ACKS {
                self.acks.pop_front();
            }
            self.acks.push_back(AckAt { revision: ack.revision, at: Instant::now() });
        }
    }

    /// When the agent acked `revision`, as far as that is still known.
    pub(super) fn acked_at(&self, revision: Revision) -> Option<Instant> {
        let first = self.acks.iter().position(|ack| ack.revision >= revision)?;
        // Where older acks are forgotten, the oldest remembered may not have been the first.
        if first == 0 && self.acks.len() == MAX_ACKS {
            return None;
        }
        self.acks.get(first).map(|ack| ack.at)
    }

    /// It was told to go elsewhere, and may still do so.
    pub(super) fn is_leaving(&self) -> bool {
        self.stream.is_some() && self.shed_at.is_some_and(|at| at.elapsed() < LEAVES_WITHIN)
    }

    /// Tells it to go elsewhere, unless it was told and couldn't, or came back.
    pub(super) fn shed(&mut self, prefer: impl FnOnce() -> Vec<String>) -> bool {
        let spared = self.shed_at.is_some_and(|at| at.elapsed() < SHED_EVERY);
        let Some(stream) = self.stream.as_ref().filter(|_| !spared) else { return false };
        stream.orders.shed(prefer());
        self.shed_at = Some(Instant::now());
        true
    }

    /// Notes a full set on request, or says how long the agent has to wait for one.
    pub(super) fn resync(&mut self) -> Result<(), Duration> {
        let wait = self.resynced_at.map(|at| RESYNC_EVERY.saturating_sub(at.elapsed()));
        match wait {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                self.resynced_at = Some(Instant::now());
                Ok(())
            }
        }
    }
}

/// How a stream begins.
pub(super) struct Entering {
    pub(super) instance: InstanceId,
    pub(super) stream: u64,
    pub(super) applied: Revision,
    pub(super) agent_version: String,
}

/// An ack that was found right.
pub(super) struct Applied {
    pub(super) revision: Revision,
    pub(super) verified: Revision,
    pub(super) apply: Duration,
    /// All that is rejected after a batch; `None` where no batch was acked.
    pub(super) rejected: Option<Vec<Rejected>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(number: u64) -> Stream {
        Stream { number, orders: Arc::default() }
    }

    fn hello(applied: u64) -> Entering {
        Entering {
            instance: InstanceId::new([1; 16]),
            stream: 0,
            applied: Revision(applied),
            agent_version: "1".into(),
        }
    }

    fn applied(revision: u64) -> Applied {
        let revision = Revision(revision);
        Applied { revision, verified: revision, apply: Duration::ZERO, rejected: Some(Vec::new()) }
    }

    fn record() -> Record {
        Record::new("default".parse().unwrap(), NodeId::new([1; 16]))
    }

    #[test]
    fn the_end_of_an_old_stream_leaves_the_new_one() {
        let record = record();
        let mut state = record.lock();
        assert!(state.enter(stream(1), hello(0)).is_none());
        assert_eq!(state.enter(stream(2), hello(0)).map(|old| old.number), Some(1));
        assert!(!state.leave(1));
        assert!(state.info.online && state.stream.is_some());
        assert!(state.leave(2));
        assert!(!state.info.online && !state.leave(2));
    }

    #[tokio::test(start_paused = true)]
    async fn times_of_acks_are_known_or_not_guessed() {
        let record = record();
        let start = Instant::now();
        for revision in 1..=MAX_ACKS as u64 + 1 {
            record.lock().applied(applied(revision));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(record.lock().acked_at(Revision(1)), None);
        assert_eq!(record.lock().acked_at(Revision(5)), Some(start + Duration::from_millis(4)));
        assert_eq!(record.lock().acked_at(Revision(99)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn one_full_set_a_minute_on_request() {
        let record = record();
        assert!(record.lock().resync().is_ok());
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(record.lock().resync(), Err(Duration::from_secs(40)));
        tokio::time::advance(Duration::from_secs(40)).await;
        assert!(record.lock().resync().is_ok());
    }
}
