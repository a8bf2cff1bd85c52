//! What the store says, read by brute force: who sees whom, at head and at every revision before it
//! that the store remembers. Nothing here knows the view, its classes or its walks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use bytes::Bytes;
use futures::TryStreamExt as _;
use ipnet::IpNet;
use prost::Message as _;
use wattle_controlplane::store::{Store, Stored, keys};
use wattle_model::{
    At, Digest, History, Labels, Mode, NodeId, PeerSpec, Policy, PublicKey, Revision, Traits,
};
use wattle_proto::{
    entry,
    record::{NetworkBody, NodeBody, PolicyBody, decode_history},
    store as record,
};

/// A reading of the whole store at one revision.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) head: Revision,
    /// What lies before it may be forgotten.
    pub(crate) horizon: Revision,
    /// Who holds which key, dead or alive.
    pub(crate) keys: BTreeMap<PublicKey, NodeId>,
    /// Names, addresses and keys that somebody holds.
    held: BTreeMap<String, NodeId>,
    mode: Option<History<Mode>>,
    nodes: BTreeMap<NodeId, History<Traits>>,
    policies: BTreeMap<String, History<Policy>>,
    entries: BTreeMap<NodeId, Bytes>,
}

impl Truth {
    pub(crate) async fn read(store: &dyn Store) -> Self {
        let snapshot = store.snapshot(&keys::all()).await.unwrap();
        let mut truth = Self { head: snapshot.revision, ..Self::default() };
        let pages: Vec<Vec<Stored>> = snapshot.pages.try_collect().await.unwrap();
        pages.iter().flatten().for_each(|stored| truth.take(stored));
        truth
    }

    fn take(&mut self, stored: &Stored) {
        let (value, modified) = (&stored.value, stored.modified);
        let path: Vec<&str> = stored.key.as_str().split('/').collect();
        match path[..] {
            ["v1", "meta", "horizon"] => {
                self.horizon = Revision(record::Horizon::decode(value.clone()).unwrap().revision);
            }
            ["v1", "network", "default"] => {
                let history = decode_history::<NetworkBody>(value, modified).unwrap();
                self.mode = Some(history.map(|body| body.mode));
            }
            ["v1", "node", "default", node] => {
                let history = decode_history::<NodeBody>(value, modified).unwrap();
                self.nodes.insert(node.parse().unwrap(), history.map(NodeBody::into_traits));
            }
            ["v1", "policy", "default", name] => {
                let history = decode_history::<PolicyBody>(value, modified).unwrap();
                self.policies.insert(name.to_owned(), history.map(|body| body.policy));
            }
            ["v1", "peer", "default", node] => {
                self.entries.insert(node.parse().unwrap(), value.clone());
            }
            ["v1", "identity", node] => {
                let identity = record::Identity::decode(value.clone()).unwrap();
                let key = PublicKey::try_from(identity.wireguard_public_key.as_ref()).unwrap();
                self.keys.insert(key, node.parse().unwrap());
            }
            ["v1", "name" | "address" | "wireguard-key" | "fingerprint", ..] => {
                let claim = record::Claim::decode(value.clone()).unwrap();
                if claim.released_at_millis == 0 {
                    let node = NodeId::try_from(claim.node_id.as_ref()).unwrap();
                    self.held.insert(stored.key.to_string(), node);
                }
            }
            _ => {}
        }
    }

    /// The labels of a node that lives.
    pub(crate) fn labels(&self, node: NodeId) -> Option<&Labels> {
        self.nodes.get(&node)?.present().body.as_ref().map(|traits| &traits.labels)
    }

    /// Something that is held by nobody who lives.
    pub(crate) fn lost(&self) -> Option<&str> {
        let mut held = self.held.iter();
        held.find(|(_, node)| self.labels(**node).is_none()).map(|(key, _)| key.as_str())
    }

    /// Whether a node saw another at a revision; `None` where the store has forgotten.
    fn sees(&self, a: NodeId, b: NodeId, at: Revision) -> Option<bool> {
        let (of_a, of_b) = (self.traits_at(a, at)?, self.traits_at(b, at)?);
        let (Some(of_a), Some(of_b)) = (of_a, of_b) else { return Some(false) };
        let mode = known(self.mode.as_ref().map_or(At::Known(None), |mode| mode.at(at)))?;
        match mode {
            None => return Some(false),
            Some(Mode::Mesh) => return Some(true),
            Some(Mode::Closed) => {}
        }
        for policy in self.policies.values() {
            let Some(Policy { from, to }) = known(policy.at(at))? else { continue };
            if (from.matches(a, of_a) && to.matches(b, of_b))
                || (from.matches(b, of_b) && to.matches(a, of_a))
            {
                return Some(true);
            }
        }
        Some(false)
    }

    fn traits_at(&self, node: NodeId, at: Revision) -> Option<Option<&Traits>> {
        known(self.nodes.get(&node).map_or(At::Known(None), |node| node.at(at)))
    }

    /// Whether a node may have seen another at any revision from `since` on.
    pub(crate) fn may_have_seen(&self, a: NodeId, b: NodeId, since: Revision) -> bool {
        let nodes = [a, b].into_iter().filter_map(|node| self.nodes.get(&node));
        let of_nodes = nodes.flat_map(|node| node.changes_after(since));
        let of_mode = self.mode.iter().flat_map(|mode| mode.changes_after(since));
        let of_policies = self.policies.values().flat_map(|policy| policy.changes_after(since));
        let mut revisions = of_nodes.chain(of_mode).chain(of_policies).chain([since]);
        revisions.any(|at| self.sees(a, b, at) != Some(false))
    }

    /// The entries that a node is to hold.
    fn sight(&self, agent: NodeId) -> impl Iterator<Item = (NodeId, &Bytes)> {
        let entries = self.entries.iter().map(|(id, entry)| (*id, entry));
        entries.filter(move |(id, _)| self.sees(agent, *id, self.head).unwrap())
    }

    /// What a policy says now.
    pub(crate) fn policy(&self, name: &str) -> Option<&Policy> {
        self.policies.get(name)?.present().body.as_ref()
    }

    /// The digest of all that a node is to hold.
    pub(crate) fn digest(&self, agent: NodeId) -> Digest {
        let mut digest = Digest::EMPTY;
        self.sight(agent).for_each(|(id, entry)| digest += Digest::of(id, entry));
        digest
    }

    /// The peers that a node's device is to have, and the prefixes of each.
    pub(crate) fn peers(&self, agent: NodeId) -> BTreeMap<PublicKey, BTreeSet<IpNet>> {
        let others = self.sight(agent).filter(|(id, _)| *id != agent);
        let specs = others.map(|(_, bytes)| entry::decode(bytes).unwrap());
        let addresses = |spec: &PeerSpec| {
            let ipv4 = spec.ipv4.map(IpAddr::V4).into_iter();
            ipv4.chain(spec.ipv6.map(IpAddr::V6)).map(IpNet::from).collect()
        };
        specs.map(|spec| (spec.public_key, addresses(&spec))).collect()
    }
}

fn known<T>(at: At<T>) -> Option<Option<T>> {
    match at {
        At::Known(said) => Some(said),
        At::Unknown => None,
    }
}
