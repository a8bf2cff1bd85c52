//! Overlay addresses. A node's host number is the same in both ranges: the third node of
//! 10.90.0.0/16 and fd00::/64 has 10.90.0.3 and fd00::3.
//!
//! The claims in the store decide who has what; this only remembers them, so that a free number is
//! found without a listing. A released address rests as long as its claim exists.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{Ipv4Net, Ipv6Net};
use wattle_proto::{Invalid as _, InvalidField, record::NetworkBody};

/// A network's address ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ranges {
    /// For IPv4, where it has one.
    pub ipv4: Option<Ipv4Net>,
    /// For IPv6, where it has one.
    pub ipv6: Option<Ipv6Net>,
}

impl Ranges {
    /// Reads what a network's record says.
    pub fn of(network: &NetworkBody) -> Result<Self, InvalidField> {
        Ok(Self {
            ipv4: range(&network.ipv4_range).field("network.ipv4_range")?,
            ipv6: range(&network.ipv6_range).field("network.ipv6_range")?,
        })
    }

    /// The addresses of a host number.
    fn host(&self, number: u128) -> Addresses {
        // `last` keeps the sums within the ranges.
        let ipv4 = |range: Ipv4Net| {
            let offset = u32::try_from(number).unwrap_or(u32::MAX);
            Ipv4Addr::from_bits(range.network().to_bits().saturating_add(offset))
        };
        let ipv6 =
            |range: Ipv6Net| Ipv6Addr::from_bits(range.network().to_bits().saturating_add(number));
        Addresses { ipv4: self.ipv4.map(ipv4), ipv6: self.ipv6.map(ipv6) }
    }

    /// The host number of an address, where it lies in a range.
    fn number(&self, address: IpAddr) -> Option<u128> {
        match address {
            IpAddr::V4(address) => self
                .ipv4
                .filter(|range| range.contains(&address))
                .map(|range| u128::from(address.to_bits() - range.network().to_bits())),
            IpAddr::V6(address) => self
                .ipv6
                .filter(|range| range.contains(&address))
                .map(|range| address.to_bits() - range.network().to_bits()),
        }
    }

    /// The last host number; 0 where there is none. Number 0 is the network's own address (in IPv6
    /// the routers' anycast), and IPv4's last one the broadcast address.
    fn last(&self) -> u128 {
        let ipv4 = self.ipv4.map(|range| (1_u128 << (32 - range.prefix_len())).saturating_sub(2));
        let ipv6 =
            self.ipv6.map(|range| u128::MAX.checked_shr(range.prefix_len().into()).unwrap_or(0));
        ipv4.into_iter().chain(ipv6).min().unwrap_or(0)
    }
}

fn range<T: FromStr>(text: &str) -> Result<Option<T>, T::Err> {
    (!text.is_empty()).then(|| text.parse()).transpose()
}

/// What one node gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) ipv4: Option<Ipv4Addr>,
    pub(super) ipv6: Option<Ipv6Addr>,
}

impl Addresses {
    pub(super) fn iter(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }
}

/// The host numbers of one network that are taken.
#[derive(Debug)]
pub(super) struct Allocator {
    ranges: Ranges,
    taken: BTreeSet<u128>,
    /// No number below this one is free.
    next: u128,
}

impl Allocator {
    /// With the addresses that are claimed.
    pub(super) fn new(ranges: Ranges, claimed: impl IntoIterator<Item = IpAddr>) -> Self {
        let taken = claimed.into_iter().filter_map(|address| ranges.number(address)).collect();
        Self { ranges, taken, next: 1 }
    }

    pub(super) const fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// Takes the lowest free number; `None` where the network is full.
    pub(super) fn take(&mut self) -> Option<Addresses> {
        let number = self.free()?;
        self.taken.insert(number);
        self.next = number + 1;
        Some(self.ranges.host(number))
    }

    /// Whether there is a free number.
    pub(super) fn has_free(&mut self) -> bool {
        self.free().is_some()
    }

    /// Gives back what [`Allocator::take`] gave and nobody got.
    pub(super) fn give_back(&mut self, addresses: &Addresses) {
        for number in addresses.iter().filter_map(|address| self.ranges.number(address)) {
            self.taken.remove(&number);
            self.next = self.next.min(number);
        }
    }

    fn free(&mut self) -> Option<u128> {
        let last = self.ranges.last();
        while self.taken.contains(&self.next) {
            self.next += 1;
        }
        (self.next <= last).then_some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(ipv4: &str, ipv6: &str) -> Ranges {
        Ranges { ipv4: range(ipv4).unwrap(), ipv6: range(ipv6).unwrap() }
    }

    fn texts(addresses: &Addresses) -> String {
        addresses.iter().map(|address| address.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn both_families_count_together_from_one() {
        let mut allocator = Allocator::new(ranges("10.90.0.0/16", "fd00:1::/64"), []);
        assert_eq!(texts(&allocator.take().unwrap()), "10.90.0.1 fd00:1::1");
        assert_eq!(texts(&allocator.take().unwrap()), "10.90.0.2 fd00:1::2");
    }

    #[test]
    fn neither_the_network_nor_its_broadcast_address_is_given() {
        let mut allocator = Allocator::new(ranges("10.0.0.0/29", "fd00::/64"), []);
        let given: Vec<_> = std::iter::from_fn(|| allocator.take()).collect();
        let given: Vec<_> = given.iter().filter_map(|addresses| addresses.ipv4).collect();
        let all: Vec<_> = (1..=6).map(|n| Ipv4Addr::new(10, 0, 0, n)).collect();
        assert_eq!(given, all);
        assert!(!allocator.has_free());
    }

    #[test]
    fn claims_of_either_family_are_left_out() {
        let claimed = ["10.0.0.1", "fd00::3", "192.0.2.1"].map(|text| text.parse().unwrap());
        let mut allocator = Allocator::new(ranges("10.0.0.0/24", "fd00::/64"), claimed);
        assert_eq!(texts(&allocator.take().unwrap()), "10.0.0.2 fd00::2");
        assert_eq!(texts(&allocator.take().unwrap()), "10.0.0.4 fd00::4");
    }

    #[test]
    fn what_is_given_back_is_given_again() {
        let mut allocator = Allocator::new(ranges("10.0.0.0/30", ""), []);
        let first = allocator.take().unwrap();
        allocator.take().unwrap();
        assert_eq!(allocator.take(), None);
        allocator.give_back(&first);
        assert_eq!(allocator.take(), Some(first));
    }

    #[test]
    fn ranges_of_every_size_have_an_end() {
        for (ipv4, ipv6, last) in [
            ("10.0.0.0/31", "", 0),
            ("10.0.0.0/32", "", 0),
            ("0.0.0.0/0", "", (1 << 32) - 2),
            ("", "fd00::/127", 1),
            ("", "fd00::/128", 0),
            ("", "fd00::/64", u128::from(u64::MAX)),
            ("", "", 0),
        ] {
            assert_eq!(ranges(ipv4, ipv6).last(), last, "{ipv4} {ipv6}");
        }
    }
}
