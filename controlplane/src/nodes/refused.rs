//! Why a request about a node isn't done, and how that is said on the wire.

use tonic::{Status, metadata::MetadataValue};
use wattle_proto::reason;

use crate::store::StoreError;

/// The answer to a deleted node, whatever it asks for. Agents tell it by its metadata: they take
/// their link down and don't come back.
pub(crate) fn removed() -> Status {
    let mut status = Status::failed_precondition("this node was removed from its network");
    let reason = MetadataValue::from_static(reason::REMOVED);
    status.metadata_mut().insert(reason::KEY, reason);
    status
}

/// The answer where the store couldn't do what it was asked. What is wrong with it goes to the
/// log: callers can do nothing but come again.
pub(crate) fn store_failed(error: StoreError) -> Status {
    match error {
        StoreError::Unavailable(_) => {
            tracing::warn!(%error, "store unavailable");
            Status::unavailable("the control plane can't reach its store now")
        }
        StoreError::TooLarge { .. } => Status::resource_exhausted(error.to_string()),
        StoreError::KeyTwice(_) | StoreError::Corrupt(_) => {
            tracing::error!(%error, "store refused");
            Status::internal("the control plane's store is damaged: see its log")
        }
    }
}
