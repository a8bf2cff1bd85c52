//! The index: all networks' current keys at one revision, and the questions one may ask of it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use wattle_model::{Digest, Mode, NetworkName, NodeId, Revision, Traits};

use crate::{
    Change, Page, Position, PullKey, Transaction, network::Network, node::Node, orders::Path,
    sight::Sight, walk,
};

/// Current keys, as of [`Index::head`].
#[derive(Debug, Default)]
pub struct Index {
    identity: Identity,
    head: Revision,
    horizon: Revision,
    pub(crate) networks: BTreeMap<NetworkName, Network>,
}

/// Tells one index from every other in the process. Slots, and so keys, mean something in the index
/// that made them only; another one, listed anew, may have the same head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Identity(u64);

/// Whether a node lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It does.
    Live,
    /// It did.
    Deleted,
    /// Never heard of, or deleted so long ago that it is forgotten.
    Unknown,
}

/// A network, as the index has it.
#[derive(Debug, Clone, Copy)]
pub struct NetworkRef<'a> {
    /// Its name.
    pub name: &'a NetworkName,
    /// Who sees whom.
    pub mode: Mode,
    /// How many nodes live in it.
    pub live: usize,
}

/// A live node, as the index has it.
#[derive(Debug, Clone, Copy)]
pub struct NodeRef<'a> {
    /// Which node.
    pub id: NodeId,
    /// Its labels, and its name if its token fixed it.
    pub traits: &'a Traits,
    /// Its entry's exact bytes.
    pub entry: Option<&'a Bytes>,
    /// The revision of its last change.
    pub changed: Revision,
}

impl Index {
    /// The index of a listing at `head`; each item is a key with its mod_revision.
    pub fn from_list(head: Revision, items: impl IntoIterator<Item = (Revision, Change)>) -> Self {
        let mut index = Self { head, ..Self::default() };
        // Policies first: one that comes after the nodes has all of them matched anew.
        let (nodes, others): (Vec<_>, Vec<_>) = items
            .into_iter()
            .partition(|(_, change)| matches!(change, Change::Node { .. } | Change::Entry { .. }));
        for (modified, change) in others.into_iter().chain(nodes) {
            index.change(modified, change);
        }
        index
    }

    /// Takes in what a transaction changed. One at or below head was taken in before.
    pub fn apply(&mut self, transaction: Transaction) {
        if transaction.revision <= self.head {
            return;
        }
        self.head = transaction.revision;
        for change in transaction.changes {
            self.change(transaction.revision, change);
        }
    }

    /// Moves head on to a revision up to which nothing else changed.
    pub fn advance(&mut self, revision: Revision) {
        self.head = self.head.max(revision);
    }

    /// The revision that the index shows.
    pub const fn head(&self) -> Revision {
        self.head
    }

    /// The lowest revision from which an agent can be resumed.
    pub const fn horizon(&self) -> Revision {
        self.horizon
    }

    /// Whether a cursor can be resumed from. Below the horizon, deletions may be forgotten, and
    /// above head the index can't tell: such an agent needs a full set, or another replica.
    pub fn resumable(&self, from: Revision) -> bool {
        from != Revision::ZERO && (self.horizon..=self.head).contains(&from)
    }

    /// Whether a node lives.
    pub fn life(&self, network: &NetworkName, node: NodeId) -> Life {
        match self.find(network, node).map(|(_, node)| node) {
            Some(node) if node.present().is_some() => Life::Live,
            Some(node) if node.history.is_some() => Life::Deleted,
            _ => Life::Unknown,
        }
    }

    /// What decides the next page for an agent that has applied everything up to `from` (zero:
    /// nothing, it gets a full set) and was sent a batch up to `after`. `None`: it doesn't live.
    pub fn pull_key(
        &self,
        network: &NetworkName,
        agent: NodeId,
        from: Revision,
        after: Position,
    ) -> Option<PullKey> {
        let (network, node) = self.find_live(network, agent)?;
        let now = self.sight(network, node, self.head);
        let was = self.sight(network, node, from);
        let path = after.base.map(|base| self.path(network, node, base, self.head));
        Some(PullKey {
            index: self.identity,
            network: Arc::clone(&network.name),
            from,
            position: after,
            head: self.head,
            was,
            now,
            path: path.filter(|path| path.len() > 1).unwrap_or_default(),
        })
    }

    /// The page that `key` stands for: a function of the key alone. Where head has moved on since
    /// the key was made, or another index made it, there is nothing in the page, and it is for the
    /// caller to make a new key.
    pub fn pull(&self, key: &PullKey, max_bytes: usize) -> Page {
        match self.networks.get(&*key.network) {
            Some(network) if key.index == self.identity && key.head == self.head => {
                walk::pull(network, key, max_bytes)
            }
            _ => Page {
                entries: Vec::new(),
                removed: Vec::new(),
                position: key.position,
                commit: None,
            },
        }
    }

    /// The digest of everything that an agent sees, itself included where it sees itself.
    pub fn digest(&self, network: &NetworkName, agent: NodeId) -> Digest {
        self.find_live(network, agent).map_or(Digest::EMPTY, |(network, node)| {
            network.digest(&self.sight(network, node, self.head))
        })
    }

    /// Whether two live nodes see each other now.
    pub fn sees(&self, network: &NetworkName, agent: NodeId, peer: NodeId) -> bool {
        let Some((found, agent)) = self.find_live(network, agent) else { return false };
        let peer = found.nodes.get(&peer).and_then(Node::present);
        let sight = self.sight(found, agent, self.head);
        peer.is_some_and(|peer| sight.holds(&peer.class))
    }

    /// All networks.
    pub fn networks(&self) -> impl Iterator<Item = NetworkRef<'_>> {
        self.networks.iter().filter_map(|(name, network)| {
            let mode = *network.mode.as_ref()?.present().body.as_ref()?;
            Some(NetworkRef { name, mode, live: network.live })
        })
    }

    /// Since when a network's record is as it is.
    pub fn network_since(&self, network: &NetworkName) -> Option<Revision> {
        Some(self.networks.get(network)?.mode.as_ref()?.present().from)
    }

    /// A network's live nodes, ordered by id.
    pub fn nodes(&self, network: &NetworkName) -> impl Iterator<Item = NodeRef<'_>> {
        let nodes = self.networks.get(network).into_iter().flat_map(|network| &network.nodes);
        nodes.filter_map(|(id, node)| NodeRef::new(*id, node))
    }

    /// A live node.
    pub fn node(&self, network: &NetworkName, node: NodeId) -> Option<NodeRef<'_>> {
        self.find(network, node).and_then(|(_, record)| NodeRef::new(node, record))
    }

    pub(crate) fn find_live(&self, network: &NetworkName, id: NodeId) -> Option<(&Network, &Node)> {
        self.find(network, id).filter(|(_, node)| node.present().is_some())
    }

    /// What a node saw at a revision.
    pub(crate) fn sight(&self, network: &Network, node: &Node, revision: Revision) -> Sight {
        if revision == Revision::ZERO {
            return Sight::Nobody;
        }
        if revision < self.horizon {
            return Sight::Unknown;
        }
        network.sight(node.at(revision), revision)
    }

    /// What a node saw from `after` to `upto`.
    pub(crate) fn path(
        &self,
        network: &Network,
        node: &Node,
        after: Revision,
        upto: Revision,
    ) -> Path {
        let mut points = network.points(node, after, upto);
        // Where sight becomes known again is a change of what is known.
        points.extend(Some(self.horizon).filter(|horizon| *horizon > after && *horizon <= upto));
        points.sort_unstable();
        points.dedup();
        let mut path = vec![(after, self.sight(network, node, after))];
        for point in points {
            let sight = self.sight(network, node, point);
            if path.last().is_some_and(|(_, last)| *last != sight) {
                path.push((point, sight));
            }
        }
        path
    }

    fn find(&self, network: &NetworkName, id: NodeId) -> Option<(&Network, &Node)> {
        let network = self.networks.get(network)?;
        Some((network, network.nodes.get(&id)?))
    }

    fn change(&mut self, revision: Revision, change: Change) {
        match change {
            Change::Network { network, history } => {
                self.network(network).set_mode(Some(history));
            }
            Change::NetworkGone { network } => self.leave(network, |n| n.set_mode(None)),
            Change::Node { network, node, history } => {
                self.network(network).set_node(node, history)
            }
            Change::NodeGone { network, node } => self.leave(network, |n| n.remove_node(node)),
            Change::Entry { network, node, entry } => {
                self.leave(network, |n| n.set_entry(node, revision, entry));
            }
            Change::Policy { network, policy, history } => {
                self.network(network).set_policy(policy, Some(history));
            }
            Change::PolicyGone { network, policy } => {
                self.leave(network, |n| n.set_policy(policy, None));
            }
            Change::Horizon(horizon) => self.horizon = horizon,
        }
    }

    fn network(&mut self, name: NetworkName) -> &mut Network {
        self.networks.entry(name).or_insert_with_key(|name| Network::new(name.clone()))
    }

    /// A change after which nothing of the network may be left.
    fn leave(&mut self, name: NetworkName, change: impl FnOnce(&mut Network)) {
        let network = self.network(name.clone());
        change(network);
        if network.is_empty() {
            self.networks.remove(&name);
        }
    }
}

impl Default for Identity {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl<'a> NodeRef<'a> {
    fn new(id: NodeId, node: &'a Node) -> Option<Self> {
        let (traits, entry) = (&node.present()?.traits, node.entry.as_ref());
        Some(Self { id, traits, entry: entry.map(|e| &e.bytes), changed: node.changed() })
    }
}
