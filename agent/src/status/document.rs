//! What `status` says, as one JSON document. Its fields are for programs to rely on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How the agent stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Document {
    /// The agent's version.
    pub(crate) version: String,
    /// Who this machine is.
    pub(crate) node: Node,
    /// The set of peers it holds.
    pub(crate) set: Set,
    /// Its stream to the control plane.
    pub(crate) session: Session,
    /// Its WireGuard device.
    pub(crate) data_plane: DataPlane,
    /// Its preshared keys.
    #[serde(default)]
    pub(crate) preshared_keys: PresharedKeys,
    /// Whom it may talk to, by name.
    pub(crate) peers: Vec<Peer>,
}

/// Who this machine is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) network: String,
    pub(crate) trust_domain: String,
    /// Overlay addresses, with the length of the network's range.
    pub(crate) addresses: Vec<String>,
    /// Where the control plane sees this machine.
    pub(crate) observed_endpoint: Option<String>,
    /// Seconds since 1970.
    pub(crate) certificate_not_after: u64,
}

/// The set of peers held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Set {
    /// The store's, in hex; absent where nothing was ever committed.
    pub(crate) epoch: Option<String>,
    /// The revision applied.
    pub(crate) revision: u64,
    /// The last revision at which a fresh dump of the device differed in nothing.
    pub(crate) verified_revision: u64,
    /// In hex.
    pub(crate) digest: String,
    /// Why a restart would begin with an older set, where it would.
    pub(crate) error: Option<String>,
}

/// The stream to the control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// `connecting`, `connected`, `displaced`, `unknown` or `removed`.
    pub(crate) state: String,
    /// The address connected to, or tried.
    pub(crate) control_plane: Option<String>,
    pub(crate) replica: Option<String>,
    pub(crate) error: Option<String>,
    /// Full sets received since the agent started.
    pub(crate) full_sets: u64,
    /// Times a digest differed since the agent started.
    pub(crate) resyncs: u64,
}

/// The WireGuard device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DataPlane {
    /// `kernel` or `userspace`.
    pub(crate) kind: String,
    pub(crate) interface: String,
    pub(crate) public_key: String,
    pub(crate) listen_port: u16,
    pub(crate) mtu: u32,
    /// Who decided on it: `path`, `network` or `flag`.
    pub(crate) mtu_from: String,
    /// How often each kind of thing that somebody else had changed was put right, since the agent
    /// started: link, key, port, mark, mtu, state, address, route, rule, peer.
    pub(crate) repairs: BTreeMap<String, u64>,
    /// What goes wrong, until it goes right.
    pub(crate) errors: Vec<String>,
}

/// What the network's secret makes of each pair.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PresharedKeys {
    /// The network has them.
    pub(crate) on: bool,
    /// The newest generation of the network's secret that this machine holds; 0: none.
    pub(crate) generation: u64,
    /// The one that its peers were told that it holds. With each it uses the lower of theirs and this.
    pub(crate) announced: u64,
    /// Peers that have a preshared key on the device.
    pub(crate) peers: usize,
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Peer {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) public_key: String,
    pub(crate) addresses: Vec<String>,
    /// Where packets to it go now.
    pub(crate) endpoint: Option<String>,
    /// Absent: never.
    pub(crate) last_handshake_seconds: Option<u64>,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
}
