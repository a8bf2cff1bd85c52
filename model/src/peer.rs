//! A peer: a node as another node sees it.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{Endpoint, Generation, NodeId, NodeName, PublicKey};

/// What an entry says of a peer, once its bytes are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSpec {
    /// Whose entry it is.
    pub node: NodeId,
    /// Its name in the network.
    pub name: NodeName,
    /// Its WireGuard public key.
    pub public_key: PublicKey,
    /// The key that it will change to: not used yet, but to be known.
    pub next_public_key: Option<PublicKey>,
    /// Its overlay address, where the network has an IPv4 range.
    pub ipv4: Option<Ipv4Addr>,
    /// Its overlay address, where the network has an IPv6 range.
    pub ipv6: Option<Ipv6Addr>,
    /// Where its WireGuard may be reached: candidates, its own first.
    pub endpoints: Vec<Endpoint>,
    /// The newest generation of the network's secret that it holds.
    pub secret_generation: Generation,
}
