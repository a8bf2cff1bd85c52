//! Which control plane to try next.

use std::collections::BTreeSet;

use rand::seq::SliceRandom as _;

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

    /// Takes a new list; the place in the old one is kept where it still means something, and otherwise
    /// it is a random one, as at the beginning.
    pub(super) fn set(&mut self, all: Vec<String>) {
        // A control plane that says it is nowhere is wrong, and can be corrected only if it is found.
        if all.is_empty() || all == self.all {
            return;
        }
        let current = self.current().map(str::to_owned);
        let kept = all.iter().position(|address| Some(address) == current.as_ref());
        self.next = kept.unwrap_or_else(|| rand::random_range(0..all.len()));
        self.all = all;
    }

    /// The one to try.
    pub(super) fn current(&self) -> Option<&str> {
        self.all.get(self.next).map(String::as_str)
    }

    /// Where to look for another stream than the present one: at the preferred addresses, then at the
    /// others in random order, so that those who leave one replica don't all meet at the next one,
    /// and last where this one leads, which may be a name that leads to another replica, too.
    pub(super) fn elsewhere(&self, prefer: &[String]) -> Vec<String> {
        let current = self.current();
        let mut others: Vec<_> = self.all.iter().filter(|a| Some(a.as_str()) != current).collect();
        others.shuffle(&mut rand::rng());
        let mut order: Vec<String> = Vec::new();
        for address in prefer.iter().chain(others).map(String::as_str).chain(current) {
            if !order.iter().any(|known| known == address) {
                order.push(address.to_owned());
            }
        }
        order
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

    /// Every address has been tried since a stream was last accepted.
    pub(super) fn all_tried(&self) -> bool {
        self.all.iter().all(|address| self.tried.contains(address))
    }

    /// Every address has been tried and at least one would serve what it last saw: better that than
    /// nothing.
    pub(super) fn accept_stale(&self) -> bool {
        self.stale && self.all_tried()
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
        assert_eq!(addresses.elsewhere(&[]), ["x", "b"]);
    }

    #[test]
    fn agents_of_an_address_that_is_gone_do_not_all_meet_at_the_next_one() {
        let places: BTreeSet<_> = (0..100)
            .map(|_| {
                let mut addresses = three();
                addresses.set(["x", "y", "z"].map(str::to_owned).to_vec());
                addresses.next
            })
            .collect();
        assert_eq!(places, BTreeSet::from([0, 1, 2]));
    }

    #[test]
    fn whoever_leaves_goes_where_it_is_sent_and_back_only_last() {
        let addresses = three();
        let sent = addresses.elsewhere(&["c".into(), "new".into(), "c".into()]);
        assert_eq!(sent, ["c", "new", "b", "a"]);
        assert_eq!(addresses.elsewhere(&["a".into()])[0], "a", "a name may be preferred, too");
        let first: BTreeSet<_> = (0..100).map(|_| addresses.elsewhere(&[]).remove(0)).collect();
        assert_eq!(first, BTreeSet::from(["b".to_owned(), "c".to_owned()]));
    }

    #[test]
    fn all_are_tried_once_each_was() {
        let mut addresses = three();
        for tried in [false, false, true] {
            addresses.turn(false);
            assert_eq!(addresses.all_tried(), tried);
        }
        addresses.accepted("b");
        assert!(!addresses.all_tried());
    }
}
