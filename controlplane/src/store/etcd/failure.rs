//! What an error of etcd means: whether anything was done, and whether another member may do it.

use std::{error::Error as _, fmt, time::Duration};

use etcd_client::Error;
use tonic::{Code, Status};

use super::{connect::Unreachable, settings::EtcdAddress};
use crate::store::StoreError;

/// One call that one member didn't do.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    member: String,
    why: String,
}

/// What is known of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It was never sent, or refused before anything was done; another member may do it, or this
    /// one later.
    Undone,
    /// It may have been done, or may still be.
    Unknown,
    /// It is refused wherever it is tried; nothing was done.
    Refused,
    /// What it asks for was compacted.
    Compacted,
    /// The answer is larger than what is taken.
    TooLarge,
    /// There is no such lease.
    NoLease,
}

impl Failure {
    pub(super) fn new(kind: Kind, member: &dyn fmt::Display, why: &str) -> Self {
        Self { kind, member: member.to_string(), why: why.to_owned() }
    }

    pub(super) fn of(member: &EtcdAddress, error: &Error) -> Self {
        let (kind, why) = match error {
            Error::GRpcStatus(status) => (kind(status), said(status, member.tls())),
            Error::LeaseKeepAliveError(why) => (Kind::NoLease, why.clone()),
            Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => {
                (Kind::Refused, error.to_string())
            }
            other => (Kind::Unknown, other.to_string()),
        };
        Self { kind, member: member.to_string(), why }
    }

    pub(super) fn timeout(member: &EtcdAddress, patience: Duration) -> Self {
        let why = format!("no answer within {patience:?}");
        Self { kind: Kind::Unknown, member: member.to_string(), why }
    }

    /// Another member, or this one a moment later, may answer a reading.
    pub(super) const fn another_may_do(&self) -> bool {
        matches!(self.kind, Kind::Undone | Kind::Unknown)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "etcd at {}: {}", self.member, self.why)
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        Self::Unavailable(failure.to_string())
    }
}

/// Whether etcd doesn't take us for whom we signed in as any more: it has other users now, or ours
/// has another password. Nothing was done.
pub(super) fn asks_who_we_are(error: &Error) -> bool {
    let Error::GRpcStatus(status) = error else { return false };
    let says = |text: &&str| status.message().contains(text);
    ["revision of auth store is old", "invalid user ID or password", "invalid auth token"]
        .iter()
        .any(says)
}

/// etcd's messages are a part of its API: its own client tells errors apart by them
/// (`api/v3rpc/rpctypes/error.go`).
fn kind(status: &Status) -> Kind {
    let message = status.message();
    let says = |text: &str| message.contains(text);
    if unreachable(status).is_some() {
        return Kind::Undone;
    }
    match status.code() {
        Code::OutOfRange if says("has been compacted") => Kind::Compacted,
        // The member lags behind the revision that is asked for.
        Code::OutOfRange if says("future revision") => Kind::Undone,
        Code::OutOfRange if says("message length too large") => Kind::TooLarge,
        Code::NotFound if says("requested lease not found") => Kind::NoLease,
        // Said before a request is proposed, by `require_leader`.
        Code::Unavailable if says("etcdserver: no leader") => Kind::Undone,
        Code::ResourceExhausted if says("too many requests") => Kind::Undone,
        Code::ResourceExhausted
        | Code::InvalidArgument
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::NotFound
        | Code::Unimplemented => Kind::Refused,
        _ => Kind::Unknown,
    }
}

fn said(status: &Status, tls: bool) -> String {
    let why = match unreachable(status) {
        Some(why) => why.to_string(),
        None => root(status).map_or_else(|| status.message().to_owned(), ToString::to_string),
    };
    // In TLS 1.3 a server turns a client away only after the handshake.
    match tls && why == "connection closed" {
        true => format!("{why}: perhaps it wants another client certificate"),
        false => why,
    }
}

/// What lies at the bottom of an error of the connection, which itself says no more than that.
fn root(status: &Status) -> Option<&dyn std::error::Error> {
    let mut last = status.source()?;
    while let Some(deeper) = last.source() {
        last = deeper;
    }
    Some(last)
}

/// The connection that couldn't be made, if that is why.
fn unreachable(status: &Status) -> Option<&dyn std::error::Error> {
    let mut source = status.source();
    while let Some(error) = source {
        // What a connect timeout is made of says so itself.
        let timed_out = error.to_string().contains("deadline has elapsed");
        if error.is::<Unreachable>() || timed_out {
            return Some(error);
        }
        source = error.source();
    }
    None
}
