//! The walk behind every pull: over all nodes in the order of the last change between each and the
//! agent, comparing what the agent holds with what it should.
//!
//! The order is (revision, node), where the revision is the node's own last change or, if later,
//! the last time since the walk began at which the agent's sight of it changed. So whatever changes
//! behind the walk's position comes again at its tail, and whatever lies after it and is older than
//! the walk's beginning hasn't been sent in this walk.

use std::{
    collections::HashMap,
    iter,
    ops::Bound::{Excluded, Included},
    sync::Arc,
};

use wattle_model::{At, NodeId, Revision};

use crate::{
    Commit, Page, Position, PullKey,
    class::Class,
    cost,
    network::Network,
    node::Node,
    orders::Order,
    pull::{Filling, Item},
    reach::{LAST, Place, Places},
    sight::{Reach, Seen, Sight},
};

/// The page that `key` stands for.
pub(crate) fn pull(network: &Network, key: &PullKey, max_bytes: usize) -> Page {
    let walk = Walk { network, key };
    let base = key.position.base.unwrap_or(key.head);
    let mut page = Filling::new(max_bytes, Position { base: Some(base), ..key.position });
    for (revision, id) in walk.rest() {
        cost::node();
        let Some(item) = walk.difference(revision, id) else { continue };
        if !page.push(&item, Position { revision, node: id, base: Some(base) }) {
            return page.cut();
        }
    }
    page.commit(Commit { revision: key.head, digest: network.digest(&key.now) })
}

struct Walk<'a> {
    network: &'a Network,
    key: &'a PullKey,
}

/// What an agent may hold of a node.
struct Held {
    perhaps: bool,
    perhaps_not: bool,
}

impl<'a> Walk<'a> {
    /// What lies after the position, in order.
    fn rest(&self) -> impl Iterator<Item = (Revision, NodeId)> + use<'a> {
        let position = (self.key.position.revision, self.key.position.node);
        let unchanged = (self.key.from, LAST);
        let newer = self.network.changed_after(position.max(unchanged), || self.reach());
        let turned = self.key.from > Revision::ZERO && position < unchanged;
        let older = turned.then(|| self.turned(position, unchanged));
        let walk = Self { network: self.network, key: self.key };
        let in_place = older.into_iter().flatten().chain(newer);
        let in_place = in_place.filter(move |(changed, id)| !walk.has_moved(*changed, *id));

        let moved = self.moved();
        let start = moved.partition_point(|item| *item <= position);
        merge(in_place, (start..moved.len()).map(move |i| moved[i]))
    }

    /// The nodes that didn't change after `from` and may be seen otherwise now, in order.
    fn turned(&self, position: Place, last: Place) -> Places<'a> {
        let range = (Excluded(position), Included(last));
        match self.key.was.differing(&self.key.now) {
            Reach::Slots(slots) => Box::new(self.network.places(&slots, range).into_iter()),
            Reach::All => Box::new(self.network.by_change.range(range).copied()),
        }
    }

    /// Where all nodes are that the agent may hold or should.
    fn reach(&self) -> Reach {
        let path = self.key.path.iter().map(|(_, sight)| sight);
        let sights = path.chain([&self.key.was, &self.key.now]);
        let reach = sights.map(Sight::reach).fold(Reach::Slots(Vec::new()), Reach::and);
        // A node that has forgotten what it was may have been anything.
        let was = (self.key.was != Sight::Nobody).then_some(self.key.from);
        let asked = was.into_iter().chain(self.key.position.base).min();
        let forgetful = asked.is_some_and(|since| self.network.forgot_after(since));
        if forgetful { Reach::All } else { reach }
    }

    /// The nodes whose last change is one of the agent's sight, in order.
    fn moved(&self) -> Order {
        if self.key.path.is_empty() {
            return Arc::new([]);
        }
        self.network.order(&self.key.path, || self.make_order())
    }

    fn make_order(&self) -> Order {
        let turns = self.key.path.windows(2).map(|pair| pair[0].1.differing(&pair[1].1));
        let ids: Box<dyn Iterator<Item = NodeId>> =
            match turns.fold(Reach::Slots(Vec::new()), Reach::and) {
                Reach::Slots(slots) => Box::new(self.network.matching(&slots).into_iter()),
                Reach::All => Box::new(self.network.nodes.keys().copied()),
            };
        let mut memo = HashMap::new();
        let mut order: Vec<_> = Vec::new();
        for id in ids {
            cost::node();
            let Some(node) = self.network.nodes.get(&id) else { continue };
            let Some(body) = node.present() else { continue };
            let flip = *memo.entry(&body.class).or_insert_with(|| self.last_flip(&body.class));
            order.extend(flip.filter(|flip| *flip > node.changed()).map(|flip| (flip, id)));
        }
        order.sort_unstable();
        order.into()
    }

    fn has_moved(&self, changed: Revision, id: NodeId) -> bool {
        if self.key.path.is_empty() {
            return false;
        }
        let class = self.network.nodes.get(&id).and_then(|node| Some(&node.present()?.class));
        class.and_then(|class| self.last_flip(class)).is_some_and(|flip| flip > changed)
    }

    /// The last change of the agent's sight, since the walk began, of nodes of this class.
    fn last_flip(&self, class: &Class) -> Option<Revision> {
        let sees = |i: usize| self.key.path[i].1.sees(At::Known(Some(class)));
        (1..self.key.path.len()).rev().find(|i| sees(*i) != sees(i - 1)).map(|i| self.key.path[i].0)
    }

    /// What the agent must be sent of a node, if anything.
    fn difference(&self, revision: Revision, id: NodeId) -> Option<Item<'a>> {
        let node = self.network.nodes.get(&id)?;
        let held = self.held(revision, node);
        match node.visible().filter(|(class, _)| self.key.now.holds(class)) {
            Some((_, entry)) => (held.perhaps_not || entry.revision > self.key.from)
                .then_some(Item::Entry(&entry.bytes)),
            None => held.perhaps.then_some(Item::Removal(id)),
        }
    }

    /// What the agent may hold: what it saw at `from`, and, if the node changed since the walk
    /// began, also whatever a page since then may have said.
    fn held(&self, revision: Revision, node: &Node) -> Held {
        let mut held = Held { perhaps: false, perhaps_not: false };
        held.add(self.key.was.sees(node.at(self.key.from)));
        if let Some(base) = self.key.position.base.filter(|base| revision > *base) {
            let path = self.key.path.iter().map(|(from, _)| *from);
            for point in path.chain(node.changes_after(base)).chain([base]) {
                held.add(self.key.sight_during(point).sees(node.at(point)));
            }
        }
        held
    }
}

impl Held {
    fn add(&mut self, seen: Seen) {
        self.perhaps |= seen != Seen::No;
        self.perhaps_not |= seen != Seen::Yes;
    }
}

/// Two ordered sequences as one.
fn merge<T: Ord>(
    a: impl Iterator<Item = T>,
    b: impl Iterator<Item = T>,
) -> impl Iterator<Item = T> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some(x), Some(y)) if y < x => b.next(),
        (None, _) => b.next(),
        _ => a.next(),
    })
}
