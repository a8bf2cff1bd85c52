//! Entries: a peer's bytes, encoded once by whoever writes them to the store and never again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use prost::Message as _;
use wattle_model::{
    Endpoint, Generation, InvalidAddress, InvalidKey, NodeId, PeerSpec, PublicKey,
    address_from_bytes, address_to_bytes,
};

use crate::{Invalid, InvalidField, sync};

/// The most endpoints an entry may carry.
pub const MAX_ENDPOINTS: usize = 8;

/// The bytes of a peer's entry.
pub fn encode(peer: &PeerSpec) -> Bytes {
    let ip =
        |address: Option<IpAddr>| address.map_or_else(Bytes::new, |a| address_to_bytes(a).into());
    sync::Peer {
        node_id: Bytes::copy_from_slice(peer.node.as_bytes()),
        public_key: Bytes::copy_from_slice(peer.public_key.as_bytes()),
        name: peer.name.to_string(),
        ipv4: ip(peer.ipv4.map(IpAddr::V4)),
        ipv6: ip(peer.ipv6.map(IpAddr::V6)),
        endpoints: peer.endpoints.iter().map(|e| e.to_bytes().into()).collect(),
        next_public_key: peer
            .next_public_key
            .map_or_else(Bytes::new, |key| Bytes::copy_from_slice(key.as_bytes())),
        secret_generation: peer.secret_generation.0,
    }
    .encode_to_vec()
    .into()
}

/// Whose entry these bytes are: all that is needed to hold and hash them, whatever else they say.
pub fn node_of(entry: &Bytes) -> Result<NodeId, InvalidField> {
    let peer = sync::Peer::decode(entry.clone()).field("entry")?;
    NodeId::try_from(peer.node_id.as_ref()).field("entry.node_id")
}

/// What a peer's entry says.
pub fn decode(entry: &Bytes) -> Result<PeerSpec, InvalidField> {
    let peer = sync::Peer::decode(entry.clone()).field("entry")?;
    if peer.endpoints.len() > MAX_ENDPOINTS {
        return Err(format!("at most {MAX_ENDPOINTS}, got {}", peer.endpoints.len()))
            .field("entry.endpoints");
    }
    let (ipv4, ipv6) =
        (ipv4(&peer.ipv4).field("entry.ipv4")?, ipv6(&peer.ipv6).field("entry.ipv6")?);
    if ipv4.is_none() && ipv6.is_none() {
        return Err("a peer has at least one address").field("entry.ipv4");
    }
    Ok(PeerSpec {
        node: NodeId::try_from(peer.node_id.as_ref()).field("entry.node_id")?,
        name: peer.name.parse().field("entry.name")?,
        public_key: PublicKey::try_from(peer.public_key.as_ref()).field("entry.public_key")?,
        next_public_key: public_key(&peer.next_public_key).field("entry.next_public_key")?,
        ipv4,
        ipv6,
        endpoints: endpoints(&peer.endpoints).field("entry.endpoints")?,
        secret_generation: Generation(peer.secret_generation),
    })
}

/// Reads a key that may be absent.
pub fn public_key(bytes: &[u8]) -> Result<Option<PublicKey>, InvalidKey> {
    (!bytes.is_empty()).then(|| PublicKey::try_from(bytes)).transpose()
}

/// Reads a list of endpoints.
pub fn endpoints(list: &[Bytes]) -> Result<Vec<Endpoint>, InvalidAddress> {
    list.iter().map(|bytes| Endpoint::try_from(bytes.as_ref())).collect()
}

/// Reads an IPv4 address that may be absent.
pub fn ipv4(bytes: &[u8]) -> Result<Option<Ipv4Addr>, InvalidAddress> {
    match (!bytes.is_empty()).then(|| address_from_bytes(bytes)).transpose()? {
        None => Ok(None),
        Some(IpAddr::V4(address)) => Ok(Some(address)),
        Some(IpAddr::V6(_)) => Err(InvalidAddress::AddressLength(16)),
    }
}

/// Reads an IPv6 address that may be absent.
pub fn ipv6(bytes: &[u8]) -> Result<Option<Ipv6Addr>, InvalidAddress> {
    match (!bytes.is_empty()).then(|| address_from_bytes(bytes)).transpose()? {
        None => Ok(None),
        Some(IpAddr::V6(address)) => Ok(Some(address)),
        Some(IpAddr::V4(_)) => Err(InvalidAddress::AddressLength(4)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> PeerSpec {
        let endpoint = |text: &str| Endpoint::new(text.parse().unwrap()).unwrap();
        PeerSpec {
            node: NodeId::new([1; 16]),
            name: "frankfurt-edge-01".parse().unwrap(),
            public_key: PublicKey::new([2; 32]).unwrap(),
            next_public_key: None,
            ipv4: Some([10, 90, 0, 1].into()),
            ipv6: Some("fd00::1".parse().unwrap()),
            endpoints: vec![endpoint("192.0.2.1:51820"), endpoint("[2001:db8::1]:51820")],
            secret_generation: Generation::NONE,
        }
    }

    #[test]
    fn round_trips_within_130_bytes() {
        let bytes = encode(&peer());
        assert!(bytes.len() <= 130, "{} bytes", bytes.len());
        assert_eq!(decode(&bytes).unwrap(), peer());
        assert_eq!(node_of(&bytes).unwrap(), peer().node);
    }

    /// The same peer has the same bytes for ever: digests of other versions depend on it.
    #[test]
    fn bytes_are_pinned() {
        let hex = hex::encode(encode(&peer()));
        assert!(
            hex.starts_with(&format!("0a10{}1220{}1a11", "01".repeat(16), "02".repeat(32))),
            "{hex}"
        );
        assert!(hex.contains("22040a5a0001") && hex.contains("3206c0000201ca6c"), "{hex}");
        assert!(!hex.contains("3a20"), "no next key is no byte: {hex}");
    }

    #[test]
    fn the_next_key_round_trips() {
        let next_public_key = Some(PublicKey::new([3; 32]).unwrap());
        let peer = PeerSpec { next_public_key, ..peer() };
        assert_eq!(decode(&encode(&peer)).unwrap(), peer);
    }

    /// Where there is none, an entry is what it was before there were any.
    #[test]
    fn the_generation_of_the_network_s_secret_round_trips() {
        let given = PeerSpec { secret_generation: Generation(3), ..peer() };
        assert_eq!(decode(&encode(&given)).unwrap(), given);
        assert_eq!(encode(&given).len(), encode(&peer()).len() + 2);
    }

    #[test]
    fn a_bad_field_is_named() {
        let mut message = sync::Peer::decode(encode(&peer())).unwrap();
        message.public_key = Bytes::from_static(&[1; 31]);
        let error = decode(&message.encode_to_vec().into()).unwrap_err();
        assert_eq!(error.to_string(), "entry.public_key: a WireGuard key has 32 bytes, got 31");
        assert!(
            decode(&Bytes::from_static(b"\xff")).unwrap_err().to_string().starts_with("entry: ")
        );
    }
}
