//! What the data plane should be: this node's device, and the peers the control plane lets it see.

use std::collections::BTreeMap;

use ipnet::IpNet;
use wattle_model::{NodeId, PeerSpec};

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
    own: NodeId,
    peers: BTreeMap<NodeId, PeerSpec>,
    complete: bool,
}

impl Desired {
    /// No peers yet, and not complete: peers that the device already has stay until a
    /// [`Update::Reset`] says who else there is.
    pub const fn new(own: NodeId, device: DeviceSpec) -> Self {
        Self { device, keepalive: None, own, peers: BTreeMap::new(), complete: false }
    }

    /// Takes a committed change. This node's own entry is left out here and nowhere earlier, so
    /// that all nodes of a class are sent the same bytes.
    pub fn apply(&mut self, update: Update) {
        match update {
            Update::Reset(peers) => {
                self.peers.clear();
                self.upsert(peers);
                self.complete = true;
            }
            Update::Delta { upserts, removed } => {
                for node in removed {
                    self.peers.remove(&node);
                }
                self.upsert(upserts);
            }
        }
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

    fn upsert(&mut self, peers: Vec<PeerSpec>) {
        let own = self.own;
        self.peers.extend(peers.into_iter().filter(|peer| peer.node != own).map(|p| (p.node, p)));
    }
}
