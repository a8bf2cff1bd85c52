//! A writer of random histories, as the control plane's services write them: it keeps the current
//! keys, which is all that a replica which has just started can list.

use std::collections::BTreeMap;

use bytes::Bytes;
use wattle_model::{
    History, Labels, Mode, NetworkName, NodeId, Policy, PolicyName, Revision, Traits,
};
use wattle_view::{Change, Index, Transaction};

use crate::{
    rng::Rng,
    truth::{State, Truth},
};

/// How a history goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Nothing is ever forgotten: no horizon, no trims.
    Remembering,
    /// A bit of everything, horizons and trims too.
    Forgetting,
    /// The same few records change over and over, so that they forget by themselves.
    Churning,
    /// Like `Remembering`, with many nodes and mostly without a mesh.
    Crowded,
}

const SELECTORS: [&str; 16] = [
    "",
    "a=x",
    "a=y",
    "a!=z",
    "a in (x,y)",
    "a notin (x,y)",
    "a",
    "b",
    "!b",
    "!a,!b",
    "a=x,b",
    "a!=x,!b",
    "name=db-1",
    "name in (db-1,db-2)",
    "name!=db-1",
    "name notin (db-1,db-2),a",
];
const LABELS: [&[&str]; 6] = [&[], &["a=x"], &["a=y"], &["a=z"], &["a=x", "b=1"], &["b=1"]];
const NAMES: [&str; 2] = ["db-1", "db-2"];
const POLICIES: [&str; 3] = ["p", "q", "r"];

/// One key of the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Horizon,
    Network(NetworkName),
    Node(NetworkName, NodeId),
    Peer(NetworkName, NodeId),
    Policy(NetworkName, PolicyName),
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) truth: Truth,
    pub(crate) head: Revision,
    pub(crate) horizon: Revision,
    /// Fed by every transaction since the first.
    pub(crate) watched: Index,
    style: Style,
    keys: BTreeMap<Key, (Revision, Change)>,
    state: BTreeMap<NetworkName, State>,
}

/// The networks of every history.
pub(crate) fn networks() -> [NetworkName; 2] {
    ["one", "two"].map(|name| name.parse().unwrap())
}

impl World {
    /// A history of so many transactions.
    pub(crate) fn grown(seed: u64, style: Style, transactions: u64) -> Self {
        let mut world = Self {
            rng: Rng::new(seed),
            truth: Truth::default(),
            head: Revision::ZERO,
            horizon: Revision::ZERO,
            watched: Index::default(),
            style,
            keys: BTreeMap::new(),
            state: BTreeMap::new(),
        };
        world.truth.states.push(BTreeMap::new());
        for network in networks() {
            world.commit(|world| vec![world.mode(network)]);
        }
        (0..transactions).for_each(|_| world.step());
        world
    }

    /// One transaction of up to three changes.
    pub(crate) fn step(&mut self) {
        self.commit(|world| {
            let mut changes = BTreeMap::new();
            for _ in 0..*world.rng.pick(&[0, 1, 1, 1, 2, 3]) {
                let more = world.some_changes();
                if !more.iter().any(|(key, _)| changes.contains_key(key)) {
                    changes.extend(more);
                }
            }
            changes.into_iter().collect()
        });
    }

    /// An index as a replica that starts now builds it.
    pub(crate) fn listed(&self) -> Index {
        Index::from_list(self.head, self.keys.values().cloned().map(|(at, c)| (at, read_back(c))))
    }

    pub(crate) fn live(&self, network: &NetworkName) -> Vec<NodeId> {
        self.state.get(network).map(|s| s.nodes.keys().copied().collect()).unwrap_or_default()
    }

    /// Whether no record of the network has forgotten anything from `from` on.
    pub(crate) fn remembers(&self, network: &NetworkName, from: Revision) -> bool {
        from >= self.horizon && self.keys.values().all(|(_, c)| floor(c, network) <= from)
    }

    /// Whether a node's key is still there, if only to say that it is dead.
    pub(crate) fn knows(&self, network: &NetworkName, node: NodeId) -> bool {
        self.keys.contains_key(&Key::Node(network.clone(), node))
    }

    /// A cursor that an agent may come back with.
    pub(crate) fn cursor(&mut self) -> Revision {
        Revision(self.horizon.0 + self.rng.below(self.head.0 - self.horizon.0 + 1))
    }

    /// A transaction of our own choice: one node's entry changes.
    pub(crate) fn touch(&mut self, network: &NetworkName, node: NodeId) {
        self.commit(|world| vec![world.entry(network.clone(), node)]);
    }

    fn commit(&mut self, make: impl FnOnce(&mut Self) -> Vec<(Key, Change)>) {
        self.head = self.head.next();
        let changes = make(self);
        for (key, change) in &changes {
            self.keep(key, change);
        }
        self.truth.states.push(self.state.clone());
        if changes.is_empty() {
            self.watched.advance(self.head);
        } else {
            let changes = changes.into_iter().map(|(_, change)| change).collect();
            self.watched.apply(Transaction { revision: self.head, changes });
        }
    }

    /// What a change leaves in the store, and in the truth.
    fn keep(&mut self, key: &Key, change: &Change) {
        let mut key_is_gone = false;
        match change.clone() {
            Change::Network { network, history } => {
                self.state(network).mode = history.present().body;
            }
            Change::Node { network, node, history } => {
                let nodes = &mut self.state(network).nodes;
                put(nodes, node, history.present().body.clone());
            }
            Change::Entry { network, node, entry } => {
                key_is_gone = entry.is_none();
                let entry = entry.map(|entry| (entry, self.head));
                put(&mut self.state(network).entries, node, entry);
            }
            Change::Policy { network, policy, history } => {
                let policies = &mut self.state(network).policies;
                put(policies, policy, history.present().body.clone());
            }
            Change::Horizon(horizon) => self.horizon = horizon,
            Change::NetworkGone { .. } | Change::NodeGone { .. } | Change::PolicyGone { .. } => {
                key_is_gone = true;
            }
        }
        put(&mut self.keys, key.clone(), (!key_is_gone).then(|| (self.head, change.clone())));
    }

    fn state(&mut self, network: NetworkName) -> &mut State {
        self.state.entry(network).or_default()
    }

    fn some_changes(&mut self) -> Vec<(Key, Change)> {
        let network = self.rng.pick(&networks()).clone();
        let live = self.live(&network);
        let few = match self.style {
            Style::Churning => 3,
            Style::Crowded => 60,
            Style::Remembering | Style::Forgetting => 12,
        };
        if live.len() < 3 {
            return self.birth(network);
        }
        let node = *self.rng.pick(&live);
        match self.rng.below(100) {
            0..50 if self.style == Style::Crowded && live.len() < few => self.birth(network),
            0..15 if live.len() < few => self.birth(network),
            15..22 if live.len() > 3 => self.death(network, node),
            0..45 => vec![self.labels(network, node)],
            45..65 => vec![self.entry(network, node)],
            65..85 => vec![self.policy(network)],
            85..88 if self.style != Style::Crowded => vec![self.mode(network)],
            _ if self.style == Style::Forgetting => self.forget(),
            _ => vec![],
        }
    }

    fn birth(&mut self, network: NetworkName) -> Vec<(Key, Change)> {
        let id = (u128::from(self.rng.next()) << 64) | u128::from(self.rng.next());
        let id = NodeId::new(id.to_be_bytes());
        vec![self.labels(network.clone(), id), self.entry(network, id)]
    }

    fn death(&mut self, network: NetworkName, node: NodeId) -> Vec<(Key, Change)> {
        let key = Key::Node(network.clone(), node);
        let Some((_, Change::Node { history, .. })) = self.keys.get(&key).cloned() else {
            return vec![];
        };
        let history = history.changed(self.head, None);
        let peer = Change::Entry { network: network.clone(), node, entry: None };
        let peer = (Key::Peer(network.clone(), node), peer);
        vec![(key, Change::Node { network, node, history }), peer]
    }

    /// A node is made, or relabelled: what fixed its name did so for ever.
    fn labels(&mut self, network: NetworkName, node: NodeId) -> (Key, Change) {
        let labels = Labels::from_texts(*self.rng.pick(&LABELS)).unwrap();
        let key = Key::Node(network.clone(), node);
        let history = match self.keys.get(&key) {
            Some((_, Change::Node { history, .. })) => {
                let was = history.present().body.clone();
                let fixed_name = was.and_then(|traits| traits.fixed_name);
                history.clone().changed(self.head, Some(Traits { labels, fixed_name }))
            }
            _ => {
                let named = self.rng.percent(40).then(|| *self.rng.pick(&NAMES));
                let fixed_name = named.map(|name| name.parse().unwrap());
                History::first(self.head, Traits { labels, fixed_name })
            }
        };
        (key, Change::Node { network, node, history })
    }

    fn entry(&mut self, network: NetworkName, node: NodeId) -> (Key, Change) {
        let mut bytes = node.as_bytes().to_vec();
        bytes.extend(self.rng.next().to_be_bytes());
        let entry = Some(Bytes::from(bytes));
        (Key::Peer(network.clone(), node), Change::Entry { network, node, entry })
    }

    fn mode(&mut self, network: NetworkName) -> (Key, Change) {
        let modes = [Some(Mode::Mesh), Some(Mode::Closed), Some(Mode::Closed), None];
        let mode = *self.rng.pick(if self.head.0 < 3 { &modes[..2] } else { &modes });
        let key = Key::Network(network.clone());
        let history = match (self.keys.get(&key), mode) {
            (Some((_, Change::Network { history, .. })), mode) => {
                history.clone().changed(self.head, mode)
            }
            (_, mode) => History::first(self.head, mode.unwrap_or_default()),
        };
        (key, Change::Network { network, history })
    }

    fn policy(&mut self, network: NetworkName) -> (Key, Change) {
        let names = if self.style == Style::Churning { &POLICIES[..1] } else { &POLICIES[..] };
        let policy: PolicyName = self.rng.pick(names).parse().unwrap();
        let body = self.policy_body(&network);
        let key = Key::Policy(network.clone(), policy.clone());
        let old = match self.keys.get(&key) {
            Some((_, Change::Policy { history, .. })) => Some(history.clone()),
            _ => None,
        };
        let history = match old {
            Some(old) => {
                let body = Some(body).filter(|_| self.rng.percent(70));
                old.changed(self.head, body)
            }
            None => History::first(self.head, body),
        };
        (key, Change::Policy { network, policy, history })
    }

    fn policy_body(&mut self, network: &NetworkName) -> Policy {
        let live = self.live(network);
        let mut side = || match self.rng.below(12) {
            0 | 1 if !live.is_empty() => format!("id={}", self.rng.pick(&live)).parse().unwrap(),
            2 if !live.is_empty() => format!("id!={}", self.rng.pick(&live)).parse().unwrap(),
            _ => self.rng.pick(&SELECTORS).parse().unwrap(),
        };
        Policy { from: side(), to: side() }
    }

    /// The horizon rises, or some record is trimmed to it, or the key of a dead thing goes.
    fn forget(&mut self) -> Vec<(Key, Change)> {
        if self.rng.percent(30) {
            let horizon = self.cursor().min(Revision(self.head.0 - 1)).max(self.horizon);
            return vec![(Key::Horizon, Change::Horizon(horizon))];
        }
        let keys: Vec<Key> = self.keys.keys().cloned().collect();
        let key = self.rng.pick(&keys).clone();
        let trimmed = trim(self.keys[&key].1.clone(), self.horizon);
        trimmed.map(|change| (key, change)).into_iter().collect()
    }
}

/// The record without what lies before the horizon, or without itself if nothing else is left.
fn trim(change: Change, horizon: Revision) -> Option<Change> {
    fn dead<T>(history: &History<T>, horizon: Revision) -> bool {
        history.present().body.is_none() && history.present().from <= horizon
    }
    match change {
        Change::Network { network, history } if dead(&history, horizon) => {
            Some(Change::NetworkGone { network })
        }
        Change::Node { network, node, history } if dead(&history, horizon) => {
            Some(Change::NodeGone { network, node })
        }
        Change::Policy { network, policy, history } if dead(&history, horizon) => {
            Some(Change::PolicyGone { network, policy })
        }
        Change::Network { network, mut history } => {
            history.trim(horizon).then_some(Change::Network { network, history })
        }
        Change::Node { network, node, mut history } => {
            history.trim(horizon).then_some(Change::Node { network, node, history })
        }
        Change::Policy { network, policy, mut history } => {
            history.trim(horizon).then_some(Change::Policy { network, policy, history })
        }
        _ => None,
    }
}

/// A change as it comes back from its parts, as a reader of the store puts it together.
fn read_back(change: Change) -> Change {
    fn again<T: Clone>(h: &History<T>) -> History<T> {
        History::from_parts(h.floor(), h.past().to_vec(), h.present().clone()).unwrap()
    }
    match change {
        Change::Network { network, history } => {
            Change::Network { network, history: again(&history) }
        }
        Change::Node { network, node, history } => {
            Change::Node { network, node, history: again(&history) }
        }
        Change::Policy { network, policy, history } => {
            Change::Policy { network, policy, history: again(&history) }
        }
        other => other,
    }
}

fn floor(change: &Change, of: &NetworkName) -> Revision {
    match change {
        Change::Network { network, history } if network == of => history.floor(),
        Change::Node { network, history, .. } if network == of => history.floor(),
        Change::Policy { network, history, .. } if network == of => history.floor(),
        _ => Revision::ZERO,
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}
