//! From keys and bytes of the store to changes of the view. A record that can't be read is an
//! error of its own; whoever calls logs it and goes on.

use bytes::Bytes;
use wattle_model::{History, InvalidId, InvalidName, NetworkName, NodeId, PolicyName, Revision};
use wattle_proto::{
    Invalid as _, InvalidField, entry,
    record::{Body, NetworkBody, NodeBody, PolicyBody, decode_history},
    store as proto,
};
use wattle_view::Change;

use crate::store::{Key, Operation, keys};

/// A record that the view goes without.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {source}")]
pub(crate) struct Unreadable {
    key: Key,
    source: InvalidField,
}

/// What an operation at `revision` means for the view; `None` where it is none of its keys.
pub(super) fn change(
    operation: &Operation,
    revision: Revision,
) -> Result<Option<Change>, Unreadable> {
    let key = operation.key();
    let named = |source| Unreadable { key: key.clone(), source };
    let Some(place) = Place::of(key).map_err(named)? else { return Ok(None) };
    match operation {
        Operation::Put(_, value) => place.put(value, revision).map(Some).map_err(named),
        Operation::Delete(_) => Ok(place.deleted()),
    }
}

/// A key that the view cares for.
enum Place {
    Horizon,
    Network(NetworkName),
    Node(NetworkName, NodeId),
    Peer(NetworkName, NodeId),
    Policy(NetworkName, PolicyName),
}

impl Place {
    fn of(key: &Key) -> Result<Option<Self>, InvalidField> {
        if *key == keys::horizon() {
            return Ok(Some(Self::Horizon));
        }
        let parts: Vec<_> = key.as_str().split('/').collect();
        let network = |text: &str| -> Result<NetworkName, InvalidField> {
            text.parse().map_err(|error: InvalidName| error).field("network")
        };
        let node = |text: &str| -> Result<NodeId, InvalidField> {
            text.parse().map_err(|error: InvalidId| error).field("node")
        };
        Ok(match parts[..] {
            ["v1", "network", n] => Some(Self::Network(network(n)?)),
            ["v1", "node", n, id] => Some(Self::Node(network(n)?, node(id)?)),
            ["v1", "peer", n, id] => Some(Self::Peer(network(n)?, node(id)?)),
            ["v1", "policy", n, p] => Some(Self::Policy(network(n)?, p.parse().field("policy")?)),
            _ => None,
        })
    }

    fn put(self, value: &Bytes, revision: Revision) -> Result<Change, InvalidField> {
        Ok(match self {
            Self::Horizon => Change::Horizon(horizon(value)?),
            Self::Network(network) => {
                let history = history(value, revision, |body: NetworkBody| body.mode)?;
                Change::Network { network, history }
            }
            Self::Node(network, node) => {
                let history = history(value, revision, NodeBody::into_traits)?;
                Change::Node { network, node, history }
            }
            Self::Policy(network, policy) => {
                let history = history(value, revision, |body: PolicyBody| body.policy)?;
                Change::Policy { network, policy, history }
            }
            Self::Peer(network, node) => {
                if entry::node_of(value)? != node {
                    return Err("another node's").field("entry.node_id");
                }
                Change::Entry { network, node, entry: Some(value.clone()) }
            }
        })
    }

    /// Nobody deletes the horizon.
    fn deleted(self) -> Option<Change> {
        match self {
            Self::Horizon => None,
            Self::Network(network) => Some(Change::NetworkGone { network }),
            Self::Node(network, node) => Some(Change::NodeGone { network, node }),
            Self::Policy(network, policy) => Some(Change::PolicyGone { network, policy }),
            Self::Peer(network, node) => Some(Change::Entry { network, node, entry: None }),
        }
    }
}

fn history<T: Body, U>(
    value: &Bytes,
    modified: Revision,
    of: impl Fn(T) -> U,
) -> Result<History<U>, InvalidField> {
    Ok(decode_history(value, modified)?.map(of))
}

fn horizon(value: &Bytes) -> Result<Revision, InvalidField> {
    let record = <proto::Horizon as prost::Message>::decode(value.clone()).field("horizon")?;
    Ok(Revision(record.revision))
}
