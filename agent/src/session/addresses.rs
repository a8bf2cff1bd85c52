//! Which control plane to try next.

use std::collections::BTreeSet;

/// The control plane's addresses, and what became of them since a stream was last accepted.
#[derive(Debug)]
pub(super) struct Addresses {
    all: Vec<String>,
    next: usize,
    tried: BTreeSet<String>,
    stale: bool,
}

impl Addresses {
    /// Begins at a random one: all agents have the same list, and should not all meet at its head.
    pub(super) fn new(all: Vec<String>) -> Self {
        let next = rand::random_range(0..all.len().max(1));
        Self { all, next, tried: BTreeSet::new(), stale: false }
    }

    /// Takes a new list; the place in the old one is kept where it still means something.
    pub(super) fn set(&mut self, all: Vec<String>) {
        // A control plane that says it is nowhere is wrong, and can be corrected only if it is found.
        if all.is_empty() || all == self.all {
            return;
        }
        let current = self.current().map(str::to_owned);
        let kept = all.iter().position(|address| Some(address) == current.as_ref());
        self.next = kept.unwrap_or(0);
        self.all = all;
    }

    /// The one to try.
    pub(super) fn current(&self) -> Option<&str> {
        self.all.get(self.next).map(String::as_str)
    }

    /// The others, in the order to try them.
    pub(super) fn others(&self) -> Vec<String> {
        let after = self.all.iter().cycle().skip(self.next + 1);
        after.take(self.all.len().saturating_sub(1)).cloned().collect()
    }

    /// The current one won't do; `stale` where it said that it is behind. The next one is current.
    pub(super) fn turn(&mut self, stale: bool) {
        self.tried.extend(self.all.get(self.next).cloned());
        self.stale |= stale;
        self.next = (self.next + 1) % self.all.len().max(1);
    }

    /// The current one has accepted a stream.
    pub(super) fn accepted(&mut self, address: &str) {
        self.next = self.all.iter().position(|a| a == address).unwrap_or(self.next);
        self.tried.clear();
        self.stale = false;
    }

    /// Every address has been tried and at least one would serve what it last saw: better that than
    /// nothing.
    pub(super) fn accept_stale(&self) -> bool {
        self.stale && self.all.iter().all(|address| self.tried.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Addresses {
        let mut addresses = Addresses::new(["a", "b", "c"].map(str::to_owned).to_vec());
        addresses.next = 0;
        addresses
    }

    #[test]
    fn a_stale_replica_will_do_only_when_every_other_was_tried() {
        let mut addresses = three();
        addresses.turn(true);
        addresses.turn(false);
        assert!(!addresses.accept_stale());
        addresses.turn(false);
        assert!(addresses.accept_stale());
        assert_eq!(addresses.current(), Some("a"));
        addresses.accepted("a");
        assert!(!addresses.accept_stale());
    }

    #[test]
    fn unreachable_is_not_stale() {
        let mut addresses = three();
        (0..6).for_each(|_| addresses.turn(false));
        assert!(!addresses.accept_stale());
    }

    #[test]
    fn a_new_list_keeps_the_place_and_an_empty_one_is_ignored() {
        let mut addresses = three();
        addresses.turn(false);
        addresses.set(vec!["x".into(), "b".into()]);
        assert_eq!(addresses.current(), Some("b"));
        addresses.set(vec![]);
        assert_eq!(addresses.others(), ["x"]);
    }
}
