//! The rule under which one node may say where another one is: which port it has at the address where
//! the control plane itself sees it, and nothing more. Who may say so at all is the caller's business.

use std::time::{Duration, SystemTime};

use wattle_model::{Endpoint, Revision};

use super::{ChangeError, LoadedNode, record::Mapping};
use crate::store::{StoreError, Transaction};

/// Between two accepted changes for one node: each of them goes to everybody who sees it.
const EVERY: Duration = Duration::from_secs(30);

/// What became of one node's word about another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observed {
    /// It holds from this revision on.
    Accepted(Revision),
    /// It was known.
    Known,
}

/// Why it doesn't hold.
#[derive(Debug, thiserror::Error)]
pub enum NotObserved {
    /// Not at the address where the control plane sees the node.
    #[error("the node isn't seen at that address")]
    OtherAddress,
    /// The node itself says how it is reached at that address.
    #[error("the node has said how it is reached at that address")]
    OwnWord,
    /// Another change was accepted a short while ago.
    #[error("changed a short while ago: again in {0:?}")]
    TooSoon(Duration),
    /// It couldn't be found out, or written.
    #[error(transparent)]
    Failed(#[from] ChangeError),
}

impl From<StoreError> for NotObserved {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl LoadedNode {
    /// Another node sees it at `seen`; `None` where that is known.
    pub(super) fn plan_mapping(
        &self,
        seen: Endpoint,
        now: SystemTime,
    ) -> Result<Option<Transaction>, NotObserved> {
        let (address, port) = (seen.socket_addr().ip(), seen.socket_addr().port());
        let at = self.record.observed_endpoint.map(|own| own.socket_addr());
        let at = at.filter(|at| at.ip() == address).ok_or(NotObserved::OtherAddress)?;
        if self.record.names(address) {
            return Err(NotObserved::OwnWord);
        }
        let mapping = self.record.mapping;
        if mapping.map_or(at.port(), |mapping| mapping.port) == port {
            return Ok(None);
        }
        if let Some(wait) = mapping.and_then(|mapping| too_soon(mapping.at, now)) {
            return Err(NotObserved::TooSoon(wait));
        }
        let mut record = self.record.clone();
        record.mapping = Some(Mapping { port, at: now });
        Ok(self.unless_known(record))
    }
}

/// How long to wait, if at all. The last change may be another replica's, whose clock is ahead.
fn too_soon(last: SystemTime, now: SystemTime) -> Option<Duration> {
    let apart = now.duration_since(last).unwrap_or_else(|ahead| ahead.duration());
    EVERY.checked_sub(apart).filter(|wait| !wait.is_zero())
}
