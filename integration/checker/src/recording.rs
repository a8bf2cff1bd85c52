//! What is recorded.

use std::collections::BTreeMap;

use bytes::Bytes;
use wattle_model::{NodeId, TokenId};

/// Everything, of one run.
#[derive(Debug, Clone, Default)]
pub struct Recording {
    /// What happened in the store: for each epoch.
    pub stores: BTreeMap<Bytes, StoreLog>,
    /// What agents heard.
    pub agents: Vec<Agent>,
}

/// Every transaction of a store since it was recorded, by ascending revision.
#[derive(Debug, Clone, Default)]
pub struct StoreLog {
    /// What it held when the recording began: as one transaction.
    pub first: Transaction,
    /// What came after.
    pub transactions: Vec<Transaction>,
    /// What operators and joining machines asked for meanwhile.
    pub calls: Vec<Call>,
}

/// One transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Its revision.
    pub revision: u64,
    /// What it did.
    pub operations: Vec<Operation>,
}

/// A key's new value; `None`: it was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The key, without the prefix that the store was given.
    pub key: String,
    /// Its value.
    pub value: Option<Bytes>,
    /// The revision it is of; the transaction's, but in what a recording begins with.
    pub modified: u64,
}

/// What one agent heard, in order.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Its node.
    pub node: NodeId,
    /// Its network.
    pub network: String,
    /// The messages.
    pub heard: Vec<Heard>,
}

/// A message, or the end of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A stream was accepted.
    Welcome {
        /// Of the store.
        epoch: Bytes,
        /// It begins with everything.
        full_set: bool,
        /// What the agent had said it has.
        from: u64,
    },
    /// A whole batch.
    Batch {
        /// It leads to this revision.
        revision: u64,
        /// It is everything.
        full_set: bool,
        /// Entries and, without one, removals, in the order in which they came.
        changes: Vec<(NodeId, Option<Bytes>)>,
        /// The control plane's digest of all that the agent holds after it.
        digest: Bytes,
    },
    /// Nothing new up to a revision.
    Heartbeat {
        /// The revision.
        revision: u64,
        /// The control plane's digest.
        digest: Bytes,
    },
}

/// Something that somebody asked for.
#[derive(Debug, Clone)]
pub struct Call {
    /// The request's id; empty for one that has none.
    pub request: Bytes,
    /// When it was first sent, on the recorder's clock.
    pub begun: u64,
    /// When its answer was there, or nobody waited for one any more.
    pub ended: u64,
    /// What was asked.
    pub what: What,
    /// What was answered.
    pub outcome: Outcome,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A label; `None` removes it.
    Label {
        /// Of this node.
        node: NodeId,
        /// Its key.
        key: String,
        /// Its value.
        value: Option<String>,
    },
    /// The end of a node.
    Delete(NodeId),
    /// A policy; `None` removes it.
    Policy {
        /// Its name.
        name: String,
        /// From and to, as selectors.
        sides: Option<(String, String)>,
    },
    /// A join token for so many machines.
    Token {
        /// Its label, which it gives to whoever joins with it.
        label: String,
        /// How many; 0: any number.
        uses: u32,
    },
    /// To become a node.
    Enrol {
        /// With this token.
        token: TokenId,
    },
    /// What a node's label is.
    ReadLabel {
        /// Of this node.
        node: NodeId,
        /// Its key.
        key: String,
    },
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done, at this revision; at 0, where there was nothing to do.
    Done(u64),
    /// The machine is this node.
    Enrolled(NodeId),
    /// The label is this.
    Read(Option<String>),
    /// Refused: it can't have had an effect.
    Refused(String),
    /// Nobody knows.
    Unknown(String),
}
