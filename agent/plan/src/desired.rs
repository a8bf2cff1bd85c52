//! What the data plane should be: this node's device, and the peers the control plane lets it see.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::Hash,
    net::IpAddr,
};

use ipnet::IpNet;
use wattle_model::{NodeId, NodeName, PeerSpec, PresharedKey, PublicKey, Secrets};

use crate::{
    Touched,
    target::{addresses, keys},
};

/// Ethernet's 1500 bytes less WireGuard's 80 over IPv6.
pub const DEFAULT_MTU: u32 = 1420;

/// This node's own device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSpec {
    /// The UDP port; 0 lets the data plane choose one and keep it.
    pub listen_port: u16,
    /// This node's overlay addresses, each with its network's prefix length, so that the kernel
    /// makes the route to the network by itself.
    pub addresses: Vec<IpNet>,
    /// The link's MTU.
    pub mtu: u32,
    /// The mark on the tunnel's own packets, and the number of the device's own routing table; 0
    /// marks none.
    pub mark: u32,
}

/// A change of the peers, as committed by the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// All there are: what isn't listed is gone.
    Reset(Vec<PeerSpec>),
    /// Some peers made or changed, and some gone; whoever isn't named stays as it is.
    Delta {
        /// Peers made or changed.
        upserts: Vec<PeerSpec>,
        /// Peers gone.
        removed: Vec<NodeId>,
    },
}

/// What the data plane should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// The link and its addresses.
    pub device: DeviceSpec,
    /// Seconds between keepalives to every peer, where this node sits behind NAT.
    pub keepalive: Option<u16>,
    /// Prefixes that this machine sends through a node, by the node's name.
    pub via: BTreeMap<IpNet, NodeName>,
    /// What preshared keys are derived of.
    pub secrets: Secrets,
    own: NodeId,
    peers: BTreeMap<NodeId, PeerSpec>,
    /// How many peers claim a key or an address: more than one for a moment, or by mistake.
    keys: HashMap<PublicKey, u32>,
    claims: HashMap<IpAddr, u32>,
    /// Whether something was taken from a peer that another one claimed, too.
    contested: bool,
    /// Addresses that this agent gave the link before.
    former: BTreeSet<IpNet>,
    complete: bool,
}

impl Desired {
    /// No peers yet, and not complete: peers that the device already has stay until a
    /// [`Update::Reset`] says who else there is.
    pub fn new(own: NodeId, device: DeviceSpec) -> Self {
        Self {
            device,
            keepalive: None,
            via: BTreeMap::new(),
            secrets: Secrets::default(),
            own,
            peers: BTreeMap::new(),
            keys: HashMap::new(),
            claims: HashMap::new(),
            contested: false,
            former: BTreeSet::new(),
            complete: false,
        }
    }

    /// Takes a committed change. This node's own entry is left out here and nowhere earlier, so
    /// that all nodes of a class are sent the same bytes.
    ///
    /// Returns what it touched; `None` where everything has to be looked at.
    pub fn apply(&mut self, update: Update) -> Option<Touched> {
        match update {
            Update::Reset(peers) => {
                self.peers.clear();
                self.keys.clear();
                self.claims.clear();
                let own = self.own;
                for peer in peers.into_iter().filter(|peer| peer.node != own) {
                    self.insert(peer);
                }
                self.complete = true;
                None
            }
            Update::Delta { upserts, removed } => {
                let mut touched = Touched::default();
                self.contested = false;
                for node in removed {
                    touched.was(self.remove(&node));
                }
                let own = self.own;
                for peer in upserts.into_iter().filter(|peer| peer.node != own) {
                    touched.was(self.insert(peer.clone()));
                    touched.is(peer);
                }
                let alone = touched.peers().all(|peer| self.is_alone(peer));
                (self.complete && alone && !self.contested).then_some(touched)
            }
        }
    }

    /// Gives the link other addresses; those before are taken away.
    pub fn readdress(&mut self, addresses: Vec<IpNet>) {
        let before = std::mem::replace(&mut self.device.addresses, addresses);
        self.former.extend(before);
    }

    /// Whether an address of the link is one that this agent gave it, or lies in the network's own
    /// range: if it isn't wanted, it goes. Somebody else's stays.
    pub(crate) fn decides(&self, address: &IpNet) -> bool {
        let in_range = |own: &IpNet| own.contains(&address.addr());
        self.former.contains(address) || self.device.addresses.iter().any(in_range)
    }

    /// The preshared key to have with a peer, whichever of its keys it uses.
    pub(crate) fn preshared_key(&self, peer: &PeerSpec) -> PresharedKey {
        self.secrets.preshared_key(self.own, peer)
    }

    /// The peers, this node left out.
    pub fn peers(&self) -> impl ExactSizeIterator<Item = &PeerSpec> {
        self.peers.values()
    }

    /// One peer.
    pub fn peer(&self, node: &NodeId) -> Option<&PeerSpec> {
        self.peers.get(node)
    }

    /// Whether a full set has been seen: only then are the device's unknown peers removed.
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    fn insert(&mut self, peer: PeerSpec) -> Option<PeerSpec> {
        let before = self.remove(&peer.node);
        for key in keys(&peer) {
            *self.keys.entry(key).or_default() += 1;
        }
        for address in addresses(&peer) {
            *self.claims.entry(address).or_default() += 1;
        }
        self.peers.insert(peer.node, peer);
        before
    }

    fn remove(&mut self, node: &NodeId) -> Option<PeerSpec> {
        let peer = self.peers.remove(node)?;
        for key in keys(&peer) {
            self.contested |= release(&mut self.keys, &key);
        }
        for address in addresses(&peer) {
            self.contested |= release(&mut self.claims, &address);
        }
        Some(peer)
    }

    /// Whether nobody claims what this peer has or had, this node included.
    fn is_alone(&self, peer: &PeerSpec) -> bool {
        let alone = |count: Option<&u32>| count.is_none_or(|count| *count == 1);
        let own = |address| self.device.addresses.iter().any(|net| net.addr() == address);
        keys(peer).all(|key| alone(self.keys.get(&key)))
            && addresses(peer).all(|a| alone(self.claims.get(&a)) && !own(a))
    }
}

/// One claim less; whether somebody else claims it still.
fn release<K: Eq + Hash>(counts: &mut HashMap<K, u32>, claimed: &K) -> bool {
    let Some(count) = counts.get_mut(claimed) else { return false };
    *count -= 1;
    if *count > 0 {
        return true;
    }
    counts.remove(claimed);
    false
}
