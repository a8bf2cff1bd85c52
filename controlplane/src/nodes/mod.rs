//! Nodes: the only writer of node, peer, identity and claim keys, and of a token's uses.

mod record;
mod refused;

pub use record::NodeRecord;
pub(crate) use refused::{removed, store_failed};
