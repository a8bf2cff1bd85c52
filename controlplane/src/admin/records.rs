//! Stored records as the admin service reads them. One that can't be read is DATA_LOSS, naming its
//! key: it is damaged, or a newer version wrote it.

use prost::Message;
use tonic::Status;
use wattle_model::{History, NetworkName, NodeId, OperatorId, PolicyName, TokenId};
use wattle_proto::{
    InvalidField, admin, entry,
    record::{self, NetworkBody, NodeBody, PolicyBody},
    store::{JoinToken, Operator},
};

use super::{convert, error::unreadable};
use crate::{
    nodes::store_failed,
    store::{Key, Store, Stored},
};

/// Keys read from the store at once.
const CHUNK: usize = 256;

/// `v1/network/<network>`.
pub(super) fn network(stored: &Stored) -> Result<(NetworkName, History<NetworkBody>), Status> {
    let history = record::decode_history(&stored.value, stored.modified);
    Ok((last_part(&stored.key)?, history.map_err(|error| unreadable(&stored.key, &error))?))
}

/// `v1/node/<network>/<node>`.
pub(super) fn node(stored: &Stored) -> Result<(NetworkName, NodeId, History<NodeBody>), Status> {
    let (network, node) = network_and(&stored.key)?;
    let history = record::decode_history(&stored.value, stored.modified);
    Ok((network, node, history.map_err(|error| unreadable(&stored.key, &error))?))
}

/// `v1/policy/<network>/<policy>`.
pub(super) fn policy(
    stored: &Stored,
) -> Result<(NetworkName, PolicyName, History<PolicyBody>), Status> {
    let (network, policy) = network_and(&stored.key)?;
    let history = record::decode_history(&stored.value, stored.modified);
    Ok((network, policy, history.map_err(|error| unreadable(&stored.key, &error))?))
}

/// A node out of its two records, without session and revision.
pub(super) fn node_message(
    network: &NetworkName,
    body: &NodeBody,
    peer: &Stored,
) -> Result<admin::Node, Status> {
    let spec = entry::decode(&peer.value).map_err(|error| unreadable(&peer.key, &error))?;
    Ok(convert::node(network, body, &spec))
}

/// `v1/token/<token>`.
pub(super) fn join_token(stored: &Stored) -> Result<(TokenId, JoinToken), Status> {
    Ok((last_part(&stored.key)?, message(stored)?))
}

/// `v1/operator/<operator>`.
pub(super) fn operator(stored: &Stored) -> Result<(OperatorId, Operator), Status> {
    Ok((last_part(&stored.key)?, message(stored)?))
}

/// The two parts of a key such as `v1/node/<network>/<node>`.
pub(super) fn network_and<T: std::str::FromStr>(key: &Key) -> Result<(NetworkName, T), Status> {
    let mut parts = key.as_str().split('/').skip(2);
    let network = parts.next().and_then(|part| part.parse().ok());
    let named = parts.next().and_then(|part| part.parse().ok());
    network.zip(named).ok_or_else(|| strange(key))
}

/// Reads everything under a prefix, whole or until `look` refuses.
pub(super) async fn each(
    store: &dyn Store,
    prefix: &Key,
    mut look: impl FnMut(&Stored) -> Result<(), Status>,
) -> Result<(), Status> {
    let mut after = None;
    loop {
        let page = store.list(prefix, after.as_ref(), CHUNK).await.map_err(store_failed)?;
        page.items.iter().try_for_each(&mut look)?;
        after = page.items.last().map(|stored| stored.key.clone());
        if !page.more {
            return Ok(());
        }
    }
}

fn message<T: Message + Default>(stored: &Stored) -> Result<T, Status> {
    T::decode(stored.value.clone()).map_err(|source| {
        unreadable(&stored.key, &InvalidField { field: "record", source: source.into() })
    })
}

fn last_part<T: std::str::FromStr>(key: &Key) -> Result<T, Status> {
    let part = key.as_str().rsplit('/').next().unwrap_or_default();
    part.parse().map_err(|_| strange(key))
}

fn strange(key: &Key) -> Status {
    unreadable(key, &InvalidField { field: "key", source: "it has another form".into() })
}
