//! One network's current keys, and what is kept up to date beside them: nodes in the order of their
//! last change, classes, and the digest of all.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use wattle_model::{
    At, Digest, History, Mode, NetworkName, NodeId, Policy, PolicyName, Revision, Selector, Traits,
};

use crate::{
    cache::Cache,
    class::{Class, Selectors},
    cost,
    node::{Body, Entry, Node},
    sight::{Sides, Sight, sight_at},
};

/// A network and all that belongs to it.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) name: Arc<NetworkName>,
    /// `None` while only things in it have come.
    pub(crate) mode: Option<History<Mode>>,
    pub(crate) policies: BTreeMap<PolicyName, History<Sides>>,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    /// Every node, dead ones too, by the revision of its last change.
    pub(crate) by_change: BTreeSet<(Revision, NodeId)>,
    /// How many nodes live.
    pub(crate) live: usize,
    /// The last revision at which the mode or a policy changed.
    pub(crate) shaped: Revision,
    selectors: Selectors,
    /// Of every live node's entry.
    total: Digest,
    cache: Mutex<Cache>,
}

impl Network {
    pub(crate) fn new(name: NetworkName) -> Self {
        Self {
            name: Arc::new(name),
            mode: None,
            policies: BTreeMap::new(),
            nodes: BTreeMap::new(),
            by_change: BTreeSet::new(),
            live: 0,
            shaped: Revision::ZERO,
            selectors: Selectors::default(),
            total: Digest::EMPTY,
            cache: Mutex::new(Cache::new()),
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
        self.forget_shared_work();
    }

    pub(crate) fn set_policy(&mut self, name: PolicyName, policy: Option<History<Policy>>) {
        let mut changed = Vec::new();
        let new = policy.map(|policy| {
            self.shaped = self.shaped.max(policy.present().from);
            self.acquire(policy, &mut changed)
        });
        let old = match new {
            Some(new) => self.policies.insert(name, new),
            None => self.policies.remove(&name),
        };
        if let Some(old) = old {
            self.release(&old, &mut changed);
        }
        if !changed.is_empty() {
            self.reclass(&changed);
        }
        self.forget_shared_work();
    }

    pub(crate) fn set_node(&mut self, id: NodeId, history: History<Traits>) {
        let history = history.map(|traits| {
            let class = self.selectors.class_of(id, &traits);
            Body { traits: Arc::new(traits), class }
        });
        self.change(id, |node| node.history = Some(history));
    }

    pub(crate) fn set_entry(&mut self, id: NodeId, revision: Revision, bytes: Option<Bytes>) {
        let entry = bytes.map(|bytes| {
            let digest = Digest::of(id, &bytes);
            Entry { bytes, revision, digest }
        });
        self.change(id, |node| node.entry = entry);
    }

    pub(crate) fn remove_node(&mut self, id: NodeId) {
        self.change(id, |node| *node = Node::default());
    }

    /// Its policies now.
    pub(crate) fn present_policies(&self) -> impl Iterator<Item = (&PolicyName, Policy)> {
        self.policies.iter().filter_map(|(name, history)| {
            let sides = history.present().body?;
            let side = |slot| self.selectors.selector(slot).clone();
            Some((name, Policy { from: side(sides.from), to: side(sides.to) }))
        })
    }

    /// The sight at `revision` of a node that then was of class `node`.
    pub(crate) fn sight(&self, node: At<&Class>, revision: Revision) -> Arc<Sight> {
        let At::Known(Some(class)) = node else {
            return Arc::new(sight_at(self, node, revision));
        };
        // From the last change on it stays the same, whatever the revision.
        let key = (Arc::clone(class), revision.min(self.shaped));
        if let Some(sight) = self.cache().sights.get(&key) {
            return Arc::clone(sight);
        }
        let sight = Arc::new(sight_at(self, node, revision));
        self.cache().sights.put(key, Arc::clone(&sight));
        sight
    }

    /// The digest of everything in a sight now.
    pub(crate) fn digest(&self, sight: &Arc<Sight>) -> Digest {
        match **sight {
            Sight::Nobody | Sight::Unknown => return Digest::EMPTY,
            Sight::Everybody => return self.total,
            Sight::Selected { .. } => {}
        }
        if let Some(digest) = self.cache().digests.get(sight) {
            return *digest;
        }
        let mut sum = Digest::EMPTY;
        for node in self.nodes.values() {
            cost::node();
            if let Some((_, entry)) = node.visible().filter(|(class, _)| sight.holds(class)) {
                sum += entry.digest;
            }
        }
        self.cache().digests.put(Arc::clone(sight), sum);
        sum
    }

    /// Work that nodes share. A thread that died with it left it whole: it is only ever added to.
    pub(crate) fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn forget_shared_work(&mut self) {
        self.cache = Mutex::new(Cache::new());
    }

    /// Changes a node and all that is kept beside it. A node of which nothing is left goes.
    fn change(&mut self, id: NodeId, change: impl FnOnce(&mut Node)) {
        cost::node();
        let node = self.nodes.entry(id).or_default();
        let (was, lived) = (contribution(node), node.present().is_some());
        self.by_change.remove(&(node.changed(), id));
        change(node);
        let (now, lives) = (contribution(node), node.present().is_some());
        if node.history.is_some() || node.entry.is_some() {
            self.by_change.insert((node.changed(), id));
        } else {
            self.nodes.remove(&id);
        }
        self.live = self.live + usize::from(lives) - usize::from(lived);
        if let Some((_, digest)) = &was {
            self.total -= *digest;
        }
        if let Some((_, digest)) = &now {
            self.total += *digest;
        }
        let cache = self.cache.get_mut().unwrap_or_else(PoisonError::into_inner);
        cache.node_changed(was.as_ref(), now.as_ref());
    }

    fn acquire(&mut self, policy: History<Policy>, changed: &mut Vec<u32>) -> History<Sides> {
        let mut acquire = |selector: &Selector| {
            let (slot, new) = self.selectors.acquire(selector);
            changed.extend(new.then_some(slot));
            slot
        };
        policy.map(|body| Sides { from: acquire(&body.from), to: acquire(&body.to) })
    }

    fn release(&mut self, policy: &History<Sides>, changed: &mut Vec<u32>) {
        for version in policy.past().iter().chain([policy.present()]) {
            for slot in version.body.iter().flat_map(|sides| [sides.from, sides.to]) {
                changed.extend(self.selectors.release(slot).then_some(slot));
            }
        }
    }

    /// Brings every class, of past bodies too, up to date with the slots that took or lost their
    /// selector.
    fn reclass(&mut self, changed: &[u32]) {
        for (id, node) in &mut self.nodes {
            let reclassed = node.history.take().map(|history| {
                history.map(|Body { traits, class }| {
                    let class = self.selectors.reclass(&class, changed, *id, &traits);
                    Body { traits, class }
                })
            });
            node.history = reclassed;
        }
    }
}

/// What a node adds to the digest of those who see its class.
fn contribution(node: &Node) -> Option<(Class, Digest)> {
    node.visible().map(|(class, entry)| (Arc::clone(class), entry.digest))
}
