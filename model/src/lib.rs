//! The plain values that every part of Wattle speaks: ids, keys, revisions, labels, peers.
//!
//! This crate owns their checks and their text and byte forms. It does no I/O and knows neither
//! tokio, tonic, etcd nor netlink; bytes of the wire become these values in `wattle-proto`.

mod address;
mod digest;
mod history;
mod id;
mod join_token;
mod key;
mod labels;
mod mtu;
mod name;
mod peer;
mod policy;
mod range;
mod secret;
mod selector;
mod traits;

pub use address::{Endpoint, InvalidAddress, address_from_bytes, address_to_bytes};
pub use digest::Digest;
pub use history::{At, History, MAX_PAST, Version};
pub use id::{
    Epoch, Fingerprint, InstanceId, InvalidId, NodeId, OperatorId, ReplicaId, Revision, TokenId,
};
pub use join_token::{InvalidJoinToken, JoinToken, TokenSecret};
pub use key::{InvalidKey, PrivateKey, PublicKey};
pub use labels::{InvalidLabel, Labels};
pub use mtu::{InvalidMtu, Mtu};
pub use name::{InvalidName, NetworkName, NodeName, OperatorName, PolicyName};
pub use peer::PeerSpec;
pub use policy::{Mode, Policy};
pub use range::{InvalidRange, parse_ipv4_range, parse_ipv6_range};
pub use secret::{Generation, NetworkSecret, PresharedKey, Secrets};
pub use selector::{InvalidSelector, Requirement, Selector};
pub use traits::Traits;
