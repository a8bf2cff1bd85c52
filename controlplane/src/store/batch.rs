//! Many small transactions as few larger ones: whoever fills or sweeps a store does nothing that must
//! be done alone.

use super::{MAX_BYTES, MAX_OPERATIONS, Transaction};

/// Far enough below what one transaction may have: whoever commits a batch may add a comparison.
const OPERATIONS: usize = MAX_OPERATIONS - 28;
const BYTES: usize = MAX_BYTES / 2;

/// Parts that are done together. A part that is larger than a batch is one of its own.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    parts: Vec<Transaction>,
    operations: usize,
    bytes: usize,
}

impl Batch {
    /// Adds a part. Returns what was gathered before where it doesn't fit beside that.
    #[must_use = "what it returns is to be committed"]
    pub(crate) fn add(&mut self, part: Transaction) -> Option<Self> {
        let (operations, bytes) = (part.operations.len().max(part.compares.len()), part.bytes());
        let fits = self.operations + operations <= OPERATIONS && self.bytes + bytes <= BYTES;
        let full = match fits || self.parts.is_empty() {
            true => None,
            false => Some(std::mem::take(self)),
        };
        self.parts.push(part);
        self.operations += operations;
        self.bytes += bytes;
        full
    }

    /// Whether there is nothing in it.
    pub(crate) const fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// One by one.
    pub(crate) fn parts(&self) -> &[Transaction] {
        &self.parts
    }

    /// All at once.
    pub(crate) fn all(&self) -> Transaction {
        self.parts.iter().cloned().fold(Transaction::default(), Transaction::and)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Key, check_limits};

    fn put(n: usize, bytes: usize) -> Transaction {
        Transaction::default().create(Key::new(format!("v1/{n}")), vec![0; bytes].into())
    }

    /// The sizes of the batches that parts of these bytes become.
    fn batches(sizes: &[usize]) -> Vec<usize> {
        let (mut batch, mut done) = (Batch::default(), Vec::new());
        for (n, bytes) in sizes.iter().enumerate() {
            done.extend(batch.add(put(n, *bytes)));
        }
        done.push(batch);
        done.iter().for_each(|batch| check_limits(&batch.all()).unwrap());
        done.iter().map(|batch| batch.parts().len()).collect()
    }

    #[test]
    fn batches_are_bounded_by_operations_and_by_bytes() {
        assert_eq!(batches(&[1; 250]), [100, 100, 50]);
        assert_eq!(batches(&[200 << 10; 5]), [2, 2, 1]);
        assert_eq!(batches(&[500 << 10, 700 << 10, 1]), [1, 1, 1], "a large one stays alone");
        assert_eq!(batches(&[MAX_BYTES - 100]), [1]);
        let many = (0..60).fold(Transaction::default(), |all, n| all.and(put(n, 1)));
        let mut batch = Batch::default();
        assert!(batch.is_empty() && batch.add(many).is_none());
        let full = batch.add(put(100, 1)).map(|full| full.all().operations.len());
        assert_eq!(full, None);
        let more = (200..260).fold(Transaction::default(), |all, n| all.and(put(n, 1)));
        assert_eq!(batch.add(more).map(|full| full.all().operations.len()), Some(61));
    }
}
