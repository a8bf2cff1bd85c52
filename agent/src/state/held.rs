//! What the agent holds: the last set it committed, as the bytes it received. Pure; `committed`
//! keeps it on disk, `session` changes it, the plan is told of the difference.

use std::collections::BTreeMap;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use wattle_model::{Digest, Epoch, NodeId, Revision};

/// SHA-256 of a Config message's bytes as received: by it the control plane knows whether the
/// agent has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConfigHash(pub(crate) [u8; 32]);

impl ConfigHash {
    /// The hash of a Config message's bytes.
    pub(crate) fn of(config: &[u8]) -> Self {
        Self(Sha256::digest(config).into())
    }
}

/// A set, at one revision of one store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Held {
    epoch: Option<Epoch>,
    revision: Revision,
    digest: Digest,
    config_hash: Option<ConfigHash>,
    entries: BTreeMap<NodeId, Bytes>,
}

/// Everything between two commits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    /// The store's, as the stream's Welcome said.
    pub(crate) epoch: Epoch,
    /// The revision that the set has after it.
    pub(crate) revision: Revision,
    /// What the batch doesn't name is gone.
    pub(crate) full_set: bool,
    /// Entries by node; `None` for one that may no longer be seen.
    pub(crate) changes: BTreeMap<NodeId, Option<Bytes>>,
    /// Of the Config that came with it, if one did.
    pub(crate) config_hash: Option<ConfigHash>,
}

/// What a batch really changes: nothing that is held already is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Difference {
    /// New and changed entries.
    pub(crate) upserts: Vec<(NodeId, Bytes)>,
    /// Entries that are gone.
    pub(crate) removed: Vec<NodeId>,
}

impl Held {
    /// The store that the set comes from; `None` where nothing was ever committed.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// The set's revision.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// The digest of all entries.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// Of the last Config committed.
    pub(crate) fn config_hash(&self) -> Option<ConfigHash> {
        self.config_hash
    }

    /// All entries, ordered by node.
    pub(crate) fn entries(&self) -> impl ExactSizeIterator<Item = (NodeId, &Bytes)> {
        self.entries.iter().map(|(node, entry)| (*node, entry))
    }

    /// What `batch` would change. A full set is a difference too: nothing is flushed and filled.
    pub(crate) fn difference(&self, batch: &Batch) -> Difference {
        let mut difference = Difference::default();
        for (node, change) in &batch.changes {
            match (change, self.entries.get(node)) {
                (Some(entry), held) if held != Some(entry) => {
                    difference.upserts.push((*node, entry.clone()));
                }
                (None, Some(_)) => difference.removed.push(*node),
                _ => {}
            }
        }
        if batch.full_set {
            let unnamed = self.entries.keys().filter(|node| !batch.changes.contains_key(node));
            difference.removed.extend(unnamed);
        }
        difference
    }

    /// Moves on to a commit whose difference to this set is `difference`.
    pub(crate) fn advance(
        &mut self,
        epoch: Epoch,
        revision: Revision,
        config_hash: Option<ConfigHash>,
        difference: &Difference,
    ) {
        self.epoch = Some(epoch);
        self.revision = revision;
        self.config_hash = config_hash.or(self.config_hash);
        for node in &difference.removed {
            if let Some(old) = self.entries.remove(node) {
                self.digest -= Digest::of(*node, &old);
            }
        }
        for (node, entry) in &difference.upserts {
            self.digest += Digest::of(*node, entry);
            if let Some(old) = self.entries.insert(*node, entry.clone()) {
                self.digest -= Digest::of(*node, &old);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u8) -> NodeId {
        NodeId::new([n; 16])
    }

    fn batch(full_set: bool, changes: &[(u8, Option<&'static str>)]) -> Batch {
        let changes = changes.iter().map(|(n, entry)| (node(*n), entry.map(Bytes::from))).collect();
        Batch { full_set, changes, ..Default::default() }
    }

    fn after(batches: &[Batch]) -> (Held, Vec<Difference>) {
        let mut held = Held::default();
        let differences = batches.iter().map(|batch| {
            let difference = held.difference(batch);
            held.advance(batch.epoch, batch.revision, batch.config_hash, &difference);
            difference
        });
        let differences = differences.collect();
        (held, differences)
    }

    #[test]
    fn a_full_set_changes_only_what_differs() {
        let (held, differences) = after(&[
            batch(true, &[(1, Some("a")), (2, Some("b")), (3, Some("c"))]),
            batch(true, &[(2, Some("b")), (3, Some("C")), (4, Some("d"))]),
        ]);
        let expected = Difference {
            upserts: vec![(node(3), "C".into()), (node(4), "d".into())],
            removed: vec![node(1)],
        };
        assert_eq!(differences[1], expected);
        assert_eq!(held.entries().len(), 3);
    }

    #[test]
    fn the_digest_is_that_of_the_entries_however_they_came() {
        let (step_by_step, _) = after(&[
            batch(true, &[(1, Some("a")), (2, Some("b"))]),
            batch(false, &[(1, None), (2, Some("B")), (9, None)]),
            batch(false, &[(3, Some("c"))]),
        ]);
        let (at_once, _) = after(&[batch(true, &[(2, Some("B")), (3, Some("c"))])]);
        assert_eq!(step_by_step.digest(), at_once.digest());
        assert_ne!(step_by_step.digest(), Digest::EMPTY);
    }

    #[test]
    fn what_is_held_already_is_no_difference() {
        let again = batch(false, &[(1, Some("a")), (2, None)]);
        let (_, differences) = after(&[batch(true, &[(1, Some("a"))]), again]);
        assert_eq!(differences[1], Difference::default());
    }
}
