//! What a transaction of the store means to an operator: its writes become networks, nodes, policies,
//! join tokens and operators that changed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tonic::Status;
use wattle_model::{NetworkName, NodeId, OperatorId, Revision, TokenId};
use wattle_proto::admin::{
    self, ResourceChange,
    resource_change::{Kind, Resource},
};

use super::{convert, records};
use crate::{
    nodes::store_failed,
    store::{Change, Key, Operation, Store, Stored, keys},
};

/// The changes of one transaction; of one network and its own, where one is given.
pub(super) async fn of(
    store: &dyn Store,
    change: &Change,
    network: Option<&NetworkName>,
) -> Result<Vec<ResourceChange>, Status> {
    let (mut changes, mut nodes) = (Vec::new(), BTreeSet::new());
    for operation in &change.operations {
        if let Some(node) = node_of(operation.key()) {
            nodes.insert(node);
        } else if let Some(one) = plain(operation, change.revision) {
            changes.push(one);
        }
    }
    for (network, node) in nodes {
        changes.extend(self::node(store, change, &network, node).await?);
    }
    changes.retain(|change| network.is_none_or(|network| network_of(change) == network.as_str()));
    Ok(changes)
}

/// A change of a network, a policy, a token or an operator: one key holds all of it. `None` for keys that
/// operators don't see, rewrites that say what was said before, and what can't be read: a watch
/// goes on without it.
fn plain(operation: &Operation, revision: Revision) -> Option<ResourceChange> {
    let key = operation.key();
    match (kind_of(key)?, operation) {
        ("network", Operation::Put(..)) => network(&stored(operation, revision)?),
        ("policy", Operation::Put(..)) => policy(&stored(operation, revision)?),
        ("token", Operation::Put(..)) => {
            let (id, token) = records::join_token(&stored(operation, revision)?).ok()?;
            Some(put(Resource::JoinToken(convert::join_token(id, &token))))
        }
        ("token", Operation::Delete(_)) => {
            let id = last_part(key).parse::<TokenId>().ok()?;
            let id = Bytes::copy_from_slice(id.as_bytes());
            Some(deleted(Resource::JoinToken(admin::JoinToken { id, ..Default::default() })))
        }
        ("operator", Operation::Put(..)) => {
            let (id, operator) = records::operator(&stored(operation, revision)?).ok()?;
            Some(put(Resource::Operator(convert::operator(id, &operator))))
        }
        ("operator", Operation::Delete(_)) => {
            let id = last_part(key).parse::<OperatorId>().ok()?;
            let id = Bytes::copy_from_slice(id.as_bytes());
            Some(deleted(Resource::Operator(admin::Operator { id, ..Default::default() })))
        }
        _ => None,
    }
}

fn network(stored: &Stored) -> Option<ResourceChange> {
    let (name, history) = records::network(stored).ok()?;
    let present = history.present();
    // A trim moves the key's revision on, not the body's.
    (present.from == stored.modified).then(|| match &present.body {
        Some(body) => put(Resource::Network(convert::network(&name, body, present.from))),
        None => {
            let name = name.to_string();
            deleted(Resource::Network(admin::Network { name, ..Default::default() }))
        }
    })
}

fn policy(stored: &Stored) -> Option<ResourceChange> {
    let (network, name, history) = records::policy(stored).ok()?;
    let present = history.present();
    // A trim moves the key's revision on, not the body's.
    (present.from == stored.modified).then(|| match &present.body {
        Some(body) => put(Resource::Policy(convert::policy(&network, &name, body, present.from))),
        None => {
            let (network, name) = (network.to_string(), name.to_string());
            deleted(Resource::Policy(admin::Policy { network, name, ..Default::default() }))
        }
    })
}

/// A change of a node: two keys hold it, and one of them may be unchanged. That one is read as it
/// is now; if it changed later, a later message says the same again.
async fn node(
    store: &dyn Store,
    change: &Change,
    network: &NetworkName,
    id: NodeId,
) -> Result<Option<ResourceChange>, Status> {
    let (node, peer) = (keys::node(network, id), keys::peer(network, id));
    let written: BTreeMap<_, _> =
        change.operations.iter().map(|operation| (operation.key(), operation)).collect();
    if let Some(record) = written.get(&node).and_then(|op| stored(op, change.revision)) {
        let Ok((_, _, history)) = records::node(&record) else { return Ok(None) };
        let present = history.present();
        if present.from < record.modified && !written.contains_key(&peer) {
            return Ok(None);
        }
        if present.body.is_none() {
            return Ok(Some(deleted(Resource::Node(convert::gone_node(network, id)))));
        }
    }
    let current = async |key: &Key| match written.get(key) {
        Some(operation) => Ok(stored(operation, change.revision)),
        None => store.get(key).await.map_err(store_failed),
    };
    let (Some(node), Some(peer)) = (current(&node).await?, current(&peer).await?) else {
        // It was deleted since, and the watch comes to that.
        return Ok(None);
    };
    Ok(node_message(network, &node, &peer).map(|node| put(Resource::Node(node))))
}

/// A node as its two records have it; `None` where it doesn't live, or can't be read.
fn node_message(network: &NetworkName, node: &Stored, peer: &Stored) -> Option<admin::Node> {
    let (_, _, history) = records::node(node).ok()?;
    let present = history.present();
    let mut message = records::node_message(network, present.body.as_ref()?, peer).ok()?;
    message.revision = present.from.0.max(peer.modified.0);
    Some(message)
}

/// The network and the id in a node's or a peer's key.
fn node_of(key: &Key) -> Option<(NetworkName, NodeId)> {
    let part_of_node = matches!(kind_of(key), Some("node" | "peer"));
    part_of_node.then(|| records::network_and(key).ok()).flatten()
}

fn kind_of(key: &Key) -> Option<&str> {
    key.as_str().split('/').nth(1)
}

fn last_part(key: &Key) -> &str {
    key.as_str().rsplit('/').next().unwrap_or_default()
}

fn stored(operation: &Operation, revision: Revision) -> Option<Stored> {
    match operation {
        Operation::Put(key, value) => {
            Some(Stored { key: key.clone(), value: value.clone(), modified: revision })
        }
        Operation::Delete(_) => None,
    }
}

const fn put(resource: Resource) -> ResourceChange {
    ResourceChange { kind: Kind::Put as i32, resource: Some(resource) }
}

const fn deleted(resource: Resource) -> ResourceChange {
    ResourceChange { kind: Kind::Deleted as i32, resource: Some(resource) }
}

/// The network that a change belongs to; none for operators.
fn network_of(change: &ResourceChange) -> &str {
    match &change.resource {
        Some(Resource::Network(network)) => &network.name,
        Some(Resource::Node(node)) => &node.network,
        Some(Resource::JoinToken(token)) => &token.network,
        Some(Resource::Policy(policy)) => &policy.network,
        Some(Resource::Operator(_)) | None => "",
    }
}
