//! Whom a change concerns: what "applied by all" waits for. Answers come from current keys alone,
//! so they may name an agent too many (an entry that changed again since, a record that has
//! forgotten), never one too few.

use std::collections::HashMap;

use wattle_model::{NetworkName, NodeId, Revision};

use crate::{
    Index,
    cache::Path,
    cost,
    network::Network,
    node::Node,
    sight::{Seen, Sight},
};

impl Index {
    /// The last revision at which anything changed that agents may see; zero where nothing is known.
    pub fn last_change(&self) -> Revision {
        self.networks.values().map(last_change).max().unwrap_or_default()
    }

    /// The live agents that saw or see what changed at `revision`.
    pub fn concerned(&self, revision: Revision) -> Vec<(NetworkName, NodeId)> {
        if revision == Revision::ZERO || revision > self.head() {
            return Vec::new();
        }
        let before = Revision(revision.0 - 1);
        let mut concerned = Vec::new();
        for (name, network) in &self.networks {
            // Below the horizon what changed may be forgotten altogether.
            if before >= self.horizon() && !may_have_changed(network, revision) {
                continue;
            }
            let mut memo = HashMap::new();
            for (id, node) in network.nodes.iter().filter(|(_, node)| node.present().is_some()) {
                let path = self.path(network, node, before, revision);
                if *memo.entry(path).or_insert_with_key(|path| touched(network, path, revision)) {
                    concerned.push((name.clone(), *id));
                }
            }
        }
        concerned
    }

    /// Whether anything for a live agent lies after `after` and up to `upto`.
    pub fn concerns(
        &self,
        network: &NetworkName,
        agent: NodeId,
        after: Revision,
        upto: Revision,
    ) -> bool {
        after < upto
            && self.find_live(network, agent).is_some_and(|(network, node)| {
                touched(network, &self.path(network, node, after, upto), upto)
            })
    }
}

/// Whether anything in the network can have changed at `revision`: whatever did has a last change
/// there or later.
fn may_have_changed(network: &Network, revision: Revision) -> bool {
    last_change(network) >= revision
}

fn last_change(network: &Network) -> Revision {
    let last = network.by_change.last().map_or(Revision::ZERO, |(revision, _)| *revision);
    last.max(network.shaped)
}

/// Whether something changed, from the beginning of a path up to `upto`, for whoever has its sights.
fn touched(network: &Network, path: &Path, upto: Revision) -> bool {
    let [(after, sight), rest @ ..] = path.as_slice() else { return false };
    if path.iter().any(|(_, sight)| sight.has_forgotten()) {
        return true;
    }
    let touched = |id: &NodeId| {
        cost::node();
        network.nodes.get(id).is_some_and(|node| node_touched(node, path, upto))
    };
    if !rest.is_empty() {
        return network.nodes.keys().any(touched);
    }
    let changed = network.by_change.range((after.next(), NodeId::default())..);
    **sight != Sight::Nobody && changed.map(|(_, id)| id).any(touched)
}

fn node_touched(node: &Node, path: &Path, upto: Revision) -> bool {
    let after = path.first().map_or(upto, |(after, _)| *after);
    let own = node.changes_after(after).filter(|point| *point <= upto);
    let mut points: Vec<Revision> = path.iter().map(|(from, _)| *from).chain(own).collect();
    points.sort_unstable();
    let seen = |point: &Revision| {
        let sight = path.iter().rev().find(|(from, _)| from <= point);
        sight.map_or(Seen::Unknown, |(_, sight)| sight.sees(node.at(*point)))
    };
    let mut seen = points.iter().map(seen);
    let first = seen.next().unwrap_or(Seen::Unknown);
    let (mut ever, mut changed) = (first != Seen::No, first == Seen::Unknown);
    for now in seen {
        ever |= now != Seen::No;
        changed |= now != first;
    }
    // A dead node's entry is gone, and with it the revision of the entry's last change.
    let last = node.entry.as_ref().map_or_else(|| node.changed(), |entry| entry.revision);
    changed || (ever && last > after)
}
