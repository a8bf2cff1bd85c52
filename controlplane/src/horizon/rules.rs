//! What becomes of one record once the horizon has passed. Pure: a record in, a transaction out.

use prost::{DecodeError, Message};
use wattle_model::Revision;
use wattle_proto::{
    InvalidField,
    record::{Body, NetworkBody, NodeBody, PolicyBody, decode_history, encode_unchanged},
    store as proto,
};

use crate::store::{Key, Stored, Transaction, keys};

/// Before what everything is old.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cutoff {
    pub(super) horizon: Revision,
    pub(super) millis: u64,
}

/// What is done with an old record; `None` where it stays as it is.
type Rule = fn(&Stored, Cutoff) -> Result<Option<Transaction>, Unreadable>;

/// A record that is left alone.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error(transparent)]
    Field(#[from] InvalidField),
    #[error(transparent)]
    Message(#[from] DecodeError),
}

/// Every kind of record that grows old.
pub(super) fn rules() -> [(Key, Rule); 11] {
    [
        (keys::networks(), network),
        (keys::all_nodes(), history::<NodeBody>),
        (keys::all_policies(), history::<PolicyBody>),
        (keys::all_names(), claim),
        (keys::all_addresses(), claim),
        (keys::wireguard_keys(), claim),
        (keys::fingerprints(), claim),
        (keys::identities(), identity),
        (keys::join_tokens(), join_token),
        (keys::operators(), operator),
        (keys::requests(), request),
    ]
}

/// Past bodies go; a thing that was deleted goes itself.
fn history<T: Body>(stored: &Stored, cutoff: Cutoff) -> Result<Option<Transaction>, Unreadable> {
    let mut history = decode_history::<T>(&stored.value, stored.modified)?;
    let present = history.present();
    if present.body.is_none() && present.from <= cutoff.horizon {
        return Ok(Some(Transaction::default().remove(stored)));
    }
    let trimmed = history.trim(cutoff.horizon);
    Ok(trimmed.then(|| Transaction::default().replace(stored, encode_unchanged(&history))))
}

/// A network that goes takes along the records that say when it was last changed.
fn network(stored: &Stored, cutoff: Cutoff) -> Result<Option<Transaction>, Unreadable> {
    let change = history::<NetworkBody>(stored, cutoff)?;
    let name = stored.key.as_str().rsplit('/').next().and_then(|name| name.parse().ok());
    Ok(match (change, name) {
        (Some(change), Some(name)) if is_removal(&change) => {
            let of_network = [keys::occupancy(&name), keys::shape(&name), keys::turns(&name)];
            Some(of_network.into_iter().fold(change, Transaction::delete))
        }
        (change, _) => change,
    })
}

fn is_removal(change: &Transaction) -> bool {
    change
        .operations
        .iter()
        .all(|operation| matches!(operation, crate::store::Operation::Delete(_)))
}

fn claim(stored: &Stored, cutoff: Cutoff) -> Result<Option<Transaction>, Unreadable> {
    let claim: proto::Claim = read(stored)?;
    Ok(gone(stored, is_old(claim.released_at_millis, stored, cutoff)))
}

fn identity(stored: &Stored, cutoff: Cutoff) -> Result<Option<Transaction>, Unreadable> {
    let identity: proto::Identity = read(stored)?;
    Ok(gone(stored, is_old(identity.deleted_at_millis, stored, cutoff)))
}

/// Whether a node's end lies behind the horizon and a day back. In a store that was just filled from
/// another one the horizon alone says nothing: it begins at the head.
fn is_old(ended_at_millis: u64, stored: &Stored, cutoff: Cutoff) -> bool {
    ended_at_millis != 0 && ended_at_millis <= cutoff.millis && stored.modified <= cutoff.horizon
}

fn join_token(stored: &Stored, cutoff: Cutoff) -> Result<Option<Transaction>, Unreadable> {
    let token: proto::JoinToken = read(stored)?;
    let revoked = token.revoked && stored.modified <= cutoff.horizon;
    Ok(gone(stored, revoked || token.expires_at_millis <= cutoff.millis))
}

/// Without a record a certificate is good for nothing, as with one that says so. The name stays
/// claimed, which stops nobody: who holds it is looked up.
fn operator(stored: &Stored, cutoff: Cutoff) -> Result<Option<Transaction>, Unreadable> {
    let operator: proto::Operator = read(stored)?;
    let revoked = operator.revoked && stored.modified <= cutoff.horizon;
    Ok(gone(stored, revoked || operator.expires_at_millis <= cutoff.millis))
}

fn request(stored: &Stored, cutoff: Cutoff) -> Result<Option<Transaction>, Unreadable> {
    let request: proto::Request = read(stored)?;
    Ok(gone(stored, request.at_millis <= cutoff.millis))
}

fn read<T: Message + Default>(stored: &Stored) -> Result<T, DecodeError> {
    T::decode(stored.value.clone())
}

fn gone(stored: &Stored, is_old: bool) -> Option<Transaction> {
    is_old.then(|| Transaction::default().remove(stored))
}
