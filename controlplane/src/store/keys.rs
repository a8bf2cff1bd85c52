//! Every key the product writes. All live under `v1/`; ids are hex, names are DNS labels, so no
//! part of a key can hold a `/` that isn't a separator.

use std::net::IpAddr;

use wattle_model::{
    Fingerprint, NetworkName, NodeId, NodeName, OperatorId, OperatorName, PolicyName, PublicKey,
    ReplicaId, TokenId, address_to_bytes,
};

use super::Key;

/// Everything.
pub fn all() -> Key {
    Key::new("v1/")
}

/// What is there only while a process is: nothing of it lasts, nothing of it is copied.
pub fn live() -> Key {
    Key::new("v1/live/")
}

/// Whether a key is one of those.
pub fn is_live(key: &Key) -> bool {
    key.as_str().starts_with("v1/live/")
}

/// Put again and again by one process, so that it sees its own watch at work. The value says
/// nothing.
pub fn beat(process: &str) -> Key {
    Key::new(format!("v1/live/beat/{process}"))
}

/// 16 bytes: see the design's Epoch.
pub fn epoch() -> Key {
    Key::new("v1/meta/epoch")
}

/// `store.Cluster`.
pub fn cluster() -> Key {
    Key::new("v1/meta/cluster")
}

/// `store.Horizon`.
pub fn horizon() -> Key {
    Key::new("v1/meta/horizon")
}

/// `store.Addresses`: where agents reach any replica.
pub fn addresses_of_replicas() -> Key {
    Key::new("v1/meta/addresses")
}

/// All replicas that run.
pub fn replicas() -> Key {
    Key::new("v1/live/replica/")
}

/// `store.Replica`; it goes with the replica's lease.
pub fn replica(replica: ReplicaId) -> Key {
    Key::new(format!("v1/live/replica/{replica}"))
}

/// `store.Moving`: here while another store's records, or a backup's, are on their way.
pub fn moving() -> Key {
    Key::new("v1/meta/moving")
}

/// Whether a record says something of this store alone: another one that takes over everything else
/// has its own.
pub fn is_of_one_store(key: &Key) -> bool {
    [epoch(), horizon(), moving()].contains(key) || is_live(key)
}

/// Put by every transaction that gives a network its ranges, so that two of them conflict: ranges
/// of two networks never overlap. The value is the name of the network.
pub fn ranges() -> Key {
    Key::new("v1/meta/ranges")
}

/// Put by every transaction that adds a node or a join token to the network, compared by those
/// that need the network empty. The value says nothing.
pub fn occupancy(network: &NetworkName) -> Key {
    Key::new(format!("v1/occupancy/{network}"))
}

/// Put by every transaction that writes the network or a policy of it, and by every Apply in it;
/// compared by Apply, whose answer speaks of all of them, and by the network's deletion. Labels that
/// are set one by one don't put it: they would keep an Apply in a busy network from ever ending.
/// The value says nothing.
pub fn shape(network: &NetworkName) -> Key {
    Key::new(format!("v1/shape/{network}"))
}

/// All networks.
pub fn networks() -> Key {
    Key::new("v1/network/")
}

/// History of a `store.NetworkBody`.
pub fn network(network: &NetworkName) -> Key {
    Key::new(format!("v1/network/{network}"))
}

/// All nodes of all networks.
pub fn all_nodes() -> Key {
    Key::new("v1/node/")
}

/// All nodes of a network.
pub fn nodes(network: &NetworkName) -> Key {
    Key::new(format!("v1/node/{network}/"))
}

/// History of a `store.NodeBody`.
pub fn node(network: &NetworkName, node: NodeId) -> Key {
    Key::new(format!("v1/node/{network}/{node}"))
}

/// All entries of all networks.
pub fn all_peers() -> Key {
    Key::new("v1/peer/")
}

/// The wire entry itself.
pub fn peer(network: &NetworkName, node: NodeId) -> Key {
    Key::new(format!("v1/peer/{network}/{node}"))
}

/// All policies of all networks.
pub fn all_policies() -> Key {
    Key::new("v1/policy/")
}

/// All policies of a network.
pub fn policies(network: &NetworkName) -> Key {
    Key::new(format!("v1/policy/{network}/"))
}

/// History of a `store.PolicyBody`.
pub fn policy(network: &NetworkName, policy: &PolicyName) -> Key {
    Key::new(format!("v1/policy/{network}/{policy}"))
}

/// All identities.
pub fn identities() -> Key {
    Key::new("v1/identity/")
}

/// `store.Identity`.
pub fn identity(node: NodeId) -> Key {
    Key::new(format!("v1/identity/{node}"))
}

/// All claims on names in all networks.
pub fn all_names() -> Key {
    Key::new("v1/name/")
}

/// All claims on names.
pub fn names(network: &NetworkName) -> Key {
    Key::new(format!("v1/name/{network}/"))
}

/// `store.Claim` on a name.
pub fn name(network: &NetworkName, name: &NodeName) -> Key {
    Key::new(format!("v1/name/{network}/{name}"))
}

/// All claims on addresses of all networks.
pub fn all_addresses() -> Key {
    Key::new("v1/address/")
}

/// All claims on addresses of a network.
pub fn addresses(network: &NetworkName) -> Key {
    Key::new(format!("v1/address/{network}/"))
}

/// `store.Claim` on an address.
pub fn address(network: &NetworkName, address: IpAddr) -> Key {
    Key::new(format!("v1/address/{network}/{}", hex::encode(address_to_bytes(address))))
}

/// All claims on WireGuard keys.
pub fn wireguard_keys() -> Key {
    Key::new("v1/wireguard-key/")
}

/// `store.Claim` on a WireGuard key.
pub fn wireguard_key(key: PublicKey) -> Key {
    Key::new(format!("v1/wireguard-key/{}", hex::encode(key.as_bytes())))
}

/// The secrets of all networks.
pub fn secrets() -> Key {
    Key::new("v1/secret/")
}

/// `store.NetworkSecrets`: what its nodes derive their preshared keys of. Not shown, not logged.
pub fn secret(network: &NetworkName) -> Key {
    Key::new(format!("v1/secret/{network}"))
}

/// All nodes of all networks that are to have another WireGuard key.
pub fn all_rotations() -> Key {
    Key::new("v1/rotation/")
}

/// All nodes of a network that are to have another WireGuard key.
pub fn rotations(network: &NetworkName) -> Key {
    Key::new(format!("v1/rotation/{network}/"))
}

/// `store.Rotation`: the node is to have another WireGuard key.
pub fn rotation(network: &NetworkName, node: NodeId) -> Key {
    Key::new(format!("v1/rotation/{network}/{node}"))
}

/// `store.Turns`: the nodes of a network whose WireGuard keys are being changed now.
pub fn turns(network: &NetworkName) -> Key {
    Key::new(format!("v1/turns/{network}"))
}

/// All claims on certificate keys.
pub fn fingerprints() -> Key {
    Key::new("v1/fingerprint/")
}

/// `store.Claim` on a certificate key.
pub fn fingerprint(fingerprint: Fingerprint) -> Key {
    Key::new(format!("v1/fingerprint/{fingerprint}"))
}

/// All join tokens.
pub fn join_tokens() -> Key {
    Key::new("v1/token/")
}

/// `store.JoinToken`.
pub fn join_token(token: TokenId) -> Key {
    Key::new(format!("v1/token/{token}"))
}

/// All operators.
pub fn operators() -> Key {
    Key::new("v1/operator/")
}

/// `store.Operator`.
pub fn operator(operator: OperatorId) -> Key {
    Key::new(format!("v1/operator/{operator}"))
}

/// The id of the operator who has this name, 16 bytes; free again once that operator isn't live.
pub fn operator_name(name: &OperatorName) -> Key {
    Key::new(format!("v1/operator-name/{name}"))
}

/// All answered requests.
pub fn requests() -> Key {
    Key::new("v1/request/")
}

/// `store.Request`. `principal` is an operator's id or `local`.
pub fn request(principal: &str, request_id: &[u8]) -> Key {
    Key::new(format!("v1/request/{principal}/{}", hex::encode(request_id)))
}
