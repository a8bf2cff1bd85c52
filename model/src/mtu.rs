//! A link's MTU, where a network has one of its own.

use std::fmt;

/// Less, and Linux takes IPv6 away from the link.
const IPV6_NEEDS: u32 = 1280;
/// What every host takes (RFC 791).
const LEAST: u32 = 576;
/// The largest whose packets fit an IP packet when WireGuard has added its own to them.
const MOST: u32 = 65_535 - 80;

/// Bytes that the links of a network's nodes carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mtu(u32);

/// A number that can't be a network's MTU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMtu {
    /// No link has it.
    #[error("{LEAST} to {MOST} bytes, got {0}")]
    Bytes(u32),
    /// The network has IPv6 addresses.
    #[error("{0} bytes are too few where there is IPv6, which needs {IPV6_NEEDS} of every link")]
    Ipv6(u32),
}

impl Mtu {
    /// Checks a number of bytes; 0 is none.
    pub fn wished(bytes: u32) -> Result<Option<Self>, InvalidMtu> {
        match bytes {
            0 => Ok(None),
            LEAST..=MOST => Ok(Some(Self(bytes))),
            _ => Err(InvalidMtu::Bytes(bytes)),
        }
    }

    /// Whether nodes with IPv6 addresses may have it.
    pub const fn check_ipv6(self) -> Result<(), InvalidMtu> {
        if self.0 < IPV6_NEEDS { Err(InvalidMtu::Ipv6(self.0)) } else { Ok(()) }
    }

    /// How many bytes.
    pub const fn bytes(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_its_bounds() {
        let wished = |bytes| Mtu::wished(bytes).map(|mtu| mtu.map(Mtu::bytes));
        assert_eq!(wished(0), Ok(None));
        for bytes in [576, 1380, 65_455] {
            assert_eq!(wished(bytes), Ok(Some(bytes)));
        }
        for bytes in [1, 575, 65_456, u32::MAX] {
            let error = wished(bytes).unwrap_err().to_string();
            assert_eq!(error, format!("576 to 65455 bytes, got {bytes}"));
        }
    }

    #[test]
    fn ipv6_needs_more() {
        assert_eq!(Mtu(1280).check_ipv6(), Ok(()));
        let error = Mtu(1279).check_ipv6().unwrap_err().to_string();
        assert!(error.starts_with("1279 bytes are too few where there is IPv6"), "{error}");
    }
}
