//! Address ranges: which ones a network may have.

use std::{net::Ipv4Addr, ops::RangeInclusive};

use ipnet::{Ipv4Net, Ipv6Net};

const IPV4_LENGTHS: RangeInclusive<u8> = 8..=30;
const IPV6_LENGTHS: RangeInclusive<u8> = 48..=120;

/// Text that can't be a network's range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRange {
    /// It is no range of the family.
    #[error("{text:?} is not a range such as {example}")]
    Form {
        /// What was given.
        text: String,
        /// One that would do.
        example: &'static str,
    },
    /// The range is too small or too large.
    #[error("/{got} can't be a network: between /{} and /{}", allowed.start(), allowed.end())]
    Length {
        /// The prefix length given.
        got: u8,
        /// Those that may be.
        allowed: RangeInclusive<u8>,
    },
    /// It has bits beyond its prefix.
    #[error("{text} names an address inside the range: write {range}")]
    HostBits {
        /// What was given.
        text: String,
        /// The range around it.
        range: String,
    },
    /// Some of its addresses can't be a node's.
    #[error("{0} isn't all unicast: choose a private range such as {1}")]
    NotUnicast(String, &'static str),
}

const IPV4_EXAMPLE: &str = "10.90.0.0/16";
const IPV6_EXAMPLE: &str = "fd12:3456:789a::/64";

/// A network's IPv4 range.
pub fn parse_ipv4_range(text: &str) -> Result<Ipv4Net, InvalidRange> {
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

/// A network's IPv6 range.
pub fn parse_ipv6_range(text: &str) -> Result<Ipv6Net, InvalidRange> {
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
        for text in ["10.0.0.0/8", "192.168.7.0/30", "100.64.0.0/10"] {
            assert_eq!(parse_ipv4_range(text).unwrap().to_string(), text);
        }
        for text in ["fd00::/48", "2001:db8::/120", "fd12:3456:789a:1::/64"] {
            assert_eq!(parse_ipv6_range(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn bad_ranges_are_told_a_better_one() {
        for (text, expected) in [
            ("10.90.0.0", "\"10.90.0.0\" is not a range such as 10.90.0.0/16"),
            ("fd00::/64", "\"fd00::/64\" is not a range"),
            ("10.0.0.0/7", "/7 can't be a network: between /8 and /30"),
            ("10.0.0.0/31", "/31 can't"),
            ("10.90.1.0/16", "10.90.1.0/16 names an address inside the range: write 10.90.0.0/16"),
            ("127.0.0.0/8", "127.0.0.0/8 isn't all unicast"),
            ("239.0.0.0/16", "239.0.0.0/16 isn't all unicast"),
            ("169.254.1.0/24", "169.254.1.0/24 isn't all unicast"),
        ] {
            let said = parse_ipv4_range(text).unwrap_err().to_string();
            assert!(said.starts_with(expected), "{said}");
        }
        for (text, expected) in [
            ("fd00::/47", "/47 can't be a network: between /48 and /120"),
            ("fd00::/121", "/121 can't"),
            ("fd00::1/64", "fd00::1/64 names an address"),
            ("ff02::/64", "ff02::/64 isn't all unicast"),
            ("fe80::/64", "fe80::/64 isn't all unicast"),
            ("::/64", "::/64 isn't all unicast"),
        ] {
            let said = parse_ipv6_range(text).unwrap_err().to_string();
            assert!(said.starts_with(expected), "{said}");
        }
    }
}
