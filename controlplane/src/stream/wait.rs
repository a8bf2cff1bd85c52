//! Waiting until everybody whom a revision concerns has applied it. The set is fixed when the wait
//! begins; each ack and each disconnect moves one node in it, so that a wait over thousands of
//! agents costs each of their acks the same little.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use wattle_model::{NetworkName, NodeId, Revision};

use super::record::State;

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
pub(super) enum Standing {
    Applied(Option<Duration>),
    Rejected(Revision, String),
    Pending(Revision),
    Offline(Revision),
}

impl Standing {
    /// Where a node stands towards a revision that concerns it.
    pub(super) fn of(state: &State, revision: Revision, since: Option<Instant>) -> Self {
        let applied = state.info.applied;
        if applied < revision {
            let online = state.stream.is_some();
            return if online { Self::Pending(applied) } else { Self::Offline(applied) };
        }
        let mut here =
            state.info.rejected.iter().filter(|r| r.after < revision && revision <= r.upto);
        if let Some(first) = here.next() {
            let reason = format!("{}: {}", first.node, first.reason);
            return Self::Rejected(applied, reason);
        }
        let acked = state.acked_at(revision);
        Self::Applied(acked.zip(since).map(|(acked, since)| acked - since))
    }

    const fn settled(&self) -> bool {
        matches!(self, Self::Applied(_) | Self::Rejected(..))
    }
}

/// One wait.
pub(super) struct Wait {
    pub(super) revision: Revision,
    /// When the revision was committed, where known.
    pub(super) since: Option<Instant>,
    nodes: Mutex<Nodes>,
    done: Notify,
}

#[derive(Default)]
struct Nodes {
    standing: HashMap<NodeId, (NetworkName, Standing)>,
    pending: usize,
}

impl Wait {
    pub(super) fn new(revision: Revision, since: Option<Instant>) -> Self {
        Self { revision, since, nodes: Mutex::default(), done: Notify::new() }
    }

    /// Adds a node to the set.
    pub(super) fn add(&self, network: NetworkName, node: NodeId, standing: Standing) {
        let mut nodes = self.nodes.lock();
        nodes.pending += usize::from(matches!(standing, Standing::Pending(_)));
        nodes.standing.insert(node, (network, standing));
    }

    /// A node moved. One outside the set doesn't matter; one that has applied stays so.
    pub(super) fn moved(&self, node: NodeId, standing: Standing) {
        let mut guard = self.nodes.lock();
        let nodes = &mut *guard;
        let Some((_, now)) = nodes.standing.get_mut(&node).filter(|(_, now)| !now.settled()) else {
            return;
        };
        nodes.pending -= usize::from(matches!(now, Standing::Pending(_)));
        nodes.pending += usize::from(matches!(standing, Standing::Pending(_)));
        *now = standing;
        if nodes.pending == 0 {
            self.done.notify_one();
        }
    }

    /// Returns when nobody is pending.
    pub(super) async fn settled(&self) {
        while self.nodes.lock().pending > 0 {
            self.done.notified().await;
        }
    }

    /// Where everybody stands.
    pub(super) fn progress(&self) -> Progress {
        let mut progress = Progress { indexed: true, ..Progress::default() };
        for (node, (network, standing)) in &self.nodes.lock().standing {
            let (node, network) = (*node, network.clone());
            let lagging = |applied: &Revision, reason: &str| Lagging {
                network: network.clone(),
                node,
                applied: *applied,
                reason: reason.to_owned(),
            };
            match standing {
                Standing::Applied(after) => {
                    progress.applied.push(AppliedAfter { network, node, after: *after });
                }
                Standing::Rejected(applied, why) => progress.rejected.push(lagging(applied, why)),
                Standing::Pending(applied) => progress.pending.push(lagging(applied, "")),
                Standing::Offline(applied) => progress.offline.push(lagging(applied, "")),
            }
        }
        progress
    }
}

/// All waits that are going on.
#[derive(Default)]
pub(super) struct Waits(Mutex<Vec<Arc<Wait>>>);

impl Waits {
    /// Begins a wait, which lasts until the guard goes; `None` where there are too many.
    pub(super) fn begin(&self, wait: Arc<Wait>) -> Option<Waiting<'_>> {
        let mut waits = self.0.lock();
        if waits.len() == MAX_WAITS {
            return None;
        }
        waits.push(Arc::clone(&wait));
        Some(Waiting { waits: self, wait })
    }

    /// Whether anybody waits.
    pub(super) fn any(&self) -> bool {
        !self.0.lock().is_empty()
    }

    /// A node acked, came or went.
    pub(super) fn moved(&self, node: NodeId, state: &State) {
        for wait in self.0.lock().iter() {
            wait.moved(node, Standing::of(state, wait.revision, wait.since));
        }
    }
}

/// A wait that is going on.
pub(super) struct Waiting<'a> {
    waits: &'a Waits,
    wait: Arc<Wait>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waits.0.lock().retain(|wait| !Arc::ptr_eq(wait, &self.wait));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(standings: &[Standing]) -> Wait {
        let wait = Wait::new(Revision(9), None);
        for (n, standing) in (0..).zip(standings) {
            wait.add("default".parse().unwrap(), NodeId::new([n; 16]), standing.clone());
        }
        wait
    }

    #[tokio::test(start_paused = true)]
    async fn a_disconnect_ends_the_wait_without_applying() {
        let pending = Standing::Pending(Revision(1));
        let wait = wait(&[pending.clone(), pending.clone()]);
        wait.moved(NodeId::new([0; 16]), Standing::Applied(None));
        assert!(tokio::time::timeout(Duration::from_secs(1), wait.settled()).await.is_err());
        wait.moved(NodeId::new([1; 16]), Standing::Offline(Revision(1)));
        wait.settled().await;
        let progress = wait.progress();
        assert_eq!((progress.applied.len(), progress.offline.len()), (1, 1));
        // Back again before anybody looked: pending; and what is applied stays applied.
        wait.moved(NodeId::new([1; 16]), pending.clone());
        wait.moved(NodeId::new([0; 16]), pending);
        assert_eq!((wait.progress().pending.len(), wait.progress().applied.len()), (1, 1));
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
