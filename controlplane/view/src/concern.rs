//! Whom a change concerns: what "applied by all" waits for. Answers come from current keys alone,
//! so they may name an agent too many (an entry that changed again since, a record that has
//! forgotten), never one too few.

use std::collections::HashMap;

use wattle_model::{At, NetworkName, NodeId, Revision};

use crate::{
    Index,
    class::Class,
    cost,
    network::Network,
    node::Node,
    reach::LAST,
    sight::{Reach, Seen, Sight},
    touched::Touched,
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
            let touched = Touched::at(network, revision);
            // Whatever was of one class before and at the revision is concerned alike.
            let mut memo: HashMap<(At<&Class>, At<&Class>), bool> = HashMap::new();
            for (id, node) in network.nodes.iter().filter(|(_, node)| node.present().is_some()) {
                let class = (node.at(before), node.at(revision));
                let concerns = memo.entry(class).or_insert_with(|| {
                    match self.path(network, node, before, revision).as_slice() {
                        [(_, sight)] => touched.by(sight),
                        path => any_touched(network, path, revision),
                    }
                });
                if *concerns {
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
                any_touched(network, &self.path(network, node, after, upto), upto)
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
fn any_touched(network: &Network, path: &[(Revision, Sight)], upto: Revision) -> bool {
    let [(after, sight), rest @ ..] = path else { return false };
    if path.iter().any(|(_, sight)| sight.has_forgotten()) {
        return true;
    }
    let touched = |id: NodeId| {
        cost::node();
        network.nodes.get(&id).is_some_and(|node| node_touched(node, path, upto))
    };
    if rest.is_empty() && *sight == Sight::Nobody {
        return false;
    }
    // Where sight changed, most often somebody came into it or left it.
    let turned = path.windows(2).any(|pair| match pair[0].1.differing(&pair[1].1) {
        Reach::Slots(slots) => {
            slots.iter().flat_map(|slot| network.selectors.members(*slot)).any(touched)
        }
        Reach::All => network.nodes.keys().copied().any(touched),
    });
    let reach = || {
        let reach = path.iter().map(|(_, sight)| sight.reach());
        let forgetful = network.forgot_after(*after);
        reach.fold(if forgetful { Reach::All } else { Reach::Slots(Vec::new()) }, Reach::and)
    };
    turned || network.changed_after((*after, LAST), reach).any(|(_, id)| touched(id))
}

fn node_touched(node: &Node, path: &[(Revision, Sight)], upto: Revision) -> bool {
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
    changed || (ever && node.entry_changed() > after)
}
