//! What one revision touched, gathered once, so that each class is asked about all of it together
//! and not about node after node.

use std::collections::{BTreeSet, HashSet};

use wattle_model::{At, NodeId, Revision};

use crate::{class::Class, cost, network::Network, node::Node, sight::Sight};

/// What a revision touched of those who saw the same before and after it.
#[derive(Debug, Default)]
pub(crate) struct Touched<'a> {
    /// Of the nodes whose entry may have changed: the slots of their classes before and after.
    slots: BTreeSet<u32>,
    /// There are such nodes.
    some: bool,
    /// There is a node that has forgotten what it was.
    forgotten: bool,
    /// Nodes of one class that became of another.
    turned: HashSet<(At<&'a Class>, At<&'a Class>)>,
}

impl<'a> Touched<'a> {
    /// What `revision` touched.
    pub(crate) fn at(network: &'a Network, revision: Revision) -> Self {
        let mut touched = Self::default();
        for (_, id) in network.by_change.range((revision, NodeId::default())..) {
            cost::node();
            if let Some(node) = network.nodes.get(id) {
                touched.add(node, revision);
            }
        }
        touched
    }

    fn add(&mut self, node: &'a Node, revision: Revision) {
        let (was, is) = (node.at(Revision(revision.0 - 1)), node.at(revision));
        self.forgotten |= was == At::Unknown;
        if node.entry_changed() >= revision {
            for class in [was, is] {
                let At::Known(Some(class)) = class else { continue };
                self.some = true;
                self.slots.extend(class.slots());
            }
        } else if was != is {
            self.turned.insert((was, is));
        }
    }

    /// Whether it touched anything for whoever has this sight before and after.
    pub(crate) fn by(&self, sight: &Sight) -> bool {
        let holds = match sight {
            Sight::Nobody => return false,
            Sight::Unknown => return true,
            Sight::Everybody => self.some,
            Sight::Selected(selected) => self.touches(selected.partners()),
        };
        let turns = |(was, is): &(At<&Class>, At<&Class>)| sight.sees(*was) != sight.sees(*is);
        holds || self.forgotten || sight.has_forgotten() || self.turned.iter().any(turns)
    }

    fn touches(&self, partners: &[u32]) -> bool {
        if partners.len() < self.slots.len() {
            partners.iter().any(|slot| self.slots.contains(slot))
        } else {
            self.slots.iter().any(|slot| partners.binary_search(slot).is_ok())
        }
    }
}
