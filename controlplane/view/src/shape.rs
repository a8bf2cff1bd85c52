//! What shapes sight, put together: from a class, the network's mode and the policies that name the
//! class's selectors, to what its nodes see.

use wattle_model::{At, Mode, Revision};

use crate::{
    class::Class,
    cost,
    network::Network,
    node::Node,
    sight::{Present, Sight},
};

impl Network {
    /// The sight at `revision` of a node that then was of class `node`.
    pub(crate) fn sight(&self, node: At<&Class>, revision: Revision) -> Sight {
        let mode = self.mode.as_ref().map_or(At::Known(None), |mode| mode.at(revision));
        let (class, mode) = match (node, mode) {
            (At::Known(None), _) | (_, At::Known(None)) => return Sight::Nobody,
            (At::Unknown, _) | (_, At::Unknown) => return Sight::Unknown,
            (At::Known(Some(class)), At::Known(Some(mode))) => (class, mode),
        };
        if *mode == Mode::Mesh {
            return Sight::Everybody;
        }
        let present = class.present(|kept| self.still_holds(kept, class), || self.present(class));
        if revision >= present.since && revision >= self.remembered() {
            return present.sight;
        }
        self.selected(class, revision)
    }

    /// The revisions after `after` and up to `upto` at which a node's sight may have changed, as far
    /// as the network's records say.
    pub(crate) fn points(&self, node: &Node, after: Revision, upto: Revision) -> Vec<Revision> {
        let mut points: Vec<Revision> = node.changes_after(after).collect();
        points.extend(self.mode.iter().flat_map(|mode| mode.changes_after(after)));
        for slot in node.slots() {
            let slot = self.selectors.get(slot);
            if slot.shaped > after {
                points.extend(slot.policies.iter().flat_map(|policy| policy.changes_after(after)));
            }
        }
        // What a policy has forgotten concerns everybody.
        points.extend(self.floors.range(after.next()..).map(|(floor, _)| *floor));
        points.retain(|point| *point <= upto);
        points
    }

    /// The revision from which on every policy remembers.
    fn remembered(&self) -> Revision {
        self.floors.last_key_value().map_or(Revision::ZERO, |(floor, _)| *floor)
    }

    /// Whether nothing changed since that could change what nodes of a class see.
    fn still_holds(&self, kept: &Present, class: &Class) -> bool {
        let last = class.slots().iter().map(|slot| self.selectors.get(*slot).stamp);
        last.fold(self.mode_stamp, u64::max) <= kept.stamp
    }

    fn present(&self, class: &Class) -> Present {
        let shaped = class.slots().iter().map(|slot| self.selectors.get(*slot).shaped);
        let mode = self.mode.as_ref().map_or(Revision::ZERO, |mode| mode.present().from);
        let since = shaped.fold(mode, Revision::max);
        let sight = self.selected(class, since.max(self.remembered()));
        Present { sight, since, stamp: self.stamp }
    }

    /// Whom policies let the nodes of a class see at a revision.
    fn selected(&self, class: &Class, revision: Revision) -> Sight {
        let mut partners = Vec::new();
        for own in class.slots() {
            for policy in &self.selectors.get(*own).policies {
                cost::policy();
                let At::Known(Some(sides)) = policy.at(revision) else { continue };
                partners.extend((sides.from == *own).then_some(sides.to));
                partners.extend((sides.to == *own).then_some(sides.from));
            }
        }
        // Equal sights are to be equal values, and this one is the most common.
        if self.selectors.everyone().is_some_and(|everyone| partners.contains(&everyone)) {
            return Sight::Everybody;
        }
        Sight::selected(partners, revision < self.remembered())
    }
}
