//! What messages look like to people and programs. The fields of these structs are the JSON that
//! `wattle --help` promises: they may be added to, never renamed.

mod applied;
mod change;
mod explained;
mod network;
mod node;
mod operator;
mod policy;
mod progress;
mod replica;
mod session;
mod sight;
mod silent;
mod status;
mod token;

pub(crate) use applied::Applied;
pub(crate) use change::Changes;
pub(crate) use explained::Explained;
pub(crate) use network::{Network, mode};
pub(crate) use node::{Node, NodeInNetwork};
pub(crate) use operator::Operator;
pub(crate) use policy::{Policy, side};
pub(crate) use progress::Progress;
pub(crate) use replica::Replica;
pub(crate) use session::Session;
pub(crate) use silent::Silent;
pub(crate) use status::Status;
pub(crate) use token::JoinToken;

use serde::Serialize;
use wattle_proto::{Invalid as _, InvalidField};

/// The answer to a change after which there is nothing to show.
#[derive(Debug, Serialize)]
pub(crate) struct Revised {
    pub(crate) revision: u64,
}

/// All messages of a list, or why one can't be read.
pub(crate) fn all<M, T: TryFrom<M, Error = InvalidField>>(
    messages: Vec<M>,
) -> Result<Vec<T>, InvalidField> {
    messages.into_iter().map(T::try_from).collect()
}

/// The message that an answer must hold.
pub(crate) fn present<M, T: TryFrom<M, Error = InvalidField>>(
    field: &'static str,
    message: Option<M>,
) -> Result<T, InvalidField> {
    T::try_from(message.field(field)?)
}
