//! Operators as the watch last told of them: for when the store itself can't be asked. A replica that
//! is cut off from it still says how it is.

use std::collections::HashMap;

use bytes::Bytes;
use parking_lot::RwLock;
use wattle_model::OperatorId;

use crate::store::{Change, Key, Operation, keys};

/// Read by those who check callers, written by the feed alone.
#[derive(Debug, Default)]
pub(crate) struct Operators(RwLock<Records>);

/// `store.Operator` of each.
#[derive(Debug, Default)]
pub(super) struct Records(HashMap<OperatorId, Bytes>);

impl Operators {
    /// An operator's record.
    pub(crate) fn get(&self, operator: OperatorId) -> Option<Bytes> {
        self.0.read().0.get(&operator).cloned()
    }

    pub(super) fn replace(&self, records: Records) {
        *self.0.write() = records;
    }

    pub(super) fn changed(&self, change: &Change) {
        for operation in change.operations.iter().filter(|o| operator(o.key()).is_some()) {
            self.0.write().take(operation);
        }
    }
}

impl Records {
    /// Takes what is an operator's.
    pub(super) fn take(&mut self, operation: &Operation) {
        let Some(id) = operator(operation.key()) else { return };
        match operation {
            Operation::Put(_, record) => self.0.insert(id, record.clone()),
            Operation::Delete(_) => self.0.remove(&id),
        };
    }
}

fn operator(key: &Key) -> Option<OperatorId> {
    key.as_str().strip_prefix(keys::operators().as_str())?.parse().ok()
}
