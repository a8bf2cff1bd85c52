//! Entries that this process has seen, so that each is hashed once. Equal bytes have equal digests:
//! an agent that is sent bytes somebody here has hashed needn't do so again, and two cores are
//! enough for the machines of a whole fleet.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use bytes::Bytes;
use wattle_model::{Digest, NodeId};

/// Nodes by the order in which they were first heard of, with the last entry of each.
#[derive(Default)]
pub(super) struct Roster {
    nodes: HashMap<NodeId, Known, BuildHasherDefault<IdHasher>>,
}

struct Known {
    column: u32,
    entry: Bytes,
    digest: Digest,
}

impl Roster {
    /// A node's column and the digest of its entry, which are these bytes.
    pub(super) fn entry(&mut self, node: NodeId, entry: &[u8]) -> (u32, Digest) {
        let column = u32::try_from(self.nodes.len()).expect("nodes are fewer than that");
        let known = self.nodes.entry(node).or_insert_with(|| Known {
            column,
            entry: Bytes::new(),
            digest: Digest::EMPTY,
        });
        if known.entry != entry {
            known.entry = Bytes::copy_from_slice(entry);
            known.digest = Digest::of(node, entry);
        }
        (known.column, known.digest)
    }

    /// A node's column, where an entry of it was seen.
    pub(super) fn column(&self, node: NodeId) -> Option<u32> {
        self.nodes.get(&node).map(|known| known.column)
    }
}

/// Node ids are random bytes already.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for (place, byte) in bytes.iter().take(8).enumerate() {
            self.0 ^= u64::from(*byte) << (8 * place);
        }
    }

    // The length that precedes an array says nothing.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_hashed_and_what_is_known_is_right() {
        let mut roster = Roster::default();
        let (one, two) = (NodeId::new([1; 16]), NodeId::new([2; 16]));
        assert_eq!(roster.column(one), None);
        for (node, bytes, column) in
            [(one, b"a", 0), (two, b"a", 1), (one, b"b", 0), (one, b"a", 0)]
        {
            for _ in 0..2 {
                assert_eq!(roster.entry(node, bytes), (column, Digest::of(node, bytes)));
            }
        }
        assert_eq!(roster.column(two), Some(1));
    }
}
