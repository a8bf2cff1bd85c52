//! Selectors by what they ask for, so that a node is compared with those that it may match and not
//! with all.

use std::{collections::HashMap, hash::Hash};

use wattle_model::{NodeId, NodeName, Requirement, Selector, Traits};

/// Slots of selectors, each under one of its requirements that most nodes don't meet.
#[derive(Debug, Default)]
pub(crate) struct Candidates {
    by_id: HashMap<NodeId, Vec<u32>>,
    by_name: HashMap<NodeName, Vec<u32>>,
    by_label: HashMap<Box<str>, ByValue>,
    /// Those that ask for nothing, or only that something is not so.
    rest: Vec<u32>,
}

/// Selectors that ask for a label.
#[derive(Debug, Default)]
struct ByValue {
    values: HashMap<Box<str>, Vec<u32>>,
    any: Vec<u32>,
}

impl Candidates {
    /// Adds a selector's slot.
    pub(crate) fn add(&mut self, selector: &Selector, slot: u32) {
        // Most hold one slot.
        let add = |slots: &mut Vec<u32>| {
            slots.reserve_exact(1);
            slots.push(slot);
        };
        self.each(selector, add);
    }

    /// Takes a selector's slot away.
    pub(crate) fn remove(&mut self, selector: &Selector, slot: u32) {
        self.each(selector, |slots| slots.retain(|other| *other != slot));
        match key(selector) {
            Some(Requirement::Node(ids)) => ids.iter().for_each(|id| tidy(&mut self.by_id, id)),
            Some(Requirement::Named(names)) => {
                names.iter().for_each(|name| tidy(&mut self.by_name, name));
            }
            Some(Requirement::In(key, values)) => {
                if let Some(by_value) = self.by_label.get_mut(key) {
                    values.iter().for_each(|value| tidy(&mut by_value.values, value));
                }
                self.tidy_label(key);
            }
            Some(Requirement::Exists(key)) => self.tidy_label(key),
            _ => {}
        }
    }

    /// The slots of all selectors that the node may match, each once.
    pub(crate) fn of<'a>(
        &'a self,
        node: NodeId,
        traits: &'a Traits,
    ) -> impl Iterator<Item = u32> + use<'a> {
        let by_id = self.by_id.get(&node);
        let by_name = traits.fixed_name.as_ref().and_then(|name| self.by_name.get(name));
        let by_label = traits.labels.iter().filter_map(|(key, value)| {
            let by_value = self.by_label.get(key)?;
            Some(by_value.any.iter().chain(by_value.values.get(value).into_iter().flatten()))
        });
        let named = by_id.into_iter().chain(by_name).flatten();
        named.chain(by_label.flatten()).chain(&self.rest).copied()
    }

    /// Every list in which a selector's slot belongs.
    fn each(&mut self, selector: &Selector, mut change: impl FnMut(&mut Vec<u32>)) {
        match key(selector) {
            Some(Requirement::Node(ids)) => {
                ids.iter().for_each(|id| change(self.by_id.entry(*id).or_default()));
            }
            Some(Requirement::Named(names)) => {
                names.iter().for_each(|name| change(self.by_name.entry(name.clone()).or_default()));
            }
            Some(Requirement::In(key, values)) => {
                let by_value = self.by_label.entry(key.clone()).or_default();
                for value in values {
                    change(by_value.values.entry(value.clone()).or_default());
                }
            }
            Some(Requirement::Exists(key)) => {
                change(&mut self.by_label.entry(key.clone()).or_default().any);
            }
            _ => change(&mut self.rest),
        }
    }

    fn tidy_label(&mut self, key: &str) {
        if self.by_label.get(key).is_some_and(|l| l.any.is_empty() && l.values.is_empty()) {
            self.by_label.remove(key);
        }
    }
}

/// The requirement under which a selector is found: the one that the fewest nodes will meet.
fn key(selector: &Selector) -> Option<&Requirement> {
    let rank = |requirement: &&Requirement| match requirement {
        Requirement::Node(_) => Some(0),
        Requirement::Named(_) => Some(1),
        Requirement::In(..) => Some(2),
        Requirement::Exists(_) => Some(3),
        _ => None,
    };
    let asked = selector.requirements().iter().filter(|requirement| rank(requirement).is_some());
    asked.min_by_key(rank)
}

fn tidy<K: Hash + Eq>(lists: &mut HashMap<K, Vec<u32>>, key: &K) {
    if lists.get(key).is_some_and(Vec::is_empty) {
        lists.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use wattle_model::Labels;

    use super::*;

    #[test]
    fn a_node_finds_what_it_may_match_and_little_else() {
        let id = NodeId::new([1; 16]);
        let traits = Traits {
            labels: Labels::from_texts(["a=1", "b=2"]).unwrap(),
            fixed_name: Some("db-1".parse().unwrap()),
        };
        let (mine, other) = (format!("id={id},a"), format!("id={}", NodeId::new([2; 16])));
        let may = [&mine, "name=db-1", "a=1,!b", "a in (1,3)", "b", "", "a!=1", "id!=01"];
        let mut candidates = Candidates::default();
        let not = [&other, "name in (db-2,db-3)", "a=2", "a=2,b", "c", "name=db-2,a=1"];
        let may: Vec<Selector> = may.iter().filter_map(|text| text.parse().ok()).collect();
        let not: Vec<Selector> = not.iter().map(|text| text.parse().unwrap()).collect();
        for (slot, selector) in (0..).zip(may.iter().chain(&not)) {
            candidates.add(selector, slot);
        }
        let mut found: Vec<u32> = candidates.of(id, &traits).collect();
        found.sort_unstable();
        assert!(found.iter().copied().eq(0..u32::try_from(may.len()).unwrap()));
        for (slot, selector) in (0..).zip(may.iter().chain(&not)) {
            candidates.remove(selector, slot);
        }
        assert_eq!(candidates.of(id, &traits).count(), 0);
        assert!(candidates.by_id.is_empty() && candidates.by_name.is_empty());
        assert!(candidates.by_label.is_empty() && candidates.rest.is_empty());
    }
}
