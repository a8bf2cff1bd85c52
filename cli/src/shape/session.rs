//! What the control plane knows of a node's agent, shown.

use std::time::Duration;

use serde::Serialize;
use wattle_proto::{InvalidField, admin};

use crate::text;

#[derive(Debug, Serialize)]
pub(crate) struct Session {
    pub(crate) online: bool,
    /// When the stream began, or ended.
    pub(crate) since: Option<String>,
    pub(crate) applied_revision: u64,
    pub(crate) verified_revision: u64,
    /// Nothing after the applied revision concerns the node.
    pub(crate) converged: bool,
    /// How old the oldest change is that it hasn't applied.
    pub(crate) lag_ms: Option<u64>,
    pub(crate) last_apply_us: Option<u64>,
    pub(crate) rejected: Vec<Rejection>,
    pub(crate) agent_version: String,
    pub(crate) data_plane: String,
    /// Another machine uses the same identity.
    pub(crate) displaced: bool,
    /// The replica that the stream leads to, or led to.
    pub(crate) replica_id: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Rejection {
    pub(crate) node_id: String,
    pub(crate) reason: String,
}

impl TryFrom<admin::NodeSession> for Session {
    type Error = InvalidField;

    fn try_from(session: admin::NodeSession) -> Result<Self, InvalidField> {
        let rejection = |rejection: admin::Rejection| Rejection {
            node_id: text::id(&rejection.node_id),
            reason: rejection.reason,
        };
        Ok(Self {
            online: session.online,
            since: text::time("node.session.since", session.since.as_ref())?,
            applied_revision: session.applied_revision,
            verified_revision: session.verified_revision,
            converged: session.converged,
            lag_ms: text::duration(session.lag.as_ref()).map(|lag| text::whole(lag.as_millis())),
            last_apply_us: text::duration(session.last_apply.as_ref())
                .map(|took| text::whole(took.as_micros())),
            rejected: session.rejected.into_iter().map(rejection).collect(),
            agent_version: session.agent_version,
            data_plane: session.data_plane,
            displaced: session.displaced,
            replica_id: text::some(&text::id(&session.replica_id)),
        })
    }
}

impl Session {
    /// What a table says of the lag: nothing to apply, how old it is, or that nobody knows.
    pub(crate) fn lag(&self) -> String {
        match (self.converged, self.lag_ms) {
            (true, _) => "0".into(),
            (false, Some(millis)) => text::rough(Duration::from_millis(millis)),
            (false, None) => "-".into(),
        }
    }
}
