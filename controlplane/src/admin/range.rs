//! Address ranges of networks: which ones may be, and a random one for who has no wish.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use wattle_proto::record::NetworkBody;

use super::error::Wrong;

const IPV4_LENGTHS: std::ops::RangeInclusive<u8> = 8..=30;
const IPV6_LENGTHS: std::ops::RangeInclusive<u8> = 48..=120;

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
        let ipv4 = (!ipv4.is_empty()).then(|| parse_ipv4(ipv4)).transpose();
        let ipv4 = ipv4.map_err(wrong("ipv4_range"))?;
        let ipv6 = (!ipv6.is_empty()).then(|| parse_ipv6(ipv6)).transpose();
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

    /// The first field in which the two have an address in common, and the other's range there.
    pub(super) fn overlap(&self, other: &Self) -> Option<(&'static str, String)> {
        let ipv4 = self.ipv4.zip(other.ipv4).filter(|(a, b)| a.contains(b) || b.contains(a));
        let ipv6 = self.ipv6.zip(other.ipv6).filter(|(a, b)| a.contains(b) || b.contains(a));
        let ipv4 = ipv4.map(|(_, other)| ("ipv4_range", other.to_string()));
        ipv4.or_else(|| ipv6.map(|(_, other)| ("ipv6_range", other.to_string())))
    }
}

/// Why a text can't be a network's range.
#[derive(Debug, thiserror::Error)]
enum InvalidRange {
    #[error("{text:?} is not a range such as {example}")]
    Form { text: String, example: &'static str },
    #[error("/{got} can't be a network: between /{} and /{}", allowed.start(), allowed.end())]
    Length { got: u8, allowed: std::ops::RangeInclusive<u8> },
    #[error("{text} names an address inside the range: write {range}")]
    HostBits { text: String, range: String },
    #[error("{0} isn't all unicast: choose a private range such as {1}")]
    NotUnicast(String, &'static str),
}

const IPV4_EXAMPLE: &str = "10.90.0.0/16";
const IPV6_EXAMPLE: &str = "fd12:3456:789a::/64";

fn parse_ipv4(text: &str) -> Result<Ipv4Net, InvalidRange> {
    let range: Ipv4Net = text.parse().map_err(|_| form(text, IPV4_EXAMPLE))?;
    if !IPV4_LENGTHS.contains(&range.prefix_len()) {
        return Err(InvalidRange::Length { got: range.prefix_len(), allowed: IPV4_LENGTHS });
    }
    if range.trunc() != range {
        return Err(InvalidRange::HostBits { text: text.into(), range: range.trunc().to_string() });
    }
    let special = [
        Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 8),
        Ipv4Net::new(Ipv4Addr::new(127, 0, 0, 0), 8),
        Ipv4Net::new(Ipv4Addr::new(169, 254, 0, 0), 16),
        // Multicast and everything above it.
        Ipv4Net::new(Ipv4Addr::new(224, 0, 0, 0), 3),
    ];
    // Prefixes overlap only where one holds the other.
    let touches = |other: &Ipv4Net| other.contains(&range) || range.contains(other);
    if special.iter().flatten().any(touches) {
        return Err(InvalidRange::NotUnicast(range.to_string(), IPV4_EXAMPLE));
    }
    Ok(range)
}

fn parse_ipv6(text: &str) -> Result<Ipv6Net, InvalidRange> {
    let range: Ipv6Net = text.parse().map_err(|_| form(text, IPV6_EXAMPLE))?;
    if !IPV6_LENGTHS.contains(&range.prefix_len()) {
        return Err(InvalidRange::Length { got: range.prefix_len(), allowed: IPV6_LENGTHS });
    }
    if range.trunc() != range {
        return Err(InvalidRange::HostBits { text: text.into(), range: range.trunc().to_string() });
    }
    // fc00::/7 is unique local, 2000::/3 is global unicast; the rest is special or unassigned.
    let first = range.addr().octets()[0];
    if first & 0xfe != 0xfc && first & 0xe0 != 0x20 {
        return Err(InvalidRange::NotUnicast(range.to_string(), IPV6_EXAMPLE));
    }
    Ok(range)
}

/// An error repeats at most this much of what somebody sent.
fn form(text: &str, example: &'static str) -> InvalidRange {
    InvalidRange::Form { text: text.chars().take(80).collect(), example }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_ranges_are_taken_as_they_are() {
        for (ipv4, ipv6) in [
            ("10.0.0.0/8", ""),
            ("192.168.7.0/30", "fd00::/48"),
            ("", "2001:db8::/120"),
            ("100.64.0.0/10", "fd12:3456:789a:1::/64"),
        ] {
            let ranges = Ranges::parse(ipv4, ipv6).unwrap();
            assert_eq!((ranges.ipv4_text(), ranges.ipv6_text()), (ipv4.into(), ipv6.into()));
        }
    }

    #[test]
    fn bad_ranges_name_their_field_and_a_better_one() {
        for (ipv4, ipv6, expected) in [
            ("", "", "ipv4_range: a network has"),
            ("10.90.0.0", "", "ipv4_range: \"10.90.0.0\" is not a range such as 10.90.0.0/16"),
            ("fd00::/64", "", "ipv4_range: \"fd00::/64\" is not a range"),
            ("10.0.0.0/7", "", "ipv4_range: /7 can't be a network: between /8 and /30"),
            ("10.0.0.0/31", "", "ipv4_range: /31 can't"),
            (
                "10.90.1.0/16",
                "",
                "ipv4_range: 10.90.1.0/16 names an address inside the range: write 10.90.0.0/16",
            ),
            ("127.0.0.0/8", "", "ipv4_range: 127.0.0.0/8 isn't all unicast"),
            ("239.0.0.0/16", "", "ipv4_range: 239.0.0.0/16 isn't all unicast"),
            ("169.254.1.0/24", "", "ipv4_range: 169.254.1.0/24 isn't all unicast"),
            ("", "fd00::/47", "ipv6_range: /47 can't be a network: between /48 and /120"),
            ("", "fd00::/121", "ipv6_range: /121 can't"),
            ("", "fd00::1/64", "ipv6_range: fd00::1/64 names an address"),
            ("", "ff02::/64", "ipv6_range: ff02::/64 isn't all unicast"),
            ("", "fe80::/64", "ipv6_range: fe80::/64 isn't all unicast"),
            ("", "::/64", "ipv6_range: ::/64 isn't all unicast"),
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
        assert_eq!(both.overlap(&ranges("10.91.0.0/16", "fd00:0:0:1::/64")), None);
        let inside = both.overlap(&ranges("10.90.4.0/24", ""));
        assert_eq!(inside, Some(("ipv4_range", "10.90.4.0/24".into())));
        let around = both.overlap(&ranges("", "fd00::/48"));
        assert_eq!(around, Some(("ipv6_range", "fd00::/48".into())));
    }

    #[test]
    fn a_random_range_is_one_that_may_be() {
        let text = Ranges::random().ipv6_text();
        assert!(text.starts_with("fd") && Ranges::parse("", &text).is_ok(), "{text}");
        assert_ne!(text, Ranges::random().ipv6_text());
    }
}
