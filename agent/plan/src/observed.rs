//! What the data plane is, as one dump says.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use ipnet::IpNet;
use wattle_model::{Endpoint, NodeId, PresharedKey, PublicKey};

use crate::{Route, Rule};

/// The device, as one dump says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// The device's own key.
    pub public_key: Option<PublicKey>,
    /// The UDP port in use.
    pub listen_port: u16,
    /// The link's addresses, without link-local ones: those are the kernel's business.
    pub addresses: BTreeSet<IpNet>,
    /// The link's MTU.
    pub mtu: u32,
    /// Whether the link is up.
    pub up: bool,
    /// The mark on the packets that the tunnel itself sends; 0 for none.
    pub mark: u32,
    /// Routes into the link, in the main table and the device's own; whether we made them.
    pub routes: BTreeMap<Route, Maker>,
    /// Our policy-routing rules.
    pub rules: BTreeSet<Rule>,
    /// What was found missing and was made anew before the dump could be taken.
    pub repaired: Vec<Repaired>,
    /// The device's peers.
    pub peers: BTreeMap<PublicKey, ObservedPeer>,
}

/// Who made a route into the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// This agent, or one before it.
    Us,
    /// The kernel, with an address; or somebody else, whose it stays.
    Other,
}

/// What a data plane had to make anew before it could be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repaired {
    /// The link was gone.
    Link,
    /// The link had another private key.
    PrivateKey,
}

/// A peer of the device, as one dump says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObservedPeer {
    /// Where packets to it are sent now: as configured, or as it roamed.
    pub endpoint: Option<SocketAddr>,
    /// The prefixes it has. A userspace device may list one prefix under two peers.
    pub allowed_ips: BTreeSet<IpNet>,
    /// How long ago the last handshake completed. `None`: never, or the clock jumped behind it.
    pub last_handshake: Option<Duration>,
    /// Seconds between keepalives.
    pub keepalive: Option<u16>,
    /// The preshared key that its next handshake takes.
    pub preshared: PresharedKey,
    /// Bytes received, handshakes included.
    pub rx_bytes: u64,
    /// Bytes sent, handshakes included.
    pub tx_bytes: u64,
}

/// A peer behind a NAT: the device hears from it at an endpoint that the control plane doesn't know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translated {
    /// Which node.
    pub node: NodeId,
    /// Where it is.
    pub endpoint: Endpoint,
    /// How long ago the last handshake completed.
    pub handshake: Duration,
    /// Rises with each endpoint that is found, and stays with it.
    pub number: u64,
}
