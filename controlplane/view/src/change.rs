//! What feeds the view: one value per key of the store that it cares for.

use bytes::Bytes;
use wattle_model::{History, Mode, NetworkName, NodeId, Policy, PolicyName, Revision, Traits};

/// Everything that one transaction of the store changed, together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The transaction's revision.
    pub revision: Revision,
    /// What it changed; no key twice.
    pub changes: Vec<Change>,
}

/// The new content of one key.
///
/// A node's death (present body `None`) and the end of its entry belong to one transaction: current
/// keys don't say since when a live node has no entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A network's key was put; its present body is `None` once it is deleted.
    Network {
        /// Which network.
        network: NetworkName,
        /// Its mode, now and before.
        history: History<Mode>,
    },
    /// A network's key was deleted, after the horizon.
    NetworkGone {
        /// Which network.
        network: NetworkName,
    },
    /// A node's key was put; its present body is `None` once it is deleted.
    Node {
        /// Its network.
        network: NetworkName,
        /// Which node.
        node: NodeId,
        /// Its life and traits, now and before.
        history: History<Traits>,
    },
    /// A node's key was deleted, after the horizon: nobody is left who must be told of its death.
    NodeGone {
        /// Its network.
        network: NetworkName,
        /// Which node.
        node: NodeId,
    },
    /// A peer's key was put, or deleted (`None`).
    Entry {
        /// Its network.
        network: NetworkName,
        /// Which node.
        node: NodeId,
        /// The exact bytes.
        entry: Option<Bytes>,
    },
    /// A policy's key was put; its present body is `None` once it is deleted.
    Policy {
        /// Its network.
        network: NetworkName,
        /// Which policy.
        policy: PolicyName,
        /// Its two sides, now and before.
        history: History<Policy>,
    },
    /// A policy's key was deleted, after the horizon.
    PolicyGone {
        /// Its network.
        network: NetworkName,
        /// Which policy.
        policy: PolicyName,
    },
    /// Agents can be resumed from this revision on.
    Horizon(Revision),
}
