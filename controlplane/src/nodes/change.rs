//! Changes of a node that exists: planned here as one transaction, which compares everything that
//! was read.

use std::time::SystemTime;

use wattle_model::{
    Endpoint, Fingerprint, Generation, History, Labels, NodeId, PublicKey, Revision,
};
use wattle_proto::record::{NodeBody, decode_history, encode_changed};

use super::record::{Claim, NodeRecord};
use crate::store::{Store, StoreError, Stored, Transaction, keys};

/// A live node, as it was read.
#[derive(Debug, Clone)]
pub struct LoadedNode {
    /// Its id.
    pub node: NodeId,
    /// Who and where it is.
    pub record: NodeRecord,
    /// Its labels, and when it was made.
    pub body: NodeBody,
    identity: Stored,
    life: Stored,
    history: History<NodeBody>,
}

impl LoadedNode {
    /// Reads a node; `None` where there is none, or it is deleted.
    pub(super) async fn read(store: &dyn Store, node: NodeId) -> Result<Option<Self>, StoreError> {
        let Some(identity) = store.get(&keys::identity(node)).await? else { return Ok(None) };
        let corrupt = |error| StoreError::Corrupt(format!("node {node}: {error}"));
        let record = NodeRecord::decode(&identity.value).map_err(corrupt)?;
        if record.deleted_at.is_some() {
            return Ok(None);
        }
        let life = store.get(&keys::node(&record.network, node)).await?;
        let Some(life) = life else { return Ok(None) };
        let history: History<NodeBody> =
            decode_history(&life.value, life.modified).map_err(corrupt)?;
        let Some(body) = history.present().body.clone() else { return Ok(None) };
        Ok(Some(Self { node, record, body, identity, life, history }))
    }

    /// The revision of its last change.
    pub fn revision(&self) -> Revision {
        self.identity.modified.max(self.life.modified)
    }

    /// Writes nothing, and demands that the node is as it was read.
    pub fn unchanged(&self) -> Transaction {
        Transaction::default().unchanged(&self.identity).unchanged(&self.life)
    }

    /// Its end. The history says so to resumes, the peer key and the name go, and keys and
    /// addresses rest: nobody may take them while somebody may still believe they are this node's.
    pub fn plan_delete(&self, now: SystemTime) -> Transaction {
        let (network, record) = (&self.record.network, &self.record);
        let deleted = NodeRecord { deleted_at: Some(now), ..record.clone() };
        let released = Claim::released(self.node, now);
        // Everything else of a node is written only together with its identity, so that the two
        // compares here guard all of it.
        let transaction = Transaction::default()
            .replace(&self.identity, deleted.encode())
            .replace(&self.life, encode_changed(self.history.clone(), None))
            .delete(keys::peer(network, self.node))
            .delete(keys::name(network, &record.name))
            .put(keys::wireguard_key(record.public_key), released.clone())
            .put(keys::fingerprint(record.fingerprint), released.clone())
            .delete(keys::rotation(network, self.node));
        let next = record.next_public_key.map(keys::wireguard_key);
        let transaction =
            next.into_iter().fold(transaction, |all, key| all.put(key, released.clone()));
        record.addresses().fold(transaction, |transaction, address| {
            transaction.put(keys::address(network, address), released.clone())
        })
    }

    /// The revision since which it has its labels.
    pub fn labelled(&self) -> Revision {
        self.history.present().from
    }

    /// Writes nothing, and demands that it lives and has the labels that were read. Its deletion
    /// writes the same record.
    pub fn same_labels(&self) -> Transaction {
        Transaction::default().unchanged(&self.life)
    }

    /// Gives it these labels and no others, whatever else became of it while it lives.
    pub fn relabel(&self, labels: Labels) -> Transaction {
        let body = NodeBody { labels, ..self.body.clone() };
        let changed = encode_changed(self.history.clone(), Some(body));
        Transaction::default().replace(&self.life, changed)
    }

    /// Gives it these labels and no others, where all of it is as it was read.
    pub fn plan_label(&self, labels: Labels) -> Transaction {
        self.relabel(labels).unchanged(&self.identity)
    }

    /// Says of which root its certificate is; `None` where that is what the store says already. A
    /// record that says nothing means the `first`.
    pub(super) fn plan_root(&self, root: Fingerprint, first: Fingerprint) -> Option<Transaction> {
        let differs = self.record.root.unwrap_or(first) != root;
        let record = NodeRecord { root: Some(root), ..self.record.clone() };
        differs.then(|| Transaction::default().replace(&self.identity, record.encode()))
    }

    /// Says where it may be reached, and which of its network's secrets it holds; `None` where that is
    /// what the store says already. The entry is put only if its bytes change.
    pub(super) fn plan_report(
        &self,
        own: &[Endpoint],
        observed: Option<Endpoint>,
        held: Generation,
    ) -> Option<Transaction> {
        let mut record = self.record.clone();
        record.own_endpoints = own.to_vec();
        record.secret_generation = held;
        if record.observed_endpoint != observed {
            // Another address is another NAT's, and another port has another mapping.
            (record.observed_endpoint, record.mapping) = (observed, None);
        }
        self.unless_known(record)
    }

    /// Writes a record, unless that is what the store says already.
    pub(super) fn unless_known(&self, record: NodeRecord) -> Option<Transaction> {
        if record == self.record {
            return None;
        }
        Some(self.become_record(&record))
    }

    /// Says which WireGuard key it will change to, beside the present one. The caller has seen that
    /// nobody has that key. One that was said before and never used is free again.
    pub(super) fn plan_next_key(&self, next: PublicKey) -> Transaction {
        let record = NodeRecord { next_public_key: Some(next), ..self.record.clone() };
        let claimed = Transaction::default()
            .create(keys::wireguard_key(next), Claim::held(self.node))
            .and(self.become_record(&record));
        let before = self.record.next_public_key.map(keys::wireguard_key);
        before.into_iter().fold(claimed, Transaction::delete)
    }

    /// Changes its WireGuard key to the next one, which ends the wish for another. The old one rests,
    /// as those of deleted nodes do. `None` where there is no next one.
    pub(super) fn plan_promote(&self, now: SystemTime) -> Option<Transaction> {
        let public_key = self.record.next_public_key?;
        let record =
            NodeRecord { public_key, next_public_key: None, keyed_at: now, ..self.record.clone() };
        let old = keys::wireguard_key(self.record.public_key);
        Some(
            self.become_record(&record)
                .put(old, Claim::released(self.node, now))
                .delete(keys::rotation(&record.network, self.node)),
        )
    }

    /// Writes its identity, and its entry if that changes.
    fn become_record(&self, record: &NodeRecord) -> Transaction {
        let transaction = Transaction::default().replace(&self.identity, record.encode());
        let entry = record.entry(self.node);
        if entry == self.record.entry(self.node) {
            transaction
        } else {
            transaction.put(keys::peer(&record.network, self.node), entry)
        }
    }
}
