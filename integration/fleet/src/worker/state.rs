//! What one agent holds: for each node the digest of its entry, and their sum. Staged until a
//! commit, then applied whole.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use wattle_model::{Digest, NodeId};
use wattle_proto::{entry, sync::Frame};

use super::roster::Roster;

/// An agent's committed set. A node's place in it is its column in the [`Roster`].
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    /// Empty digest: there is no such entry. (No entry has that digest but with the probability of
    /// a guessed key.)
    held: Vec<Digest>,
    sum: Digest,
    entries: usize,
    /// The store's, as the last Welcome said; empty before the first.
    pub(super) epoch: Bytes,
    pub(super) revision: u64,
    pub(super) config_hash: Option<[u8; 32]>,
}

/// What has come since the last commit.
#[derive(Debug, Default)]
pub(super) struct Stage {
    /// By column; an empty digest for a removal.
    changes: Vec<(u32, Digest)>,
    pub(super) config_hash: Option<[u8; 32]>,
}

impl Stage {
    /// Adds a frame.
    pub(super) fn add(&mut self, frame: &Frame, roster: &mut Roster) -> Result<()> {
        for bytes in &frame.entries {
            self.changes.push(roster.entry(node_of(bytes)?, bytes));
        }
        for id in &frame.removed {
            let node = NodeId::try_from(id.as_ref()).context("frame.removed")?;
            // A node that nobody here has heard of is held by nobody here.
            self.changes.extend(roster.column(node).map(|column| (column, Digest::EMPTY)));
        }
        Ok(())
    }

    /// Whether a batch has begun.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.config_hash.is_none()
    }
}

impl State {
    /// Digest of everything held.
    pub(super) const fn digest(&self) -> Digest {
        self.sum
    }

    /// How many entries are held.
    pub(super) const fn entries(&self) -> usize {
        self.entries
    }

    /// Applies a batch; how many changes it had.
    pub(super) fn commit(&mut self, stage: &mut Stage, revision: u64, full_set: bool) -> usize {
        if full_set {
            (self.sum, self.entries) = (Digest::EMPTY, 0);
            self.held.fill(Digest::EMPTY);
        }
        // Not kept for the next batch: most are of one entry, and full sets are large.
        let changes = std::mem::take(&mut stage.changes);
        for (column, digest) in &changes {
            self.set(*column as usize, *digest);
        }
        self.config_hash = stage.config_hash.take().or(self.config_hash);
        self.revision = revision;
        changes.len()
    }

    fn set(&mut self, column: usize, digest: Digest) {
        if column >= self.held.len() {
            // Doubling would waste gigabytes over a fleet.
            if column >= self.held.capacity() {
                self.held.reserve_exact(column + column / 16 + 16 - self.held.len());
            }
            self.held.resize(column + 1, Digest::EMPTY);
        }
        let before = std::mem::replace(&mut self.held[column], digest);
        self.sum -= before;
        self.sum += digest;
        self.entries -= usize::from(before != Digest::EMPTY);
        self.entries += usize::from(digest != Digest::EMPTY);
    }
}

/// Whose entry it is. Every encoder writes the id first, and so it is looked for there.
fn node_of(entry: &Bytes) -> Result<NodeId> {
    const TAG: [u8; 2] = [0x0a, 16];
    match entry.strip_prefix(&TAG).and_then(|rest| rest.first_chunk::<16>()) {
        Some(id) => Ok(NodeId::new(*id)),
        None => Ok(entry::node_of(entry)?),
    }
}

#[cfg(test)]
mod tests {
    use wattle_model::{Generation, PeerSpec, PublicKey};

    use super::*;

    fn peer(node: u8, key: u8) -> Bytes {
        entry::encode(&PeerSpec {
            node: NodeId::new([node; 16]),
            name: "a".parse().unwrap(),
            public_key: PublicKey::new([key; 32]).unwrap(),
            next_public_key: None,
            ipv4: Some([10, 0, 0, node].into()),
            ipv6: None,
            endpoints: Vec::new(),
            secret_generation: Generation::NONE,
        })
    }

    fn digest(of: &[(u8, u8)]) -> Digest {
        let mut sum = Digest::EMPTY;
        for (node, key) in of {
            sum += Digest::of(NodeId::new([*node; 16]), &peer(*node, *key));
        }
        sum
    }

    #[test]
    fn holds_and_digests_what_it_was_sent() {
        let (mut roster, mut stage, mut state) =
            (Roster::default(), Stage::default(), State::default());
        let mut batch = |entries: &[(u8, u8)], removed: &[u8], full_set| {
            let frame = Frame {
                entries: entries.iter().map(|(node, key)| peer(*node, *key)).collect(),
                removed: removed.iter().map(|n| Bytes::from(vec![*n; 16])).collect(),
                commit: None,
            };
            stage.add(&frame, &mut roster).unwrap();
            state.commit(&mut stage, 1, full_set);
            (state.digest(), state.entries())
        };
        assert_eq!(
            batch(&[(1, 1), (2, 1), (3, 1)], &[], true),
            (digest(&[(1, 1), (2, 1), (3, 1)]), 3)
        );
        assert_eq!(batch(&[(2, 2)], &[3, 9], false), (digest(&[(1, 1), (2, 2)]), 2));
        assert_eq!(batch(&[(2, 2), (2, 3)], &[], false), (digest(&[(1, 1), (2, 3)]), 2));
        assert_eq!(batch(&[(4, 1)], &[], true), (digest(&[(4, 1)]), 1));
        assert_eq!(batch(&[], &[4], false), (Digest::EMPTY, 0));
    }

    #[test]
    fn an_entry_says_whose_it_is_wherever_it_does() {
        let entry = peer(7, 1);
        assert_eq!(node_of(&entry).unwrap(), NodeId::new([7; 16]));
        // The same fields in another order, as another version might write them.
        let moved: Bytes = [&entry[18..], &entry[..18]].concat().into();
        assert_eq!(node_of(&moved).unwrap(), NodeId::new([7; 16]));
        node_of(&Bytes::from_static(b"\x0a\x02ab")).unwrap_err();
    }
}
