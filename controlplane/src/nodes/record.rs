//! A node's identity record and the claims that point to it, as the store keeps them: the one
//! place where their bytes become values and back.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::SystemTime,
};

use bytes::Bytes;
use prost::Message as _;
use wattle_model::{
    Endpoint, Fingerprint, Generation, NetworkName, NodeId, NodeName, PeerSpec, PublicKey, TokenId,
    address_to_bytes,
};
use wattle_proto::{
    Invalid as _, InvalidField,
    entry::{self, MAX_ENDPOINTS},
    store,
};
use wattle_runtime::clock;

/// Who a node is, how it proves it, where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Its network.
    pub network: NetworkName,
    /// Its name.
    pub name: NodeName,
    /// Its certificate's key.
    pub fingerprint: Fingerprint,
    /// Its WireGuard key.
    pub public_key: PublicKey,
    /// The one that it will change to.
    pub next_public_key: Option<PublicKey>,
    /// Since when it has its WireGuard key.
    pub keyed_at: SystemTime,
    /// Its overlay address, where the network has an IPv4 range.
    pub ipv4: Option<Ipv4Addr>,
    /// Its overlay address, where the network has an IPv6 range.
    pub ipv6: Option<Ipv6Addr>,
    /// The token it enrolled with.
    pub token: TokenId,
    /// When it enrolled.
    pub enrolled_at: SystemTime,
    /// When it was deleted; `None` while it lives.
    pub deleted_at: Option<SystemTime>,
    /// Its own endpoint candidates.
    pub own_endpoints: Vec<Endpoint>,
    /// The one that the control plane saw: the address of its connection, with the port that it
    /// listens on.
    pub observed_endpoint: Option<Endpoint>,
    /// The port that its NAT gives it instead, as far as others have seen it.
    pub mapping: Option<Mapping>,
    /// The pin of the root that its last certificate is of; `None`: of the store's first root.
    pub root: Option<Fingerprint>,
    /// The newest of its network's secrets that its agent holds.
    pub secret_generation: Generation,
}

/// What a NAT makes of a node's port, at the address of `observed_endpoint`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// The port that others see.
    pub port: u16,
    /// When that was accepted.
    pub at: SystemTime,
}

impl NodeRecord {
    /// Reads what [`NodeRecord::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, InvalidField> {
        let record = store::Identity::decode(bytes).field("identity")?;
        let observed = record.observed_endpoint.as_ref();
        let observed = (!observed.is_empty()).then(|| Endpoint::try_from(observed)).transpose();
        let deleted = record.deleted_at_millis;
        Ok(Self {
            network: record.network.parse().field("identity.network")?,
            name: record.name.parse().field("identity.name")?,
            fingerprint: Fingerprint::try_from(record.fingerprint.as_ref())
                .field("identity.fingerprint")?,
            public_key: PublicKey::try_from(record.wireguard_public_key.as_ref())
                .field("identity.wireguard_public_key")?,
            next_public_key: entry::public_key(&record.next_wireguard_public_key)
                .field("identity.next_wireguard_public_key")?,
            keyed_at: clock::from_unix_millis(match record.keyed_at_millis {
                0 => record.enrolled_at_millis,
                keyed => keyed,
            }),
            ipv4: entry::ipv4(&record.ipv4).field("identity.ipv4")?,
            ipv6: entry::ipv6(&record.ipv6).field("identity.ipv6")?,
            token: TokenId::try_from(record.token_id.as_ref()).field("identity.token_id")?,
            enrolled_at: clock::from_unix_millis(record.enrolled_at_millis),
            deleted_at: (deleted != 0).then(|| clock::from_unix_millis(deleted)),
            own_endpoints: entry::endpoints(&record.own_endpoints)
                .field("identity.own_endpoints")?,
            observed_endpoint: observed.field("identity.observed_endpoint")?,
            mapping: record.mapping.map(Mapping::decode).transpose()?,
            root: (!record.root.is_empty())
                .then(|| Fingerprint::try_from(record.root.as_ref()))
                .transpose()
                .field("identity.root")?,
            secret_generation: Generation(record.secret_generation),
        })
    }

    /// Its bytes in the store.
    pub fn encode(&self) -> Bytes {
        let ip = |ip: Option<IpAddr>| ip.map_or_else(Bytes::new, |ip| address_to_bytes(ip).into());
        store::Identity {
            network: self.network.to_string(),
            name: self.name.to_string(),
            fingerprint: Bytes::copy_from_slice(self.fingerprint.as_bytes()),
            wireguard_public_key: Bytes::copy_from_slice(self.public_key.as_bytes()),
            next_wireguard_public_key: self
                .next_public_key
                .map_or_else(Bytes::new, |key| Bytes::copy_from_slice(key.as_bytes())),
            keyed_at_millis: if self.keyed_at == self.enrolled_at {
                0
            } else {
                clock::unix_millis(self.keyed_at)
            },
            ipv4: ip(self.ipv4.map(IpAddr::V4)),
            ipv6: ip(self.ipv6.map(IpAddr::V6)),
            token_id: Bytes::copy_from_slice(self.token.as_bytes()),
            enrolled_at_millis: clock::unix_millis(self.enrolled_at),
            deleted_at_millis: self.deleted_at.map_or(0, clock::unix_millis),
            own_endpoints: self.own_endpoints.iter().map(|e| e.to_bytes().into()).collect(),
            observed_endpoint: self
                .observed_endpoint
                .map_or_else(Bytes::new, |endpoint| endpoint.to_bytes().into()),
            mapping: self.mapping.map(Mapping::encode),
            root: self.root.map_or_else(Bytes::new, |root| Bytes::copy_from_slice(root.as_bytes())),
            secret_generation: self.secret_generation.0,
        }
        .encode_to_vec()
        .into()
    }

    /// The addresses it holds.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.map(IpAddr::V4).into_iter().chain(self.ipv6.map(IpAddr::V6))
    }

    /// Whether the node itself names an endpoint at this address: what others see of it there says
    /// nothing, then.
    pub(super) fn names(&self, address: IpAddr) -> bool {
        self.own_endpoints.iter().any(|own| own.socket_addr().ip() == address)
    }

    /// Where it may be reached. Its own endpoints at the address where the control plane sees it are
    /// known to lead somewhere and come first; an address that is none of its own comes last.
    pub(super) fn endpoints(&self) -> Vec<Endpoint> {
        let seen = self.observed_endpoint.map(|seen| seen.socket_addr().ip());
        let mut endpoints = self.own_endpoints.clone();
        endpoints.sort_by_key(|own| Some(own.socket_addr().ip()) != seen);
        let other = self.translated().filter(|other| !self.names(other.socket_addr().ip()));
        endpoints.truncate(MAX_ENDPOINTS - other.iter().len());
        endpoints.extend(other);
        endpoints
    }

    /// Where the control plane sees it, with the port that others see.
    fn translated(&self) -> Option<Endpoint> {
        let (seen, mapping) = (self.observed_endpoint?, self.mapping);
        Some(mapping.map_or(seen, |mapping| seen.with_port(mapping.port).unwrap_or(seen)))
    }

    /// The node as its peers see it.
    pub(super) fn entry(&self, node: NodeId) -> Bytes {
        entry::encode(&PeerSpec {
            node,
            name: self.name.clone(),
            public_key: self.public_key,
            next_public_key: self.next_public_key,
            ipv4: self.ipv4,
            ipv6: self.ipv6,
            endpoints: self.endpoints(),
            secret_generation: self.secret_generation,
        })
    }
}

impl Mapping {
    fn decode(mapping: store::Mapping) -> Result<Self, InvalidField> {
        let port = u16::try_from(mapping.port).ok().filter(|port| *port != 0);
        let port = port.ok_or("no UDP port").field("identity.mapping.port")?;
        Ok(Self { port, at: clock::from_unix_millis(mapping.at_millis) })
    }

    fn encode(self) -> store::Mapping {
        store::Mapping { port: self.port.into(), at_millis: clock::unix_millis(self.at) }
    }
}

/// Which node holds a name, an address or a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) node: NodeId,
    /// The node is deleted, and nobody else may have this until the horizon has passed.
    pub(super) released: bool,
}

impl Claim {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, InvalidField> {
        let claim = store::Claim::decode(bytes).field("claim")?;
        let node = NodeId::try_from(claim.node_id.as_ref()).field("claim.node_id")?;
        Ok(Self { node, released: claim.released_at_millis != 0 })
    }

    /// A claim of a node that lives.
    pub(super) fn held(node: NodeId) -> Bytes {
        Self::encode(node, 0)
    }

    /// What a deleted node's claim becomes.
    pub(super) fn released(node: NodeId, at: SystemTime) -> Bytes {
        // 0 would say that it is held.
        Self::encode(node, clock::unix_millis(at).max(1))
    }

    fn encode(node: NodeId, released_at_millis: u64) -> Bytes {
        let node_id = Bytes::copy_from_slice(node.as_bytes());
        store::Claim { node_id, released_at_millis }.encode_to_vec().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> NodeRecord {
        NodeRecord {
            network: "default".parse().unwrap(),
            name: "a".parse().unwrap(),
            fingerprint: Fingerprint::new([1; 32]),
            public_key: PublicKey::new([2; 32]).unwrap(),
            next_public_key: None,
            keyed_at: clock::from_unix_millis(1000),
            ipv4: Some([10, 90, 0, 1].into()),
            ipv6: None,
            token: TokenId::new([3; 8]),
            enrolled_at: clock::from_unix_millis(1000),
            deleted_at: None,
            own_endpoints: vec![endpoint("192.0.2.1:1"), endpoint("192.0.2.2:1")],
            observed_endpoint: Some(endpoint("192.0.2.3:1")),
            mapping: None,
            root: Some(Fingerprint::new([4; 32])),
            secret_generation: Generation::NONE,
        }
    }

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::new(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn records_round_trip() {
        let mut record = record();
        assert_eq!(NodeRecord::decode(&record.encode()).unwrap(), record);
        record.deleted_at = Some(clock::from_unix_millis(2000));
        record.mapping = Some(Mapping { port: 4000, at: clock::from_unix_millis(3000) });
        record.observed_endpoint = None;
        record.root = None;
        record.next_public_key = PublicKey::new([4; 32]).ok();
        record.keyed_at = clock::from_unix_millis(3000);
        record.secret_generation = Generation(3);
        assert_eq!(NodeRecord::decode(&record.encode()).unwrap(), record);
    }

    #[test]
    fn an_address_that_is_seen_comes_first_among_its_own_and_last_of_all_others() {
        let node = NodeId::new([9; 16]);
        let endpoints = |record: &NodeRecord| entry::decode(&record.entry(node)).unwrap().endpoints;
        let [first, second] = ["192.0.2.1:1", "192.0.2.2:1"].map(endpoint);
        let mut record = record();
        assert_eq!(endpoints(&record), [first, second, endpoint("192.0.2.3:1")]);
        record.mapping = Some(Mapping { port: 4000, at: SystemTime::UNIX_EPOCH });
        assert_eq!(endpoints(&record), [first, second, endpoint("192.0.2.3:4000")]);
        record.mapping = None;
        // Its own word for that address holds, whatever the port.
        for seen in [second, endpoint("192.0.2.2:7")] {
            record.observed_endpoint = Some(seen);
            assert_eq!(endpoints(&record), [second, first]);
        }
        record.own_endpoints = vec![first; MAX_ENDPOINTS];
        record.observed_endpoint = Some(second);
        assert_eq!(endpoints(&record)[MAX_ENDPOINTS - 2..], [first, second]);
    }

    #[test]
    fn claims_round_trip() {
        let node = NodeId::new([9; 16]);
        assert_eq!(Claim::decode(&Claim::held(node)).unwrap(), Claim { node, released: false });
        let released = Claim::released(node, SystemTime::UNIX_EPOCH);
        assert_eq!(Claim::decode(&released).unwrap(), Claim { node, released: true });
    }
}
