//! A transaction in etcd's words.
//!
//! One that wasn't answered may have been done, and may still be. It isn't tried again here: what
//! is done twice isn't what was asked for. The answer is `Unavailable`, which says that nothing is
//! known; whoever asks again compares what is there first, by the request's id, the token and key
//! of an enrolment, or the revision that it read.

use etcd_client::{Compare as Cmp, CompareOp, Txn, TxnOp};

use super::{
    Client,
    keyspace::{Keyspace, number},
};
use crate::store::{Compare, Operation, Outcome, StoreError, Transaction, check_limits};

impl Client {
    pub(super) async fn commit(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        check_limits(&transaction)?;
        let mark = self.identity.mark();
        let txn = txn(&self.keyspace, transaction);
        let response = self.endpoints.once(|mut client| {
            let txn = txn.clone();
            async move { client.txn(txn).await }
        });
        let response = response.await?;
        let revision = self.identity.linear(response.header(), mark)?;
        if !response.succeeded() {
            return Ok(Outcome::Conflict);
        }
        self.moments.note(revision);
        Ok(Outcome::Committed(revision))
    }
}

fn txn(space: &Keyspace, transaction: Transaction) -> Txn {
    let compare = |compare: &Compare| match compare {
        Compare::Modified(key, revision) => {
            Cmp::mod_revision(space.outer(key), CompareOp::Equal, number(*revision))
        }
        Compare::Absent(key) => Cmp::create_revision(space.outer(key), CompareOp::Equal, 0),
    };
    let operation = |operation: &Operation| match operation {
        Operation::Put(key, value) => TxnOp::put(space.outer(key), value.as_ref(), None),
        Operation::Delete(key) => TxnOp::delete(space.outer(key), None),
    };
    Txn::new()
        .when(transaction.compares.iter().map(compare).collect::<Vec<_>>())
        .and_then(transaction.operations.iter().map(operation).collect::<Vec<_>>())
}
