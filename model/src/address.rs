//! Addresses and endpoints as the wire carries them: bytes in network order, no text.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Bytes that aren't an address or an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// Neither 4 nor 16 bytes.
    #[error("an address has 4 or 16 bytes, got {0}")]
    AddressLength(usize),
    /// Neither 6 nor 18 bytes.
    #[error("an endpoint has 6 or 18 bytes (address, then port), got {0}")]
    EndpointLength(usize),
    /// An endpoint that nobody could send to.
    #[error("{0} can't be an endpoint: it is unspecified, multicast or has port 0")]
    Unusable(SocketAddr),
}

/// 4 or 16 bytes in network order.
pub fn address_to_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Reads what [`address_to_bytes`] wrote.
pub fn address_from_bytes(bytes: &[u8]) -> Result<IpAddr, InvalidAddress> {
    match bytes.len() {
        4 => Ok(IpAddr::from(<[u8; 4]>::try_from(bytes).expect("length was just checked"))),
        16 => Ok(IpAddr::from(<[u8; 16]>::try_from(bytes).expect("length was just checked"))),
        other => Err(InvalidAddress::AddressLength(other)),
    }
}

/// Where a peer's WireGuard can be reached: an address and a UDP port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint(SocketAddr);

impl Endpoint {
    /// Checks that somebody could send to it. An IPv4-mapped IPv6 address becomes plain IPv4, and
    /// flow label and scope are dropped: they mean nothing on another machine.
    pub fn new(address: SocketAddr) -> Result<Self, InvalidAddress> {
        let ip = address.ip().to_canonical();
        if ip.is_unspecified() || ip.is_multicast() || address.port() == 0 {
            return Err(InvalidAddress::Unusable(address));
        }
        Ok(Self(SocketAddr::new(ip, address.port())))
    }

    /// The socket address.
    pub const fn socket_addr(&self) -> SocketAddr {
        self.0
    }

    /// Another port at the same address.
    pub fn with_port(self, port: u16) -> Result<Self, InvalidAddress> {
        Self::new(SocketAddr::new(self.0.ip(), port))
    }

    /// Address bytes, then the port big-endian: 6 or 18 bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = address_to_bytes(self.0.ip());
        bytes.extend_from_slice(&self.0.port().to_be_bytes());
        bytes
    }
}

impl TryFrom<&[u8]> for Endpoint {
    type Error = InvalidAddress;

    fn try_from(bytes: &[u8]) -> Result<Self, InvalidAddress> {
        let Some((address, port)) =
            bytes.split_last_chunk::<2>().filter(|(address, _)| matches!(address.len(), 4 | 16))
        else {
            return Err(InvalidAddress::EndpointLength(bytes.len()));
        };
        Self::new(SocketAddr::new(address_from_bytes(address)?, u16::from_be_bytes(*port)))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_round_trip() {
        for text in ["192.0.2.1:51820", "[2001:db8::1]:1"] {
            let endpoint = Endpoint::new(text.parse().unwrap()).unwrap();
            assert_eq!(Endpoint::try_from(endpoint.to_bytes().as_slice()), Ok(endpoint));
            assert_eq!(endpoint.to_string(), text);
        }
    }

    #[test]
    fn useless_endpoints_are_refused() {
        for text in ["0.0.0.0:1", "192.0.2.1:0", "[ff02::1]:5", "[::]:5"] {
            assert!(Endpoint::new(text.parse().unwrap()).is_err(), "{text}");
        }
        assert_eq!(Endpoint::try_from([0; 7].as_slice()), Err(InvalidAddress::EndpointLength(7)));
        assert_eq!(Endpoint::try_from([].as_slice()), Err(InvalidAddress::EndpointLength(0)));
    }
}
