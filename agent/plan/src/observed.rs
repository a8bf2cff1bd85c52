//! What the data plane is, as one dump says.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use ipnet::IpNet;
use wattle_model::PublicKey;

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
    /// The device's peers.
    pub peers: BTreeMap<PublicKey, ObservedPeer>,
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
    /// Bytes received, handshakes included.
    pub rx_bytes: u64,
    /// Bytes sent, handshakes included.
    pub tx_bytes: u64,
}
