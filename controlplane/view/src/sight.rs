//! Sight: what one node may see at one revision, as a value. Nodes with equal sights are sent equal
//! bytes, so sights, not nodes, are what pages and digests are made for.

use std::{
    cmp::Ordering,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use wattle_model::{At, Digest, Revision};

use crate::class::Class;

/// What a node may see at a revision.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Sight {
    /// No node.
    Nobody,
    /// Every live node.
    Everybody,
    /// Live nodes that match certain selectors.
    Selected(Arc<Selected>),
    /// The records have forgotten.
    Unknown,
}

/// Live nodes that match any of these selectors, and, where a policy has forgotten what it said
/// then, perhaps others.
#[derive(Debug)]
pub(crate) struct Selected {
    /// Their slots, rising.
    partners: Box<[u32]>,
    forgotten: bool,
    /// The digest of everything in it as it was after so many changes of nodes.
    digest: Mutex<Option<(u64, Digest)>>,
}

/// What the nodes of a class see now, and since when.
#[derive(Debug, Clone)]
pub(crate) struct Present {
    pub(crate) sight: Sight,
    /// They would have seen the same at every revision from here on that the records remember.
    pub(crate) since: Revision,
    /// When it was made, in the network's count of changes that shape sight.
    pub(crate) stamp: u64,
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

/// Where nodes can be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Among those that match selectors in these slots, which rise.
    Slots(Vec<u32>),
    /// Anywhere.
    All,
}

impl Sight {
    /// The sight of nodes that match the selectors in these slots, in any order.
    pub(crate) fn selected(mut partners: Vec<u32>, forgotten: bool) -> Self {
        if partners.is_empty() && !forgotten {
            return Self::Nobody;
        }
        partners.sort_unstable();
        partners.dedup();
        let (partners, digest) = (partners.into(), Mutex::default());
        Self::Selected(Arc::new(Selected { partners, forgotten, digest }))
    }

    /// Whether a node of this class, or without life (`Known(None)`), is in it.
    pub(crate) fn sees(&self, node: At<&Class>) -> Seen {
        match (self, node) {
            (Self::Nobody, _) | (_, At::Known(None)) => Seen::No,
            (Self::Unknown, _) | (_, At::Unknown) => Seen::Unknown,
            (Self::Everybody, At::Known(Some(_))) => Seen::Yes,
            (Self::Selected(selected), At::Known(Some(class))) => selected.sees(class),
        }
    }

    /// Whether some record it was made from has forgotten.
    pub(crate) fn has_forgotten(&self) -> bool {
        match self {
            Self::Unknown => true,
            Self::Selected(selected) => selected.forgotten,
            Self::Nobody | Self::Everybody => false,
        }
    }

    /// Whether a live node of this class is surely in it.
    pub(crate) fn holds(&self, class: &Class) -> bool {
        self.sees(At::Known(Some(class))) == Seen::Yes
    }

    /// Where the nodes are of which it doesn't surely see nothing.
    pub(crate) fn reach(&self) -> Reach {
        self.differing(&Self::Nobody)
    }

    /// Where the live nodes are that one of the two sights sees otherwise than the other does.
    pub(crate) fn differing(&self, other: &Self) -> Reach {
        let selected = |sight: &Self| match sight {
            Self::Nobody => Some((Vec::new(), false)),
            Self::Selected(selected) => Some((selected.partners.to_vec(), selected.forgotten)),
            Self::Everybody | Self::Unknown => None,
        };
        if self == other {
            return Reach::Slots(Vec::new());
        }
        match (selected(self), selected(other)) {
            (Some((one, forgot)), Some((two, also))) if forgot == also => {
                Reach::Slots(difference(&one, &two))
            }
            _ => Reach::All,
        }
    }
}

impl Selected {
    pub(crate) fn partners(&self) -> &[u32] {
        &self.partners
    }

    /// The digest that was found last, and after how many changes of nodes. A thread that died with
    /// it left it whole: it is only replaced.
    pub(crate) fn digest(&self) -> MutexGuard<'_, Option<(u64, Digest)>> {
        self.digest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sees(&self, class: &Class) -> Seen {
        if meet(class.slots(), &self.partners) {
            Seen::Yes
        } else if self.forgotten {
            Seen::Unknown
        } else {
            Seen::No
        }
    }
}

impl PartialEq for Selected {
    fn eq(&self, other: &Self) -> bool {
        (&self.partners, self.forgotten) == (&other.partners, other.forgotten)
    }
}

impl Eq for Selected {}

impl Hash for Selected {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.partners, self.forgotten).hash(state);
    }
}

/// Whether two rising lists have anything in common.
pub(crate) fn meet(one: &[u32], two: &[u32]) -> bool {
    let (few, many) = if one.len() < two.len() { (one, two) } else { (two, one) };
    few.iter().any(|slot| many.binary_search(slot).is_ok())
}

/// What only one of two rising lists has, rising.
fn difference(one: &[u32], two: &[u32]) -> Vec<u32> {
    let (mut one, mut two) = (one.iter().peekable(), two.iter().peekable());
    let mut rest = Vec::new();
    while let (Some(x), Some(y)) = (one.peek(), two.peek()) {
        match x.cmp(y) {
            Ordering::Less => rest.extend(one.next()),
            Ordering::Greater => rest.extend(two.next()),
            Ordering::Equal => drop((one.next(), two.next())),
        }
    }
    rest.extend(one.chain(two));
    rest
}

impl Reach {
    /// Both.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Slots(mut one), Self::Slots(two)) => {
                one.extend(two);
                one.sort_unstable();
                one.dedup();
                Self::Slots(one)
            }
            _ => Self::All,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Classes;

    #[test]
    fn a_forgotten_policy_leaves_only_yes_certain() {
        let mut classes = Classes::default();
        let (class, other) = (classes.class(&[3, 70]), classes.class(&[4]));
        for (forgotten, rest) in [(false, Seen::No), (true, Seen::Unknown)] {
            let sight = Sight::selected(vec![70], forgotten);
            assert_eq!(sight.sees(At::Known(Some(&class))), Seen::Yes);
            assert_eq!(sight.sees(At::Known(Some(&other))), rest);
            assert_eq!(sight.sees(At::Known(None)), Seen::No);
            assert_eq!(sight.sees(At::Unknown), Seen::Unknown);
        }
    }

    #[test]
    fn sights_differ_where_only_one_has_a_partner() {
        let sight = |slots: &[u32]| Sight::selected(slots.to_vec(), false);
        let slots = |slots: &[u32]| Reach::Slots(slots.to_vec());
        assert_eq!(sight(&[5, 1, 3]).differing(&sight(&[3, 4, 9])), slots(&[1, 4, 5, 9]));
        assert_eq!(sight(&[1, 2]).reach(), slots(&[1, 2]));
        assert_eq!(Sight::Everybody.differing(&Sight::Everybody), slots(&[]));
        assert_eq!(Sight::Everybody.differing(&sight(&[1])), Reach::All);
        assert_eq!(Sight::selected(vec![1], true).differing(&sight(&[1])), Reach::All);
        assert_eq!(slots(&[1, 3]).and(slots(&[2, 3])), slots(&[1, 2, 3]));
    }
}
