//! One network's current keys, and what is kept up to date beside them: nodes in the order of their
//! last change, classes, who matches which selector, and sums of digests.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use wattle_model::{Digest, History, Mode, NetworkName, NodeId, PolicyName, Revision, Traits};

use crate::{
    class::{Class, Classes},
    cost,
    node::{Body, Entry, Node},
    orders::Orders,
    selectors::{Policy, Selectors},
    sums::{Sums, Weight},
};

/// A network and all that belongs to it.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) name: Arc<NetworkName>,
    /// `None` while only things in it have come.
    pub(crate) mode: Option<History<Mode>>,
    pub(crate) policies: BTreeMap<PolicyName, Policy>,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    /// Every node, dead ones too, by the revision of its last change.
    pub(crate) by_change: BTreeSet<(Revision, NodeId)>,
    /// Every node that has forgotten, by the revision from which on it remembers.
    pub(crate) forgetful: BTreeSet<(Revision, NodeId)>,
    /// How many nodes live.
    pub(crate) live: usize,
    /// The last revision at which the mode or a policy changed.
    pub(crate) shaped: Revision,
    pub(crate) selectors: Selectors,
    pub(crate) classes: Classes,
    /// How many changes of the mode and of policies were taken in.
    pub(crate) stamp: u64,
    /// The last of the mode among them.
    pub(crate) mode_stamp: u64,
    /// The revisions from which on policies that have forgotten remember, and how many of each.
    pub(crate) floors: BTreeMap<Revision, usize>,
    pub(crate) sums: Sums,
    pub(crate) orders: Mutex<Orders>,
}

/// What is kept of a node outside of it.
struct Place {
    changed: Revision,
    floor: Revision,
    lives: bool,
    weight: Option<Weight>,
}

impl Network {
    pub(crate) fn new(name: NetworkName) -> Self {
        Self {
            name: Arc::new(name),
            mode: None,
            policies: BTreeMap::new(),
            nodes: BTreeMap::new(),
            by_change: BTreeSet::new(),
            forgetful: BTreeSet::new(),
            live: 0,
            shaped: Revision::ZERO,
            selectors: Selectors::default(),
            classes: Classes::default(),
            stamp: 0,
            mode_stamp: 0,
            floors: BTreeMap::new(),
            sums: Sums::default(),
            orders: Mutex::default(),
        }
    }

    /// Nothing is known of it any longer.
    pub(crate) fn is_empty(&self) -> bool {
        self.mode.is_none() && self.policies.is_empty() && self.nodes.is_empty()
    }

    pub(crate) fn set_mode(&mut self, mode: Option<History<Mode>>) {
        if let Some(mode) = &mode {
            self.shaped = self.shaped.max(mode.present().from);
        }
        self.mode = mode;
        self.stamp += 1;
        self.mode_stamp = self.stamp;
        self.forget_orders();
    }

    pub(crate) fn set_node(&mut self, id: NodeId, history: History<Traits>) {
        let history = history.map(|traits| {
            let class = self.classes.class(&self.selectors.matched(id, &traits));
            Body { traits: Arc::new(traits), class }
        });
        let left = self.nodes.get(&id).map(Node::slots).unwrap_or_default();
        let old = self.change(id, |node| node.history.replace(history));
        self.rejoin(id, &left, old);
    }

    pub(crate) fn set_entry(&mut self, id: NodeId, revision: Revision, bytes: Option<Bytes>) {
        let entry = bytes.map(|bytes| {
            let digest = Digest::of(id, &bytes);
            Entry { bytes, revision, digest }
        });
        self.change(id, |node| node.entry = entry);
    }

    pub(crate) fn remove_node(&mut self, id: NodeId) {
        let left = self.nodes.get(&id).map(Node::slots).unwrap_or_default();
        let old = self.change(id, |node| std::mem::take(node).history);
        self.rejoin(id, &left, old);
    }

    /// Its policies now.
    pub(crate) fn present_policies(
        &self,
    ) -> impl Iterator<Item = (&PolicyName, wattle_model::Policy)> {
        self.policies.iter().filter_map(|(name, history)| {
            let sides = history.present().body?;
            let side = |slot| self.selectors.selector(slot).clone();
            Some((name, wattle_model::Policy { from: side(sides.from), to: side(sides.to) }))
        })
    }

    /// What a node adds to the digest of those who see its class.
    pub(crate) fn weight(&self, id: NodeId) -> Option<Weight> {
        cost::node();
        weight(self.nodes.get(&id)?)
    }

    /// Changes a node and what is kept beside it, except what goes by its history alone. A node of
    /// which nothing is left goes.
    fn change<T>(&mut self, id: NodeId, change: impl FnOnce(&mut Node) -> T) -> T {
        cost::node();
        let node = self.nodes.entry(id).or_default();
        let was = Place::of(node);
        let result = change(node);
        let now = Place::of(node);
        self.by_change.remove(&(was.changed, id));
        self.forgetful.remove(&(was.floor, id));
        if now.floor > Revision::ZERO {
            self.forgetful.insert((now.floor, id));
        }
        if node.history.is_some() || node.entry.is_some() {
            self.by_change.insert((now.changed, id));
        } else {
            self.nodes.remove(&id);
        }
        self.live = self.live + usize::from(now.lives) - usize::from(was.lives);
        self.forget_orders();
        self.weigh(was.weight, now.weight);
        result
    }

    fn weigh(&mut self, was: Option<Weight>, now: Option<Weight>) {
        if was == now {
            return;
        }
        for weight in was.iter() {
            for slot in weight.class.slots() {
                self.selectors.get_mut(*slot).sum -= weight.digest;
            }
        }
        for weight in now.iter() {
            for slot in weight.class.slots() {
                self.selectors.get_mut(*slot).sum += weight.digest;
            }
        }
        for forgotten in self.sums.change(was, now) {
            self.classes.retire(forgotten.class);
        }
    }

    /// A node's history was replaced: it leaves the selectors that only a body of the old one
    /// matched, and joins those that one of the new one does.
    fn rejoin(&mut self, id: NodeId, left: &[u32], old: Option<History<Body>>) {
        let joined = self.nodes.get(&id).map(Node::slots).unwrap_or_default();
        for slot in left.iter().filter(|slot| !joined.contains(slot)) {
            self.selectors.part(*slot, id);
        }
        for slot in joined.iter().filter(|slot| !left.contains(slot)) {
            self.selectors.join(*slot, id);
        }
        if let Some(old) = old {
            // For what it does on the way: the last of a class is gone with its body.
            let _ = old.map(|body| self.classes.retire(body.class));
        }
    }
}

impl Place {
    fn of(node: &Node) -> Self {
        Self {
            changed: node.changed(),
            floor: node.history.as_ref().map_or(Revision::ZERO, History::floor),
            lives: node.present().is_some(),
            weight: weight(node),
        }
    }
}

fn weight(node: &Node) -> Option<Weight> {
    node.visible().map(|(class, entry)| Weight { class: Class::clone(class), digest: entry.digest })
}
