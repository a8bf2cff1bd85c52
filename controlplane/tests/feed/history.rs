//! Random but valid histories of a network: nodes made, labelled, moved and deleted, policies and
//! modes changed.

use std::collections::BTreeMap;

use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use wattle_controlplane::store::{Key, Transaction, keys};
use wattle_model::{
    Endpoint, Generation, History, Labels, Mode, NodeId, PeerSpec, Policy, PublicKey, Revision,
};
use wattle_proto::{
    entry,
    record::{
        Body, NetworkBody, NodeBody, PolicyBody, decode_history, encode_changed, encode_first,
    },
};

use crate::network;

pub(crate) struct Writer {
    random: StdRng,
    /// Every history record: its bytes' history, once its revision is known.
    records: BTreeMap<Key, bytes::Bytes>,
    modified: BTreeMap<Key, Revision>,
    written: Vec<(Key, bytes::Bytes)>,
    live: Vec<NodeId>,
    all: Vec<NodeId>,
}

impl Writer {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            records: BTreeMap::new(),
            modified: BTreeMap::new(),
            written: Vec::new(),
            live: Vec::new(),
            all: Vec::new(),
        }
    }

    /// Every node that ever was.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.all.clone()
    }

    /// The next random transaction.
    pub(crate) fn step(&mut self) -> Transaction {
        match self.random.random_range(0..10) {
            0..4 => self.add().1,
            4 => self.random_mode(),
            5 => self.random_policy(),
            _ if self.live.is_empty() => Transaction::default().delete(keys::occupancy(&network())),
            6 => {
                let node = self.pick();
                let key = keys::node(&network(), node);
                let body = NodeBody {
                    created_at_millis: 1,
                    labels: self.random_labels(),
                    fixed_name: None,
                };
                self.change(key, Some(body))
            }
            7 => {
                let node = self.pick();
                self.live.retain(|live| *live != node);
                let key = keys::node(&network(), node);
                self.change::<NodeBody>(key, None).delete(keys::peer(&network(), node))
            }
            _ => {
                let node = self.pick();
                let entry = self.random_entry(node);
                Transaction::default().put(keys::peer(&network(), node), entry)
            }
        }
    }

    /// The revision of the last transaction.
    pub(crate) fn learn(&mut self, revision: Revision) {
        for (key, value) in self.written.drain(..) {
            self.modified.insert(key.clone(), revision);
            self.records.insert(key, value);
        }
    }

    /// A new node.
    pub(crate) fn add(&mut self) -> (NodeId, Transaction) {
        let mut id = [0; 16];
        self.random.fill_bytes(&mut id);
        let node = NodeId::new(id);
        self.live.push(node);
        self.all.push(node);
        let body =
            NodeBody { created_at_millis: 1, labels: self.random_labels(), fixed_name: None };
        let entry = self.random_entry(node);
        let change = self.change(keys::node(&network(), node), Some(body));
        (node, change.put(keys::peer(&network(), node), entry))
    }

    /// The end of a node that was made at a revision.
    pub(crate) fn delete(&mut self, node: NodeId, made: Revision) -> Transaction {
        self.learn(made);
        self.live.retain(|live| *live != node);
        let key = keys::node(&network(), node);
        self.change::<NodeBody>(key, None).delete(keys::peer(&network(), node))
    }

    fn change<T: Body>(&mut self, key: Key, body: Option<T>) -> Transaction {
        let value = match (self.records.get(&key), body) {
            (Some(bytes), body) => {
                let history: History<T> = decode_history(bytes, self.modified[&key]).unwrap();
                encode_changed(history, body)
            }
            (None, Some(body)) => encode_first(&body),
            (None, None) => return Transaction::default().delete(key),
        };
        self.written.push((key.clone(), value.clone()));
        Transaction::default().put(key, value)
    }

    fn random_mode(&mut self) -> Transaction {
        let mode = if self.random.random() { Mode::Mesh } else { Mode::Closed };
        let body = NetworkBody {
            created_at_millis: 1,
            ipv4_range: "10.90.0.0/16".into(),
            ipv6_range: String::new(),
            mode,
            key_rotation_seconds: 0,
            mtu: None,
            preshared_keys: false,
        };
        self.change(keys::network(&network()), Some(body))
    }

    fn random_policy(&mut self) -> Transaction {
        let key = keys::policy(&network(), &"one".parse().unwrap());
        let side = |n: u32| format!("a={}", n % 3).parse().unwrap();
        let policy = Policy { from: side(self.random.random()), to: side(self.random.random()) };
        let keep = self.random.random_range(0..4) > 0;
        self.change(key, keep.then_some(PolicyBody { created_at_millis: 1, policy }))
    }

    fn random_labels(&mut self) -> Labels {
        Labels::from_texts([format!("a={}", self.random.random_range(0..3))]).unwrap()
    }

    fn random_entry(&mut self, node: NodeId) -> bytes::Bytes {
        let port = self.random.random_range(1..u16::MAX);
        entry::encode(&PeerSpec {
            node,
            name: "node".parse().unwrap(),
            public_key: PublicKey::new([7; 32]).unwrap(),
            next_public_key: None,
            ipv4: Some([10, 90, 0, 1].into()),
            ipv6: None,
            endpoints: vec![Endpoint::new(([192, 0, 2, 1], port).into()).unwrap()],
            secret_generation: Generation::NONE,
        })
    }

    fn pick(&mut self) -> NodeId {
        self.live[self.random.random_range(0..self.live.len())]
    }
}
