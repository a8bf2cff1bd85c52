//! Address ranges of networks: both of one network, and a random one for who has no wish.

use std::net::Ipv6Addr;

use ipnet::{Ipv4Net, Ipv6Net};
use wattle_model::{InvalidRange, parse_ipv4_range, parse_ipv6_range};
use wattle_proto::record::NetworkBody;

use super::error::Wrong;

/// The ranges of one network; at least one is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ranges {
    ipv4: Option<Ipv4Net>,
    ipv6: Option<Ipv6Net>,
}

impl Ranges {
    /// Checks two texts; an empty one is no range.
    pub(super) fn parse(ipv4: &str, ipv6: &str) -> Result<Self, Wrong> {
        let wrong = |field| move |why: InvalidRange| Wrong::new(field, why);
        let ipv4 = (!ipv4.is_empty()).then(|| parse_ipv4_range(ipv4)).transpose();
        let ipv4 = ipv4.map_err(wrong("ipv4_range"))?;
        let ipv6 = (!ipv6.is_empty()).then(|| parse_ipv6_range(ipv6)).transpose();
        let ipv6 = ipv6.map_err(wrong("ipv6_range"))?;
        if ipv4.is_none() && ipv6.is_none() {
            return Err(Wrong::new(
                "ipv4_range",
                "a network has an IPv4 range, an IPv6 range or both",
            ));
        }
        Ok(Self { ipv4, ipv6 })
    }

    /// A /64 out of a random unique local /48 (RFC 4193).
    pub(super) fn random() -> Self {
        let mut octets = [0; 16];
        octets[0] = 0xfd;
        octets[1..6].copy_from_slice(&rand::random::<[u8; 5]>());
        let net = Ipv6Net::new(Ipv6Addr::from(octets), 64).expect("64 is a prefix length");
        Self { ipv4: None, ipv6: Some(net) }
    }

    /// The ranges that a stored network has. Those that can't be read count as none: they were
    /// checked when they were written.
    pub(super) fn of(body: &NetworkBody) -> Self {
        Self { ipv4: body.ipv4_range.parse().ok(), ipv6: body.ipv6_range.parse().ok() }
    }

    /// The IPv4 range as text; empty for none.
    pub(super) fn ipv4_text(&self) -> String {
        self.ipv4.map(|range| range.to_string()).unwrap_or_default()
    }

    /// The IPv6 range as text; empty for none.
    pub(super) fn ipv6_text(&self) -> String {
        self.ipv6.map(|range| range.to_string()).unwrap_or_default()
    }

    /// Whether its nodes have IPv6 addresses.
    pub(super) const fn has_ipv6(&self) -> bool {
        self.ipv6.is_some()
    }

    /// The fields in which the two have an address in common, and the other's range there.
    pub(super) fn overlaps(&self, other: &Self) -> [Option<(&'static str, String)>; 2] {
        let ipv4 = self.ipv4.zip(other.ipv4).filter(|(a, b)| a.contains(b) || b.contains(a));
        let ipv6 = self.ipv6.zip(other.ipv6).filter(|(a, b)| a.contains(b) || b.contains(a));
        [
            ipv4.map(|(_, other)| ("ipv4_range", other.to_string())),
            ipv6.map(|(_, other)| ("ipv6_range", other.to_string())),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_one_range_or_both() {
        for (ipv4, ipv6) in [("10.0.0.0/8", ""), ("", "fd00::/48"), ("10.0.0.0/8", "fd00::/48")] {
            let ranges = Ranges::parse(ipv4, ipv6).unwrap();
            assert_eq!((ranges.ipv4_text(), ranges.ipv6_text()), (ipv4.into(), ipv6.into()));
        }
    }

    #[test]
    fn bad_ranges_name_their_field() {
        for (ipv4, ipv6, expected) in [
            ("", "", "ipv4_range: a network has"),
            ("10.90.0.0", "", "ipv4_range: \"10.90.0.0\" is not a range such as 10.90.0.0/16"),
            ("fd00::/64", "", "ipv4_range: \"fd00::/64\" is not a range"),
            ("10.0.0.0/8", "fd00::1/64", "ipv6_range: fd00::1/64 names an address"),
        ] {
            let status = tonic::Status::from(Ranges::parse(ipv4, ipv6).unwrap_err());
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert!(status.message().starts_with(expected), "{}", status.message());
        }
    }

    #[test]
    fn overlaps_are_found_in_either_family() {
        let ranges = |ipv4, ipv6| Ranges::parse(ipv4, ipv6).unwrap();
        let both = ranges("10.90.0.0/16", "fd00::/64");
        assert_eq!(both.overlaps(&ranges("10.91.0.0/16", "fd00:0:0:1::/64")), [None, None]);
        let inside = Some(("ipv4_range", "10.90.4.0/24".into()));
        assert_eq!(both.overlaps(&ranges("10.90.4.0/24", "")), [inside.clone(), None]);
        let around = Some(("ipv6_range", "fd00::/48".into()));
        assert_eq!(both.overlaps(&ranges("", "fd00::/48")), [None, around.clone()]);
        assert_eq!(both.overlaps(&ranges("10.90.4.0/24", "fd00::/48")), [inside, around]);
    }

    #[test]
    fn a_random_range_is_one_that_may_be() {
        let text = Ranges::random().ipv6_text();
        assert!(text.starts_with("fd") && Ranges::parse("", &text).is_ok(), "{text}");
        assert_ne!(text, Ranges::random().ipv6_text());
    }
}
