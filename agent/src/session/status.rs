//! How the session stands, for `status` and for whoever waits for it.

use wattle_model::{Digest, Epoch, ReplicaId, Revision};

/// Published whenever it changes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SessionStatus {
    /// What it is doing.
    pub(crate) state: SessionState,
    /// The address it is connected to, or tries.
    pub(crate) control_plane: Option<String>,
    /// The replica at its other end.
    pub(crate) replica: Option<ReplicaId>,
    /// Why it isn't connected, or what else is wrong.
    pub(crate) error: Option<String>,
    /// Of the set held.
    pub(crate) epoch: Option<Epoch>,
    /// Of the set held.
    pub(crate) revision: Revision,
    /// Of the set held.
    pub(crate) digest: Digest,
    /// Why the set on disk is older than the one held, where it is.
    pub(crate) disk_error: Option<String>,
    /// Full sets received since the agent started.
    pub(crate) full_sets: u64,
    /// Times a digest differed and a full set was asked for.
    pub(crate) resyncs: u64,
}

/// What the session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum SessionState {
    /// Looking for a replica that takes it.
    #[default]
    Connecting,
    /// Following a stream.
    Connected,
    /// Another machine runs with the same identity: waiting before trying again.
    Displaced,
    /// The control plane doesn't know this node: trying again, until somebody decides.
    Unknown,
    /// The node was deleted.
    Removed,
}

impl SessionState {
    /// As `status` calls it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Displaced => "displaced",
            Self::Unknown => "unknown",
            Self::Removed => "removed",
        }
    }
}
