//! Sight: what one node may see at one revision, as a value. Nodes with equal sights are sent equal
//! bytes, so sights, not nodes, are what pages and digests are made for.

use wattle_model::{At, History, Mode, Revision};

use crate::{class::Class, network::Network};

/// What a node may see at a revision.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Sight {
    /// No node.
    Nobody,
    /// Every live node.
    Everybody,
    /// Live nodes that match any of these selectors, and, where a policy has forgotten what it said
    /// then, perhaps others.
    Selected { partners: Slots, forgotten: bool },
    /// The records have forgotten.
    Unknown,
}

/// Whether one node sees another at a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    Yes,
    No,
    /// The records have forgotten.
    Unknown,
}

/// The two slots of one policy's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sides {
    pub(crate) from: u32,
    pub(crate) to: u32,
}

/// A set of slots: one bit each, without trailing zero words, so that equal sets are equal values.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Slots(Vec<u64>);

impl Sight {
    /// Whether a node of this class, or without life (`Known(None)`), is in it.
    pub(crate) fn sees(&self, node: At<&Class>) -> Seen {
        match (self, node) {
            (Self::Nobody, _) | (_, At::Known(None)) => Seen::No,
            (Self::Unknown, _) | (_, At::Unknown) => Seen::Unknown,
            (Self::Everybody, At::Known(Some(_))) => Seen::Yes,
            (Self::Selected { partners, forgotten }, At::Known(Some(class))) => {
                if class.iter().any(|slot| partners.contains(*slot)) {
                    Seen::Yes
                } else if *forgotten {
                    Seen::Unknown
                } else {
                    Seen::No
                }
            }
        }
    }

    /// Whether some record it was made from has forgotten.
    pub(crate) const fn has_forgotten(&self) -> bool {
        matches!(self, Self::Unknown | Self::Selected { forgotten: true, .. })
    }

    /// Whether a live node of this class is surely in it.
    pub(crate) fn holds(&self, class: &Class) -> bool {
        self.sees(At::Known(Some(class))) == Seen::Yes
    }
}

/// The sight at `revision` of a node that then was of class `node`.
pub(crate) fn sight_at(network: &Network, node: At<&Class>, revision: Revision) -> Sight {
    let mode = network.mode.as_ref().map_or(At::Known(None), |mode| mode.at(revision));
    match (node, mode) {
        (At::Known(None), _) | (_, At::Known(None)) => Sight::Nobody,
        (At::Unknown, _) | (_, At::Unknown) => Sight::Unknown,
        (_, At::Known(Some(Mode::Mesh))) => Sight::Everybody,
        (At::Known(Some(class)), At::Known(Some(Mode::Closed))) => {
            selected(class, network.policies.values(), revision)
        }
    }
}

fn selected<'a>(
    class: &Class,
    policies: impl Iterator<Item = &'a History<Sides>>,
    revision: Revision,
) -> Sight {
    let (mut partners, mut forgotten) = (Slots::default(), false);
    let matches = |slot: u32| class.binary_search(&slot).is_ok();
    for policy in policies {
        match policy.at(revision) {
            At::Known(None) => {}
            At::Known(Some(sides)) => {
                if matches(sides.from) {
                    partners.insert(sides.to);
                }
                if matches(sides.to) {
                    partners.insert(sides.from);
                }
            }
            At::Unknown => forgotten = true,
        }
    }
    if partners.0.is_empty() && !forgotten {
        Sight::Nobody
    } else {
        Sight::Selected { partners, forgotten }
    }
}

impl Slots {
    fn insert(&mut self, slot: u32) {
        let word = slot as usize / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (slot % 64);
    }

    fn contains(&self, slot: u32) -> bool {
        self.0.get(slot as usize / 64).is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected_sight(slots: &[u32], forgotten: bool) -> Sight {
        let mut partners = Slots::default();
        slots.iter().for_each(|slot| partners.insert(*slot));
        Sight::Selected { partners, forgotten }
    }

    #[test]
    fn a_forgotten_policy_leaves_only_yes_certain() {
        let (class, other): (Class, Class) = ([3, 70].into(), [4].into());
        for (forgotten, rest) in [(false, Seen::No), (true, Seen::Unknown)] {
            let sight = selected_sight(&[70], forgotten);
            assert_eq!(sight.sees(At::Known(Some(&class))), Seen::Yes);
            assert_eq!(sight.sees(At::Known(Some(&other))), rest);
            assert_eq!(sight.sees(At::Known(None)), Seen::No);
            assert_eq!(sight.sees(At::Unknown), Seen::Unknown);
        }
    }
}
