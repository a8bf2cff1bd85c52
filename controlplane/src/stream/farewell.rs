//! How a stream ends: with a last message, with a status, or with nothing to say.

use std::{fmt, time::Duration};

use bytes::Bytes;
use tonic::{Code, Status};
use wattle_proto::sync::retry::Reason;

use super::{encode, hello};

/// Why a stream ends.
#[derive(Debug)]
pub(super) enum Farewell {
    /// The agent closed it, or has another one.
    Done,
    /// The agent shall come again later, or go elsewhere.
    Retry(Reason, Duration),
    /// The node was deleted.
    Removed,
    /// Something is wrong.
    Failed(Status),
}

impl Farewell {
    /// Come again after what is usual for the reason.
    pub(super) const fn retry(reason: Reason) -> Self {
        Self::Retry(reason, hello::patience(reason))
    }

    /// The agent said something that it mustn't; the text begins with the field.
    pub(super) fn protocol(what: impl fmt::Display) -> Self {
        Self::Failed(Status::invalid_argument(what.to_string()))
    }

    /// The agent's bytes can't be read. gRPC libraries call that our own failure or theirs; it is
    /// the agent's.
    pub(super) fn malformed(status: Status) -> Self {
        match status.code() {
            Code::Internal | Code::OutOfRange | Code::Unimplemented => {
                Self::protocol(format_args!("request: {}", status.message()))
            }
            _ => Self::Failed(status),
        }
    }

    /// The last message, if there is one, and the status in the trailers.
    pub(super) fn parts(self) -> (Option<Bytes>, Status) {
        match self {
            Self::Done => (None, Status::ok("")),
            Self::Retry(reason, after) => (Some(encode::retry(reason, after)), Status::ok("")),
            Self::Removed => (Some(encode::removed()), Status::ok("")),
            Self::Failed(status) => (None, status),
        }
    }
}

impl From<Status> for Farewell {
    fn from(status: Status) -> Self {
        Self::Failed(status)
    }
}
