//! Classes: which selectors of a network's policies a node matches. A class never leaves the
//! process; it stands for the node's traits wherever sight is computed.

use std::{collections::HashMap, sync::Arc};

use wattle_model::{NodeId, Selector, Traits};

/// The slots of all selectors that a node matches, rising.
pub(crate) type Class = Arc<[u32]>;

/// Every selector that a present or past body of a policy names, each in a slot of its own.
#[derive(Debug, Default)]
pub(crate) struct Selectors {
    slots: Vec<Slot>,
    by_selector: HashMap<Selector, u32>,
    free: Vec<u32>,
}

#[derive(Debug, Default)]
struct Slot {
    selector: Selector,
    /// How many policy bodies name it; 0 where the slot is free.
    uses: usize,
}

impl Selectors {
    /// The selector's slot, and whether classes don't know it yet.
    pub(crate) fn acquire(&mut self, selector: &Selector) -> (u32, bool) {
        if let Some(&slot) = self.by_selector.get(selector) {
            self.slots[slot as usize].uses += 1;
            return (slot, false);
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("memory ends before slots do")
        });
        self.slots[slot as usize] = Slot { selector: selector.clone(), uses: 1 };
        self.by_selector.insert(selector.clone(), slot);
        (slot, true)
    }

    /// Gives up one use, and says whether it was the last, after which the slot may stand for
    /// another selector: no class may name it any longer.
    pub(crate) fn release(&mut self, slot: u32) -> bool {
        let held = &mut self.slots[slot as usize];
        held.uses -= 1;
        if held.uses > 0 {
            return false;
        }
        self.by_selector.remove(&std::mem::take(&mut held.selector));
        self.free.push(slot);
        true
    }

    /// What a slot in use stands for.
    pub(crate) fn selector(&self, slot: u32) -> &Selector {
        &self.slots[slot as usize].selector
    }

    /// The class of a node with these traits.
    pub(crate) fn class_of(&self, node: NodeId, traits: &Traits) -> Class {
        (0..).zip(&self.slots).filter(|(_, s)| s.matches(node, traits)).map(|(i, _)| i).collect()
    }

    /// The class after only the slots in `changed` took or lost their selector.
    pub(crate) fn reclass(
        &self,
        class: &Class,
        changed: &[u32],
        node: NodeId,
        traits: &Traits,
    ) -> Class {
        let kept = class.iter().copied().filter(|slot| !changed.contains(slot));
        let new = changed.iter().copied().filter(|s| self.slots[*s as usize].matches(node, traits));
        let mut slots: Vec<u32> = kept.chain(new).collect();
        slots.sort_unstable();
        slots.dedup();
        slots.into()
    }
}

impl Slot {
    fn matches(&self, node: NodeId, traits: &Traits) -> bool {
        self.uses > 0 && self.selector.matches(node, traits)
    }
}

#[cfg(test)]
mod tests {
    use wattle_model::Labels;

    use super::*;

    #[test]
    fn a_freed_slot_serves_the_next_selector() {
        let node = NodeId::new([1; 16]);
        let traits = Traits::from(Labels::from_texts(["a=1"]).unwrap());
        let mut selectors = Selectors::default();
        let (a, new) = selectors.acquire(&"a=1".parse().unwrap());
        assert!(new && !selectors.acquire(&"a=1".parse().unwrap()).1);
        let class = selectors.class_of(node, &traits);
        assert_eq!(*class, [a]);
        assert!(!selectors.release(a) && selectors.release(a));
        let (b, new) = selectors.acquire(&"a=2".parse().unwrap());
        assert!(new && a == b);
        assert!(selectors.reclass(&class, &[a, b], node, &traits).is_empty());
    }
}
