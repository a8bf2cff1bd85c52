//! What a change of a policy does to classes: nodes that match a selector which nobody named before
//! get its slot, and those that match one which nobody names any longer lose it.

use std::sync::Arc;

use wattle_model::{History, NodeId, Policy, PolicyName, Selector};

use crate::{
    network::Network,
    node::{Body, bodies},
    sight::Sides,
};

impl Network {
    pub(crate) fn set_policy(&mut self, name: PolicyName, policy: Option<History<Policy>>) {
        self.stamp += 1;
        let mut made = Vec::new();
        let new = policy.map(|policy| {
            self.shaped = self.shaped.max(policy.present().from);
            let mut slot = |selector: &Selector| {
                let (slot, new) = self.selectors.slot_for(selector);
                made.extend(new.then_some(slot));
                slot
            };
            Arc::new(policy.map(|body| Sides { from: slot(&body.from), to: slot(&body.to) }))
        });
        if let Some(new) = &new {
            self.selectors.name(new, self.stamp);
            *self.floors.entry(new.floor()).or_default() += 1;
        }
        let old = match new {
            Some(new) => self.policies.insert(name, new),
            None => self.policies.remove(&name),
        };
        self.gain(&made);
        if let Some(old) = old {
            for slot in self.selectors.unname(&old, self.stamp) {
                self.lose(slot);
            }
            self.forget_floor(&old);
        }
        self.forget_orders();
    }

    fn forget_floor(&mut self, policy: &History<Sides>) {
        if let Some(policies) = self.floors.get_mut(&policy.floor()) {
            *policies -= 1;
            if *policies == 0 {
                self.floors.remove(&policy.floor());
            }
        }
    }

    /// Gives new slots to every node that matches their selectors.
    fn gain(&mut self, slots: &[u32]) {
        if slots.is_empty() {
            return;
        }
        let matching = self.nodes.iter().filter_map(|(id, node)| {
            let matches = |body: &Body| {
                slots.iter().any(|slot| self.selectors.matches(*slot, *id, &body.traits))
            };
            bodies(node.history.as_ref()?).any(matches).then_some(*id)
        });
        for id in matching.collect::<Vec<_>>() {
            self.reclass(id, slots, None);
            let Some(node) = self.nodes.get(&id) else { continue };
            let all = node.slots();
            let (present, weight) =
                (node.present().map(|body| body.class.clone()), self.weight(id));
            for slot in slots.iter().filter(|slot| all.contains(slot)) {
                self.selectors.join(*slot, id);
                if present.as_ref().is_some_and(|class| class.has(*slot))
                    && let Some(weight) = &weight
                {
                    self.selectors.get_mut(*slot).sum += weight.digest;
                }
            }
        }
    }

    /// Takes a slot from every node that has it, and frees it.
    fn lose(&mut self, slot: u32) {
        for id in self.selectors.members(slot).collect::<Vec<_>>() {
            self.reclass(id, &[], Some(slot));
            self.selectors.part(slot, id);
        }
        self.selectors.free(slot);
    }

    /// Brings the classes of a node's bodies up to date.
    fn reclass(&mut self, id: NodeId, gained: &[u32], lost: Option<u32>) {
        let Self { nodes, classes, selectors, .. } = self;
        let Some(node) = nodes.get_mut(&id) else { return };
        let reclassed = node.history.take().map(|history| {
            history.map(|Body { traits, class }| {
                let matching = gained.iter().filter(|slot| selectors.matches(**slot, id, &traits));
                let kept = class.slots().iter().filter(|slot| Some(**slot) != lost);
                let mut slots: Vec<u32> = kept.chain(matching).copied().collect();
                slots.sort_unstable();
                let new = classes.class(&slots);
                classes.retire(class);
                Body { traits, class: new }
            })
        });
        node.history = reclassed;
    }
}
