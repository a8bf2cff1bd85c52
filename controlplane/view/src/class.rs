//! Classes: which selectors of a network's policies a node matches. A class never leaves the
//! process; it stands for the node's traits wherever sight is computed. Each distinct one exists
//! once, for all nodes that have it, and holds what they see now.

use std::{
    borrow::Borrow,
    collections::HashSet,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

use crate::sight::Present;

/// One class, shared by the bodies that have it.
#[derive(Debug, Clone)]
pub(crate) struct Class(Arc<Record>);

#[derive(Debug)]
struct Record {
    /// Of all selectors that match, rising.
    slots: Box<[u32]>,
    /// `None` until somebody asks. A thread that died with it left it whole: it is only replaced.
    present: Mutex<Option<Present>>,
}

impl Class {
    /// The slots of all selectors that its nodes match, rising.
    pub(crate) fn slots(&self) -> &[u32] {
        &self.0.slots
    }

    /// Whether its nodes match the selector in a slot.
    pub(crate) fn has(&self, slot: u32) -> bool {
        self.0.slots.binary_search(&slot).is_ok()
    }

    /// What its nodes see now: what is kept, if it is still `good`, or else what `make` says.
    pub(crate) fn present(
        &self,
        good: impl FnOnce(&Present) -> bool,
        make: impl FnOnce() -> Present,
    ) -> Present {
        let mut present = self.0.present.lock().unwrap_or_else(PoisonError::into_inner);
        match &*present {
            Some(kept) if good(kept) => kept.clone(),
            _ => present.insert(make()).clone(),
        }
    }
}

impl PartialEq for Class {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.slots() == other.slots()
    }
}

impl Eq for Class {}

impl Hash for Class {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.slots().hash(state);
    }
}

impl Borrow<[u32]> for Class {
    fn borrow(&self) -> &[u32] {
        self.slots()
    }
}

/// Every class that a body has.
#[derive(Debug, Default)]
pub(crate) struct Classes(HashSet<Class>);

impl Classes {
    /// The class of these slots, which rise.
    pub(crate) fn class(&mut self, slots: &[u32]) -> Class {
        if let Some(class) = self.0.get(slots) {
            return class.clone();
        }
        let class = Class(Arc::new(Record { slots: slots.into(), present: Mutex::default() }));
        self.0.insert(class.clone());
        class
    }

    /// Takes back a class that somebody had; with the last one it ends.
    pub(crate) fn retire(&mut self, class: Class) {
        let last = Arc::strong_count(&class.0) == 2;
        if last {
            self.0.remove(class.slots());
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_exists_once_and_ends_with_its_last_body() {
        let mut classes = Classes::default();
        let (one, same, other) =
            (classes.class(&[1, 3]), classes.class(&[1, 3]), classes.class(&[1]));
        assert!(Arc::ptr_eq(&one.0, &same.0) && one != other && classes.len() == 2);
        classes.retire(one);
        assert_eq!(classes.len(), 2);
        classes.retire(same);
        assert_eq!(classes.len(), 1);
        assert!(other.has(1) && !other.has(3));
    }
}
