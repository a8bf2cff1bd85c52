//! Desired peers by key, with everything that couldn't hold on one device refused: a device has one
//! peer a key and one owner a prefix, so two that claim the same would be rewritten for ever.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::IpAddr,
};

use ipnet::IpNet;
use wattle_model::{Endpoint, NodeId, PeerSpec, PresharedKey, PublicKey};

use crate::Desired;

/// A peer, or a part of it, that the device is not given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Whose entry.
    pub node: NodeId,
    /// Why.
    pub reason: RejectReason,
}

/// Why a peer, or a part of it, is not given to the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RejectReason {
    /// Its key is another peer's, or this node's own.
    KeyTaken {
        /// The peer that has it; `None` is this node.
        by: Option<NodeId>,
    },
    /// Its address is another peer's, or this node's own. Its other addresses still count.
    AddressTaken {
        /// Which.
        address: IpAddr,
        /// The peer that has it; `None` is this node.
        by: Option<NodeId>,
    },
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, by) = match self {
            Self::KeyTaken { by } => ("public_key".to_owned(), by),
            Self::AddressTaken { address, by } => (format!("address {address}"), by),
        };
        match by {
            Some(node) => write!(f, "{what} already belongs to node {node}"),
            None => write!(f, "{what} is this node's own"),
        }
    }
}

/// What one key should have.
pub(crate) struct Target<'a> {
    pub(crate) prefixes: BTreeSet<IpNet>,
    /// `None` leaves its endpoint alone.
    pub(crate) candidates: Option<&'a [Endpoint]>,
    /// It is a key that a peer will change to, from this one: known, and not used yet.
    pub(crate) heir_of: Option<PublicKey>,
    /// The node's, whichever of its keys this is.
    pub(crate) preshared: PresharedKey,
}

impl Desired {
    /// The peers that the device can't be given, for the session to report. `own_key` is the
    /// device's. Where two peers claim one thing, the lower node id has it: every agent that sees
    /// both decides alike.
    pub fn rejected(&self, own_key: Option<PublicKey>) -> Vec<Rejected> {
        resolve(self, own_key).1
    }
}

/// One target per key, and what was refused.
pub(crate) fn resolve(
    desired: &Desired,
    own_key: Option<PublicKey>,
) -> (BTreeMap<PublicKey, Target<'_>>, Vec<Rejected>) {
    let mut targets = BTreeMap::new();
    let mut rejected = Vec::new();
    let mut keys: HashMap<PublicKey, Option<NodeId>> =
        own_key.map(|key| (key, None)).into_iter().collect();
    let mut owners: HashMap<IpAddr, Option<NodeId>> =
        desired.device.addresses.iter().map(|net| (net.addr(), None)).collect();
    for peer in desired.peers() {
        if let Some(by) = keys.get(&peer.public_key).copied() {
            rejected.push(Rejected { node: peer.node, reason: RejectReason::KeyTaken { by } });
            continue;
        }
        keys.insert(peer.public_key, Some(peer.node));
        let mut prefixes = BTreeSet::new();
        for address in addresses(peer) {
            if let Some(by) = owners.get(&address).copied() {
                let reason = RejectReason::AddressTaken { address, by };
                rejected.push(Rejected { node: peer.node, reason });
            } else {
                owners.insert(address, Some(peer.node));
                prefixes.insert(IpNet::from(address));
            }
        }
        let via = desired.via.iter().filter(|(_, name)| **name == peer.name);
        prefixes.extend(via.map(|(prefix, _)| *prefix));
        let candidates = Some(&peer.endpoints[..]);
        let preshared = desired.preshared_key(peer);
        targets.insert(peer.public_key, Target { prefixes, candidates, heir_of: None, preshared });
    }
    for peer in desired.peers() {
        // A key in use comes before one that isn't yet.
        if let Some(next) = peer.next_public_key.filter(|next| !keys.contains_key(next))
            && targets.contains_key(&peer.public_key)
        {
            keys.insert(next, Some(peer.node));
            targets.insert(next, Target::heir_of(peer, desired.preshared_key(peer)));
        }
    }
    (targets, rejected)
}

impl<'a> Target<'a> {
    /// What the key has that a peer will change to: no prefix yet.
    pub(crate) fn heir_of(peer: &'a PeerSpec, preshared: PresharedKey) -> Self {
        let candidates = Some(&peer.endpoints[..]);
        Self { prefixes: BTreeSet::new(), candidates, heir_of: Some(peer.public_key), preshared }
    }
}

/// A peer's keys: the one in use, and the one that it will change to.
pub(crate) fn keys(peer: &PeerSpec) -> impl Iterator<Item = PublicKey> {
    [Some(peer.public_key), peer.next_public_key].into_iter().flatten()
}

pub(crate) fn addresses(peer: &PeerSpec) -> impl Iterator<Item = IpAddr> {
    peer.ipv4.map(IpAddr::V4).into_iter().chain(peer.ipv6.map(IpAddr::V6))
}
