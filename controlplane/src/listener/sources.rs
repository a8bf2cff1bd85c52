//! How many connections without a certificate one source may have: a single machine can't take all
//! the descriptors that a fleet needs.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use parking_lot::Mutex;

/// Of one source at the same time. A whole site may join at once from behind one address.
const MOST: usize = 2048;

/// Who has how many.
#[derive(Clone, Default)]
pub(super) struct Sources(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection's place; free again when it drops.
pub(super) struct Place {
    sources: Sources,
    source: IpAddr,
}

impl Sources {
    /// One more of this address; `None` where it has all it may have.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Place> {
        let source = source(address);
        let mut counts = self.0.lock();
        let count = counts.entry(source).or_default();
        if *count == MOST {
            return None;
        }
        *count += 1;
        Some(Place { sources: self.clone(), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.sources.0.lock();
        if let Some(count) = counts.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}

/// Whoever has one address of a /64 has them all.
fn source(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_so_many_places_and_gets_them_back() {
        let sources = Sources::default();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut taken: Vec<_> =
            (0..MOST).map(|_| sources.enter(ip("192.0.2.1")).unwrap()).collect();
        assert!(sources.enter(ip("192.0.2.1")).is_none());
        let other = sources.enter(ip("192.0.2.2"));
        assert!(other.is_some());
        taken.pop();
        taken.push(sources.enter(ip("192.0.2.1")).unwrap());
        assert!(sources.enter(ip("192.0.2.1")).is_none());
        drop((taken, other));
        assert!(sources.0.lock().is_empty(), "nobody is remembered who isn't there");

        let _all: Vec<_> = (0..MOST as u16)
            .map(|n| sources.enter(ip(&format!("2001:db8::{n:x}"))).unwrap())
            .collect();
        assert!(sources.enter(ip("2001:db8::ffff:1")).is_none());
        assert!(sources.enter(ip("2001:db8:0:1::1")).is_some());
    }
}
