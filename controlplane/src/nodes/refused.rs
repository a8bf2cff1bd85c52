//! Why a request about a node isn't done, and how that is said on the wire. No message repeats a
//! secret.

use tonic::{Status, metadata::MetadataValue};
use wattle_model::{NetworkName, NodeName};
use wattle_proto::reason;

use crate::store::StoreError;

/// Why a machine isn't enrolled. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// No such token, or another secret: which of the two, nobody is told.
    #[error("token_secret: the join token is not valid here")]
    Token,
    /// The token was revoked.
    #[error("token_id: the join token was revoked")]
    Revoked,
    /// The token's time has run out.
    #[error("token_id: the join token has expired")]
    Expired,
    /// All uses of the token are taken.
    #[error("token_id: the join token is used up: all its uses are taken")]
    UsedUp,
    /// The token's network was deleted.
    #[error("token_id: the join token's network {0} was deleted")]
    NetworkGone(NetworkName),
    /// The certificate key is that of a node that enrolled with another token.
    #[error("csr: a node with this key exists already")]
    KeyTaken,
    /// The same token and certificate key, but not the same WireGuard key.
    #[error("wireguard_public_key: this machine has enrolled with another WireGuard key before")]
    OtherPublicKey,
    /// Another node has the WireGuard key.
    #[error("wireguard_public_key: another node has this key")]
    PublicKeyTaken,
    /// A key of a node that was deleted not long ago.
    #[error("{0}: this key belonged to a node that was deleted: make a new one")]
    KeyReleased(&'static str),
    /// Another node has the name.
    #[error("name: a node named {name} exists already in network {network}")]
    NameTaken {
        /// The name.
        name: NodeName,
        /// The network.
        network: NetworkName,
    },
    /// Every address of the network is taken, or rests after a deletion.
    #[error("network {0} has no free address")]
    NoAddress(NetworkName),
    /// More enrolments wait than may.
    #[error("too many machines are enrolling: try again")]
    Busy,
    /// The store changed under every attempt.
    #[error("too much is changing: try again")]
    Contended,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let text = refused.to_string();
        match refused {
            Refused::Token | Refused::Revoked => Self::permission_denied(text),
            Refused::Expired | Refused::NetworkGone(_) | Refused::KeyReleased(_) => {
                Self::failed_precondition(text)
            }
            Refused::UsedUp | Refused::NoAddress(_) => Self::resource_exhausted(text),
            Refused::KeyTaken
            | Refused::OtherPublicKey
            | Refused::PublicKeyTaken
            | Refused::NameTaken { .. } => Self::already_exists(text),
            Refused::Busy | Refused::Contended => Self::unavailable(text),
            Refused::Store(error) => store_failed(error),
        }
    }
}

/// The answer to a deleted node, whatever it asks for. Agents tell it by its metadata: they take
/// their link down and don't come back.
pub(crate) fn removed() -> Status {
    let status = Status::failed_precondition("this node was removed from its network");
    because(status, reason::REMOVED)
}

/// The answer to a node that nobody knows. Its agent says so and keeps its mesh.
pub(crate) fn unknown() -> Status {
    because(Status::permission_denied("no such node"), reason::UNKNOWN)
}

fn because(mut status: Status, reason: &'static str) -> Status {
    status.metadata_mut().insert(reason::KEY, MetadataValue::from_static(reason));
    status
}

/// The answer where the store couldn't do what it was asked. What is wrong with it goes to the
/// log: callers can do nothing but come again.
pub(crate) fn store_failed(error: StoreError) -> Status {
    match error {
        StoreError::Unavailable(_) | StoreError::Replaced(_) => {
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
