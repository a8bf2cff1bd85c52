//! What the store says at one revision, read by brute force: who sees whom, and who holds what.
//! Nothing here knows the view, its classes or its walks.

use std::collections::BTreeMap;

use bytes::Bytes;
use wattle_model::{History, Labels, Mode, NodeId, Policy, Revision, Traits};
use wattle_proto::{
    record::{Body, NetworkBody, NodeBody, PolicyBody, decode_history},
    store as record,
};

use crate::recording::{Operation, Transaction};

/// The store at one revision.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The last transaction's.
    pub revision: u64,
    modes: BTreeMap<String, Mode>,
    nodes: BTreeMap<NodeId, (String, Traits)>,
    policies: BTreeMap<(String, String), Policy>,
    /// Entries, and the revision at which each was put last.
    entries: BTreeMap<NodeId, (String, Bytes, u64)>,
    pub(crate) identities: BTreeMap<NodeId, record::Identity>,
    pub(crate) claims: BTreeMap<String, record::Claim>,
    pub(crate) tokens: BTreeMap<String, record::JoinToken>,
    /// The highest revision below which some record has forgotten what it said.
    floor: u64,
    /// What couldn't be read.
    pub(crate) unreadable: Vec<String>,
}

impl World {
    /// Takes the next transaction.
    pub fn apply(&mut self, transaction: &Transaction) {
        for operation in &transaction.operations {
            if self.take(operation).is_none() {
                self.unreadable.push(operation.key.clone());
            }
        }
        self.revision = transaction.revision;
    }

    /// `None` where it can't be read.
    fn take(&mut self, operation: &Operation) -> Option<()> {
        let Operation { key, value, modified } = operation;
        let path: Vec<&str> = key.split('/').collect();
        match path[..] {
            ["v1", "network", name] => {
                let body = self.history::<NetworkBody>(value.as_ref(), *modified)?;
                set(&mut self.modes, name.to_owned(), body.map(|body| body.mode));
            }
            ["v1", "node", network, node] => {
                let body = self.history::<NodeBody>(value.as_ref(), *modified)?;
                let traits = body.map(|body| (network.to_owned(), body.into_traits()));
                set(&mut self.nodes, node.parse().ok()?, traits);
            }
            ["v1", "policy", network, name] => {
                let body = self.history::<PolicyBody>(value.as_ref(), *modified)?;
                let key = (network.to_owned(), name.to_owned());
                set(&mut self.policies, key, body.map(|body| body.policy));
            }
            ["v1", "peer", network, node] => {
                let entry = value.clone().map(|entry| (network.to_owned(), entry, *modified));
                set(&mut self.entries, node.parse().ok()?, entry);
            }
            ["v1", "identity", node] => {
                set(&mut self.identities, node.parse().ok()?, decoded(value.as_ref())?);
            }
            ["v1", "name" | "address" | "wireguard-key" | "fingerprint", ..] => {
                set(&mut self.claims, key.clone(), decoded(value.as_ref())?);
            }
            ["v1", "token", token] => {
                set(&mut self.tokens, token.to_owned(), decoded(value.as_ref())?);
            }
            _ => {}
        }
        Some(())
    }

    /// The present body of a record; its floor is noted.
    fn history<T: Body + Clone>(
        &mut self,
        value: Option<&Bytes>,
        modified: u64,
    ) -> Option<Option<T>> {
        let Some(value) = value else { return Some(None) };
        let history: History<T> = decode_history(value, Revision(modified)).ok()?;
        self.floor = self.floor.max(history.floor().0);
        Some(history.present().body.clone())
    }

    /// Below this revision the store doesn't know any more who saw whom.
    pub(crate) const fn floor(&self) -> u64 {
        self.floor
    }

    /// The labels of a node that lives.
    pub fn labels(&self, node: NodeId) -> Option<&Labels> {
        self.nodes.get(&node).map(|(_, traits)| &traits.labels)
    }

    /// What a policy says.
    pub fn policy(&self, network: &str, name: &str) -> Option<&Policy> {
        self.policies.get(&(network.to_owned(), name.to_owned()))
    }

    /// The revision of a node's entry.
    pub(crate) fn entry_revision(&self, node: NodeId) -> Option<u64> {
        self.entries.get(&node).map(|(_, _, modified)| *modified)
    }

    pub(crate) fn entry(&self, node: NodeId) -> Option<&Bytes> {
        self.entries.get(&node).map(|(_, entry, _)| entry)
    }

    /// Nodes that live.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.keys().copied()
    }

    /// Nodes that have an entry.
    pub(crate) fn with_entries(&self) -> impl Iterator<Item = NodeId> {
        self.entries.keys().copied()
    }

    fn sees(&self, network: &str, a: NodeId, b: NodeId) -> bool {
        let traits = |node| self.nodes.get(&node).filter(|(of, _)| of == network).map(|(_, t)| t);
        let (Some(of_a), Some(of_b)) = (traits(a), traits(b)) else { return false };
        match self.modes.get(network) {
            None => false,
            Some(Mode::Mesh) => true,
            Some(Mode::Closed) => self.policies.iter().any(|((of, _), Policy { from, to })| {
                of == network
                    && ((from.matches(a, of_a) && to.matches(b, of_b))
                        || (from.matches(b, of_b) && to.matches(a, of_a)))
            }),
        }
    }

    /// The entries that a node is to hold.
    pub fn sight(&self, network: &str, agent: NodeId) -> BTreeMap<NodeId, Bytes> {
        let own = self.entries.iter().filter(|(_, (of, _, _))| of == network);
        own.filter(|(id, _)| self.sees(network, agent, **id))
            .map(|(id, (_, entry, _))| (*id, entry.clone()))
            .collect()
    }
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

fn decoded<T: prost::Message + Default>(value: Option<&Bytes>) -> Option<Option<T>> {
    value.map(|value| T::decode(value.clone())).transpose().ok()
}
