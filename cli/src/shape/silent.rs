//! Replicas that didn't answer the one that did: what their agents have is missing from an answer.

use std::fmt;

use serde::Serialize;
use wattle_proto::admin;

use crate::text;

#[derive(Debug, Serialize)]
pub(crate) struct Silent {
    id: String,
    address: String,
    reason: String,
}

impl Silent {
    /// All of an answer.
    pub(crate) fn all(replicas: Vec<admin::SilentReplica>) -> Vec<Self> {
        replicas.into_iter().map(Self::from).collect()
    }
}

impl From<admin::SilentReplica> for Silent {
    fn from(replica: admin::SilentReplica) -> Self {
        let admin::SilentReplica { id, address, reason } = replica;
        Self { id: text::id(&id), address, reason }
    }
}

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, address, reason } = self;
        write!(f, "replica {id} at {address} didn't answer ({reason}): its agents seem offline")
    }
}
