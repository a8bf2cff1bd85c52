//! Waiting until everybody whom a revision concerns has applied it. The set is fixed when the wait
//! begins; each ack and each disconnect moves one node in it, so that a wait over thousands of
//! agents costs each of their acks the same little.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use wattle_model::{NetworkName, NodeId, Revision};

use super::{
    claim::Claim,
    record::{SessionInfo, State},
};

/// Waits at one time. Past it a wait answers at once with what there is.
const MAX_WAITS: usize = 64;

/// Who has applied a revision and who hasn't.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// This replica has read the revision; where not, it doesn't know whom it concerns.
    pub indexed: bool,
    /// Has it, or nothing in it concerns it.
    pub applied: Vec<AppliedAfter>,
    /// Connected, and hasn't.
    pub pending: Vec<Lagging>,
    /// Has it but for what it couldn't apply.
    pub rejected: Vec<Lagging>,
    /// Not connected, and hadn't.
    pub offline: Vec<Lagging>,
}

/// A node that has applied a revision.
#[derive(Debug, Clone)]
pub struct AppliedAfter {
    /// The node's network.
    pub network: NetworkName,
    /// The node.
    pub node: NodeId,
    /// From the commit in the store to the ack, where both times are known.
    pub after: Option<Duration>,
}

/// A node that hasn't, or not all of it.
#[derive(Debug, Clone)]
pub struct Lagging {
    /// The node's network.
    pub network: NetworkName,
    /// The node.
    pub node: NodeId,
    /// The last revision it has applied.
    pub applied: Revision,
    /// Why, where it was rejected.
    pub reason: String,
}

/// Where one node stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It has the revision, or nothing in it concerns it; how long that took, where known.
    Applied(Option<Duration>),
    /// It has the revision but for what it couldn't apply.
    Rejected(Revision, String),
    /// It is connected and hasn't; the last one that it has.
    Pending(Revision),
    /// It isn't connected, and hadn't.
    Offline(Revision),
}

/// Where a node stands, as far as one replica knows, and that replica's hold on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The node.
    pub node: NodeId,
    /// Where it stands.
    pub standing: Standing,
    /// Who says so.
    pub claim: Claim,
}

/// How far a change has come with the agents that are connected to one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// The change's revision.
    pub revision: Revision,
    /// Agents that have it,
    pub applied: u32,
    /// that don't yet,
    pub pending: u32,
    /// and that couldn't apply all of it.
    pub rejected: u32,
}

impl Standing {
    /// Where a node stands towards a revision that concerns it.
    pub(super) fn of(state: &State, revision: Revision, since: Option<Instant>) -> Self {
        let after = || Some(state.acked_at(revision)?.saturating_duration_since(since?));
        Self::of_info(&state.info, revision, after)
    }

    /// As far as what is known of its agent tells; `after` is asked where it has the revision.
    pub fn of_info(
        info: &SessionInfo,
        revision: Revision,
        after: impl FnOnce() -> Option<Duration>,
    ) -> Self {
        let applied = info.applied;
        if applied < revision {
            return if info.online { Self::Pending(applied) } else { Self::Offline(applied) };
        }
        let mut here = info.rejected.iter().filter(|r| r.after < revision && revision <= r.upto);
        match here.next() {
            Some(first) => Self::Rejected(applied, format!("{}: {}", first.node, first.reason)),
            None => Self::Applied(after()),
        }
    }

    /// Nothing changes it any more.
    pub const fn settled(&self) -> bool {
        matches!(self, Self::Applied(_) | Self::Rejected(..))
    }
}

impl Progress {
    /// Adds where a node stands.
    pub fn add(&mut self, network: &NetworkName, node: NodeId, standing: &Standing) {
        let lagging = |applied: &Revision, reason: &str| Lagging {
            network: network.clone(),
            node,
            applied: *applied,
            reason: reason.to_owned(),
        };
        match standing {
            Standing::Applied(after) => {
                self.applied.push(AppliedAfter { network: network.clone(), node, after: *after });
            }
            Standing::Rejected(applied, why) => self.rejected.push(lagging(applied, why)),
            Standing::Pending(applied) => self.pending.push(lagging(applied, "")),
            Standing::Offline(applied) => self.offline.push(lagging(applied, "")),
        }
    }
}

/// One wait.
pub(super) struct Wait {
    pub(super) revision: Revision,
    /// When the revision was committed, where known.
    pub(super) since: Option<Instant>,
    nodes: Mutex<Nodes>,
    moved: Notify,
}

#[derive(Default)]
struct Nodes {
    standing: HashMap<NodeId, Known>,
    pending: usize,
    /// Those that moved since they were last taken; none where nobody takes them.
    moved: Option<BTreeSet<NodeId>>,
}

struct Known {
    network: NetworkName,
    standing: Standing,
    /// Absent where the agent was never connected here.
    claim: Option<Claim>,
}

impl Wait {
    pub(super) fn new(revision: Revision, since: Option<Instant>) -> Self {
        Self { revision, since, nodes: Mutex::default(), moved: Notify::new() }
    }

    /// A wait of which each step is told.
    fn followed(revision: Revision, since: Option<Instant>) -> Self {
        let nodes = Nodes { moved: Some(BTreeSet::new()), ..Nodes::default() };
        Self { nodes: Mutex::new(nodes), ..Self::new(revision, since) }
    }

    /// Adds a node to the set.
    pub(super) fn add(
        &self,
        network: NetworkName,
        node: NodeId,
        standing: Standing,
        claim: Option<Claim>,
    ) {
        let mut nodes = self.nodes.lock();
        nodes.pending += usize::from(matches!(standing, Standing::Pending(_)));
        if let (Some(moved), Some(_)) = (&mut nodes.moved, claim) {
            moved.insert(node);
        }
        nodes.standing.insert(node, Known { network, standing, claim });
    }

    /// A node moved. One outside the set doesn't matter; one that has applied stays so.
    pub(super) fn moved(&self, node: NodeId, standing: Standing, claim: Claim) {
        let mut guard = self.nodes.lock();
        let nodes = &mut *guard;
        let Some(now) = nodes.standing.get_mut(&node).filter(|now| !now.standing.settled()) else {
            return;
        };
        nodes.pending -= usize::from(matches!(now.standing, Standing::Pending(_)));
        nodes.pending += usize::from(matches!(standing, Standing::Pending(_)));
        (now.standing, now.claim) = (standing, Some(claim));
        let followed = nodes.moved.as_mut().is_some_and(|moved| {
            moved.insert(node);
            true
        });
        if followed || nodes.pending == 0 {
            self.moved.notify_one();
        }
    }

    /// Returns when nobody is pending.
    pub(super) async fn settled(&self) {
        while self.nodes.lock().pending > 0 {
            self.moved.notified().await;
        }
    }

    /// Where everybody stands.
    pub(super) fn progress(&self) -> Progress {
        let mut progress = Progress { indexed: true, ..Progress::default() };
        for (node, known) in &self.nodes.lock().standing {
            progress.add(&known.network, *node, &known.standing);
        }
        progress
    }

    /// Where those stand who moved since this was last asked.
    fn take_moved(&self) -> Vec<Report> {
        let mut nodes = self.nodes.lock();
        let moved = nodes.moved.as_mut().map(std::mem::take).unwrap_or_default();
        let report = |node: NodeId| {
            let known = nodes.standing.get(&node)?;
            Some(Report { node, standing: known.standing.clone(), claim: known.claim? })
        };
        moved.into_iter().filter_map(report).collect()
    }
}

/// All waits that are going on. Clones are one.
#[derive(Clone, Default)]
pub(super) struct Waits(Arc<Mutex<Vec<Arc<Wait>>>>);

impl Waits {
    /// Begins a wait, which lasts until the guard goes; `None` where there are too many.
    pub(super) fn begin(&self, wait: Arc<Wait>) -> Option<Waiting> {
        let mut waits = self.0.lock();
        if waits.len() == MAX_WAITS {
            return None;
        }
        waits.push(Arc::clone(&wait));
        Some(Waiting { waits: self.clone(), wait })
    }

    /// Whether anybody waits.
    pub(super) fn any(&self) -> bool {
        !self.0.lock().is_empty()
    }

    /// A node acked, came or went.
    pub(super) fn moved(&self, node: NodeId, state: &State) {
        for wait in self.0.lock().iter() {
            let standing = Standing::of(state, wait.revision, wait.since);
            wait.moved(node, standing, state.info.claim());
        }
    }
}

/// A wait that is going on.
pub(super) struct Waiting {
    waits: Waits,
    wait: Arc<Wait>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.waits.0.lock().retain(|wait| !Arc::ptr_eq(wait, &self.wait));
    }
}

/// A wait that somebody else waits for: they are told each step.
pub struct Following {
    wait: Arc<Wait>,
    _waiting: Waiting,
}

impl Following {
    /// `None` where too many waits go on.
    pub(super) fn begin(waits: &Waits, revision: Revision, since: Option<Instant>) -> Option<Self> {
        let wait = Arc::new(Wait::followed(revision, since));
        let waiting = waits.begin(Arc::clone(&wait))?;
        Some(Self { wait, _waiting: waiting })
    }

    pub(super) fn wait(&self) -> &Wait {
        &self.wait
    }

    /// All that moved since this was last asked; the first time, all that are known here.
    pub fn now(&self) -> Vec<Report> {
        self.wait.take_moved()
    }

    /// The same, once there is any.
    pub async fn next(&self) -> Vec<Report> {
        loop {
            let moved = self.now();
            if !moved.is_empty() {
                return moved;
            }
            self.wait.moved.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(standings: &[Standing]) -> Wait {
        let wait = Wait::new(Revision(9), None);
        for (n, standing) in (0..).zip(standings) {
            let network = "default".parse().unwrap();
            wait.add(network, NodeId::new([n; 16]), standing.clone(), None);
        }
        wait
    }

    fn claim() -> Claim {
        let instance = wattle_model::InstanceId::new([1; 16]);
        Claim { online: true, instance, stream: 1, at: Instant::now() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_disconnect_ends_the_wait_without_applying() {
        let pending = Standing::Pending(Revision(1));
        let wait = wait(&[pending.clone(), pending.clone()]);
        let moved = |n, standing| wait.moved(NodeId::new([n; 16]), standing, claim());
        moved(0, Standing::Applied(None));
        assert!(tokio::time::timeout(Duration::from_secs(1), wait.settled()).await.is_err());
        moved(1, Standing::Offline(Revision(1)));
        wait.settled().await;
        let progress = wait.progress();
        assert_eq!((progress.applied.len(), progress.offline.len()), (1, 1));
        // Back again before anybody looked: pending; and what is applied stays applied.
        moved(1, pending.clone());
        moved(0, pending);
        assert_eq!((wait.progress().pending.len(), wait.progress().applied.len()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_follows_is_told_each_step_once() {
        let waits = Waits::default();
        let following = Following::begin(&waits, Revision(9), None).unwrap();
        let (network, pending) = ("default".parse().unwrap(), Standing::Pending(Revision(1)));
        let known = |n: u8, claim| {
            let network: NetworkName = NetworkName::clone(&network);
            following.wait().add(network, NodeId::new([n; 16]), pending.clone(), claim);
        };
        known(1, Some(claim()));
        known(2, None);
        let told = |reports: Vec<Report>| reports.into_iter().map(|r| r.node).collect::<Vec<_>>();
        assert_eq!(told(following.now()), [NodeId::new([1; 16])], "nobody knows of the other");
        assert!(following.now().is_empty());
        // It comes here after all, and others ack.
        for n in [2, 2, 1] {
            following.wait().moved(NodeId::new([n; 16]), Standing::Applied(None), claim());
        }
        assert_eq!(told(following.next().await), [NodeId::new([1; 16]), NodeId::new([2; 16])]);
        let more = tokio::time::timeout(Duration::from_secs(1), following.next()).await;
        assert!(more.is_err());
    }

    #[test]
    fn waits_are_bounded_and_end_with_their_guard() {
        let waits = Waits::default();
        let begin = || waits.begin(Arc::new(wait(&[])));
        let guards: Vec<_> = std::iter::repeat_with(begin).map_while(|guard| guard).collect();
        assert_eq!(guards.len(), MAX_WAITS);
        drop(guards);
        assert!(!waits.any() && begin().is_some());
    }
}
