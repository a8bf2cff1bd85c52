//! Every selector that a present or past body of a policy names, each in a slot of its own, with
//! the policies that name it and the nodes that match it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use wattle_model::{Digest, History, NodeId, Revision, Selector, Traits};

use crate::{candidates::Candidates, cost, sight::Sides};

/// A policy's present and past bodies.
pub(crate) type Policy = Arc<History<Sides>>;

/// The selectors of one network.
#[derive(Debug, Default)]
pub(crate) struct Selectors {
    slots: Vec<Slot>,
    numbers: HashMap<Arc<Selector>, u32>,
    free: Vec<u32>,
    candidates: Candidates,
    /// The nodes of which a body, present or past, matches: slot by slot.
    members: BTreeSet<(u32, NodeId)>,
}

/// A selector; nobody names that of a free slot.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    selector: Arc<Selector>,
    /// Those that name it, each once.
    pub(crate) policies: Vec<Policy>,
    /// When the last change of a policy that names it was taken in, in the network's own count.
    pub(crate) stamp: u64,
    /// The revision of the last such change.
    pub(crate) shaped: Revision,
    /// How many members it has.
    pub(crate) members: usize,
    /// The digest of all entries of nodes that match it now.
    pub(crate) sum: Digest,
}

impl Selectors {
    /// The selector's slot, and whether it is a new one.
    pub(crate) fn slot_for(&mut self, selector: &Selector) -> (u32, bool) {
        if let Some(&slot) = self.numbers.get(selector) {
            return (slot, false);
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("memory ends before slots do")
        });
        let selector = Arc::new(selector.clone());
        self.candidates.add(&selector, slot);
        self.numbers.insert(Arc::clone(&selector), slot);
        self.slots[slot as usize] = Slot { selector, ..Slot::default() };
        (slot, true)
    }

    /// A policy came to name its slots.
    pub(crate) fn name(&mut self, policy: &Policy, stamp: u64) {
        for slot in slots_of(policy) {
            let slot = &mut self.slots[slot as usize];
            slot.policies.reserve_exact(1);
            slot.policies.push(Arc::clone(policy));
            slot.stamp = stamp;
            slot.shaped = slot.shaped.max(policy.present().from);
        }
    }

    /// A policy names its slots no longer. Those that nobody names now are to be freed.
    pub(crate) fn unname(&mut self, policy: &Policy, stamp: u64) -> Vec<u32> {
        let mut unnamed = slots_of(policy);
        unnamed.retain(|slot| {
            let slot = &mut self.slots[*slot as usize];
            slot.policies.retain(|other| !Arc::ptr_eq(other, policy));
            slot.stamp = stamp;
            slot.policies.is_empty()
        });
        unnamed
    }

    /// Frees a slot, which may stand for another selector from now on: no class has it any longer.
    pub(crate) fn free(&mut self, slot: u32) {
        let held = std::mem::take(&mut self.slots[slot as usize]);
        debug_assert_eq!((held.policies.len(), held.members), (0, 0), "still in use");
        self.numbers.remove(&held.selector);
        self.candidates.remove(&held.selector, slot);
        self.free.push(slot);
    }

    pub(crate) fn get(&self, slot: u32) -> &Slot {
        cost::slot();
        &self.slots[slot as usize]
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> &mut Slot {
        cost::slot();
        &mut self.slots[slot as usize]
    }

    /// What a slot in use stands for.
    pub(crate) fn selector(&self, slot: u32) -> &Selector {
        &self.get(slot).selector
    }

    /// The slot of the selector that every node matches.
    pub(crate) fn everyone(&self) -> Option<u32> {
        self.numbers.get(&Selector::default()).copied()
    }

    /// The slots of all selectors that a node with these traits matches, rising.
    pub(crate) fn matched(&self, node: NodeId, traits: &Traits) -> Vec<u32> {
        let candidates = self.candidates.of(node, traits);
        let mut slots: Vec<u32> = candidates.filter(|s| self.matches(*s, node, traits)).collect();
        slots.sort_unstable();
        slots
    }

    pub(crate) fn matches(&self, slot: u32, node: NodeId, traits: &Traits) -> bool {
        self.get(slot).selector.matches(node, traits)
    }

    /// The nodes of which a body, present or past, matches the selector in a slot.
    pub(crate) fn members(&self, slot: u32) -> impl Iterator<Item = NodeId> + use<'_> {
        let (first, last) = (NodeId::default(), NodeId::new([0xff; NodeId::LEN]));
        self.members.range((slot, first)..=(slot, last)).map(|(_, node)| *node)
    }

    /// How many members these slots have, counting one that has several of them as often.
    pub(crate) fn count(&self, slots: &[u32]) -> usize {
        slots.iter().map(|slot| self.get(*slot).members).sum()
    }

    pub(crate) fn join(&mut self, slot: u32, node: NodeId) {
        if self.members.insert((slot, node)) {
            self.get_mut(slot).members += 1;
        }
    }

    pub(crate) fn part(&mut self, slot: u32, node: NodeId) {
        if self.members.remove(&(slot, node)) {
            self.get_mut(slot).members -= 1;
        }
    }
}

/// Every slot that a body of a policy names, rising.
pub(crate) fn slots_of(policy: &History<Sides>) -> Vec<u32> {
    let bodies = policy.past().iter().chain([policy.present()]);
    let sides = bodies.flat_map(|version| &version.body);
    let mut slots: Vec<u32> = sides.flat_map(|sides| [sides.from, sides.to]).collect();
    slots.sort_unstable();
    slots.dedup();
    slots
}
