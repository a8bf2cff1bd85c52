//! How many connections one source, or one certificate, may have: a single machine can't take all
//! the descriptors that a fleet needs.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use parking_lot::Mutex;

/// Who has how many. Clones are one.
pub(super) struct Places<K> {
    counts: Arc<Mutex<HashMap<K, usize>>>,
    most: usize,
}

/// One connection's place; free again when it drops.
pub(super) struct Place<K: Eq + Hash> {
    places: Places<K>,
    holder: K,
}

impl<K: Eq + Hash + Copy> Places<K> {
    /// So many for each.
    pub(super) fn new(most: usize) -> Self {
        Self { counts: Arc::default(), most }
    }

    /// One more of this holder's; `None` where it has all it may have.
    pub(super) fn enter(&self, holder: K) -> Option<Place<K>> {
        let mut counts = self.counts.lock();
        let count = counts.entry(holder).or_default();
        if *count == self.most {
            return None;
        }
        *count += 1;
        Some(Place { places: self.clone(), holder })
    }
}

impl<K> Clone for Places<K> {
    fn clone(&self) -> Self {
        Self { counts: Arc::clone(&self.counts), most: self.most }
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut counts = self.places.counts.lock();
        if let Some(count) = counts.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.holder);
            }
        }
    }
}

/// The source that an address belongs to: whoever has one address of a /64 has them all.
pub(super) fn source(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_holder_has_so_many_places_and_gets_them_back() {
        let places = Places::new(16);
        let mut taken: Vec<_> = (0..16).map(|_| places.enter('a').unwrap()).collect();
        assert!(places.enter('a').is_none());
        let other = places.enter('b');
        assert!(other.is_some());
        taken.pop();
        taken.push(places.enter('a').unwrap());
        assert!(places.enter('a').is_none());
        drop((taken, other));
        assert!(places.counts.lock().is_empty(), "nobody is remembered who isn't there");
    }

    #[test]
    fn a_site_s_ipv6_network_is_one_source() {
        let of = |text: &str| source(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
