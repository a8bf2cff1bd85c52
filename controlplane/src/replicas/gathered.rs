//! Where nodes stand towards a revision, gathered from all replicas. Pure: the newest stream's
//! replica is believed; a node that has applied stays so; one that is nowhere is offline.

use std::collections::HashMap;

use wattle_model::{NetworkName, NodeId, Revision};

use crate::stream::{Claim, Progress, Report, Standing};

/// All nodes that a revision concerns.
pub(super) struct Gathered {
    nodes: HashMap<NodeId, Node>,
    pending: usize,
    /// Sources that haven't said yet all that they knew.
    awaited: Vec<bool>,
}

struct Node {
    network: NetworkName,
    standing: Standing,
    /// What each source says that knows of it.
    said: Vec<(usize, Claim, Standing)>,
}

impl Gathered {
    /// Nobody has said anything of these nodes yet.
    pub(super) fn new(concerned: Vec<(NetworkName, NodeId)>, sources: usize) -> Self {
        let node = |network| Node {
            network,
            standing: Standing::Offline(Revision::ZERO),
            said: Vec::new(),
        };
        let nodes = concerned.into_iter().map(|(network, id)| (id, node(network))).collect();
        Self { nodes, pending: 0, awaited: vec![true; sources] }
    }

    /// Everybody was heard, and nobody is waited for.
    pub(super) fn is_over(&self) -> bool {
        self.is_surveyed() && self.pending == 0
    }

    /// A source says where nodes stand.
    pub(super) fn hear(&mut self, source: usize, reports: Vec<Report>) {
        let sticky = self.is_surveyed();
        for Report { node, standing, claim } in reports {
            let Some(node) = self.nodes.get_mut(&node) else { continue };
            node.said.retain(|(from, ..)| *from != source);
            node.said.push((source, claim, standing));
            node.decide(sticky, &mut self.pending);
        }
    }

    /// A source has said all that it knew.
    pub(super) fn surveyed(&mut self, source: usize) {
        self.awaited[source] = false;
    }

    /// A source is gone, and with it the streams that it held.
    pub(super) fn lost(&mut self, source: usize) {
        let sticky = self.is_surveyed();
        for node in self.nodes.values_mut() {
            for (from, claim, standing) in &mut node.said {
                if *from == source {
                    claim.online = false;
                    if let Standing::Pending(applied) = standing {
                        *standing = Standing::Offline(*applied);
                    }
                }
            }
            node.decide(sticky, &mut self.pending);
        }
        self.awaited[source] = false;
    }

    /// Waits no longer for those who haven't said anything, and says who that is.
    pub(super) fn give_up(&mut self) -> Vec<usize> {
        let awaited = self.awaited.iter_mut().enumerate();
        awaited.filter_map(|(source, waits)| std::mem::take(waits).then_some(source)).collect()
    }

    /// Where everybody stands.
    pub(super) fn progress(&self) -> Progress {
        let mut progress = Progress { indexed: true, ..Progress::default() };
        for (id, node) in &self.nodes {
            progress.add(&node.network, *id, &node.standing);
        }
        progress
    }

    fn is_surveyed(&self) -> bool {
        !self.awaited.contains(&true)
    }
}

impl Node {
    /// `sticky` once everybody was heard: before, an old stream's replica may have been the first to
    /// speak.
    fn decide(&mut self, sticky: bool, pending: &mut usize) {
        if sticky && self.standing.settled() {
            return;
        }
        let newest = self.said.iter().reduce(|best, one| match one.1.beats(&best.1) {
            true => one,
            false => best,
        });
        let Some((_, _, standing)) = newest else { return };
        *pending -= usize::from(matches!(self.standing, Standing::Pending(_)));
        *pending += usize::from(matches!(standing, Standing::Pending(_)));
        self.standing = standing.clone();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;
    use wattle_model::InstanceId;

    use super::*;

    const PENDING: Standing = Standing::Pending(Revision(1));
    const OFFLINE: Standing = Standing::Offline(Revision(1));
    const APPLIED: Standing = Standing::Applied(None);

    fn report(node: u8, standing: Standing, online: bool, stream: u64) -> Vec<Report> {
        let instance = InstanceId::new([9; 16]);
        let at = Instant::now() - Duration::from_secs(100 - stream);
        let claim = Claim { online, instance, stream, at };
        vec![Report { node: NodeId::new([node; 16]), standing, claim }]
    }

    fn gathered(nodes: u8, sources: usize) -> Gathered {
        let concerned = (1..=nodes).map(|n| ("default".parse().unwrap(), NodeId::new([n; 16])));
        Gathered::new(concerned.collect(), sources)
    }

    fn counts(gathered: &Gathered) -> [usize; 3] {
        let progress = gathered.progress();
        [progress.applied.len(), progress.pending.len(), progress.offline.len()]
    }

    #[test]
    fn it_is_over_when_all_were_heard_and_nobody_is_pending() {
        let mut all = gathered(3, 2);
        all.hear(0, report(1, APPLIED, true, 1));
        all.surveyed(0);
        assert!(!all.is_over(), "the other one may know somebody who hasn't");
        all.hear(1, report(2, PENDING, true, 1));
        all.surveyed(1);
        assert!(!all.is_over());
        all.hear(1, report(2, APPLIED, true, 1));
        assert!(all.is_over());
        assert_eq!(counts(&all), [2, 0, 1], "nobody knows the third");
    }

    #[test]
    fn an_agent_that_moves_is_waited_for_where_it_is() {
        let mut all = gathered(1, 2);
        all.hear(0, report(1, PENDING, true, 1));
        (0..2).for_each(|source| all.surveyed(source));
        all.hear(1, report(1, PENDING, true, 2));
        all.hear(0, report(1, OFFLINE, false, 1));
        assert_eq!(counts(&all), [0, 1, 0], "its old replica's word doesn't count");
        all.hear(1, report(1, OFFLINE, false, 2));
        assert_eq!(counts(&all), [0, 0, 1], "a disconnect is never applied");
        all.hear(1, report(1, APPLIED, true, 3));
        all.hear(0, report(1, PENDING, true, 4));
        assert_eq!(counts(&all), [1, 0, 0], "what was applied stays so");
    }

    #[test]
    fn an_old_replicas_word_that_comes_first_is_corrected() {
        let mut all = gathered(1, 2);
        // The machine lost its state: its new stream begins from nothing.
        all.hear(0, report(1, APPLIED, false, 1));
        all.hear(1, report(1, PENDING, true, 2));
        (0..2).for_each(|source| all.surveyed(source));
        assert_eq!(counts(&all), [0, 1, 0]);
    }

    #[test]
    fn a_lost_replicas_agents_are_offline() {
        let mut all = gathered(2, 3);
        all.hear(1, report(1, PENDING, true, 1));
        all.hear(1, report(2, APPLIED, true, 1));
        all.surveyed(0);
        all.surveyed(1);
        assert_eq!(all.give_up(), [2]);
        assert!(!all.is_over());
        all.lost(1);
        assert!(all.is_over());
        assert_eq!(counts(&all), [1, 0, 1]);
        all.hear(0, report(1, APPLIED, true, 2));
        assert_eq!(counts(&all), [2, 0, 0], "it has come to another one");
    }
}
