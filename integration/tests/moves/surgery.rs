//! Moves addresses between nodes, many in one revision: what no command of the product does, and
//! every agent must get right all the same. Works on the file of a control plane that is stopped.

use std::{collections::BTreeMap, net::IpAddr, path::Path, sync::Arc, time::SystemTime};

use bytes::Bytes;
use prost::Message as _;
use wattle_controlplane::{
    nodes::{NodeRecord, Nodes},
    store::{Operation, Outcome, Store as _, Transaction, embedded::Embedded, keys},
};
use wattle_model::{NetworkName, NodeId};
use wattle_proto::{entry, store};
use wattle_runtime::shutdown::Shutdown;

/// The nodes of the default network, and what is to become of them in one transaction.
pub(super) struct Surgery {
    store: Arc<Embedded>,
    nodes: Nodes,
    network: NetworkName,
    /// The last operation on a key counts: a transaction has each key once.
    operations: BTreeMap<String, Operation>,
}

impl Surgery {
    pub(super) fn open(data: &Path) -> Self {
        let store = Arc::new(Embedded::open(&data.join("store.redb")).unwrap());
        let nodes = Nodes::new(store.clone(), &Shutdown::new());
        let network = "default".parse().unwrap();
        Self { store, nodes, network, operations: BTreeMap::new() }
    }

    /// Each of these nodes gets the addresses of the next, and the last those of the first.
    pub(super) async fn rotate(mut self, names: &[&str]) -> Self {
        let mut nodes = Vec::new();
        for name in names {
            nodes.push(self.node(name).await);
        }
        for (at, (id, record)) in nodes.iter().enumerate() {
            let (_, next) = &nodes[(at + 1) % nodes.len()];
            self.give(*id, record, next).await;
        }
        self
    }

    /// Deletes a node and gives its addresses to another one.
    pub(super) async fn inherit(mut self, heir: &str, deleted: &str) -> Self {
        let (gone, before) = self.node(deleted).await;
        let end = self.nodes.load(gone).await.unwrap().unwrap().plan_delete(SystemTime::now());
        end.operations.into_iter().for_each(|operation| self.add(operation));
        let (id, record) = self.node(heir).await;
        self.give(id, &record, &before).await;
        self
    }

    /// Commits all of it as one revision.
    pub(super) async fn commit(self) {
        let operations = self.operations.into_values().collect();
        let transaction = Transaction { compares: Vec::new(), operations };
        let outcome = self.store.commit(transaction).await.unwrap();
        assert!(matches!(outcome, Outcome::Committed(_)), "{outcome:?}");
    }

    async fn node(&self, name: &str) -> (NodeId, NodeRecord) {
        let id = self.nodes.find(&self.network, name).await.unwrap().unwrap();
        (id, self.nodes.load(id).await.unwrap().unwrap().record)
    }

    /// Everything that says which addresses a node has.
    async fn give(&mut self, id: NodeId, record: &NodeRecord, from: &NodeRecord) {
        let peer = keys::peer(&self.network, id);
        let stored = self.store.get(&peer).await.unwrap().unwrap();
        let mut spec = entry::decode(&stored.value).unwrap();
        (spec.ipv4, spec.ipv6) = (from.ipv4, from.ipv6);
        let record = NodeRecord { ipv4: from.ipv4, ipv6: from.ipv6, ..record.clone() };
        self.add(Operation::Put(peer, entry::encode(&spec)));
        self.add(Operation::Put(keys::identity(id), record.encode()));
        let node_id = Bytes::copy_from_slice(id.as_bytes());
        let claim = store::Claim { node_id, released_at_millis: 0 }.encode_to_vec();
        for address in record.addresses().collect::<Vec<IpAddr>>() {
            let key = keys::address(&self.network, address);
            self.add(Operation::Put(key, claim.clone().into()));
        }
    }

    fn add(&mut self, operation: Operation) {
        self.operations.insert(operation.key().as_str().to_owned(), operation);
    }
}
