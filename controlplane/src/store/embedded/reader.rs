//! What is read from the file: keys, listings, and the log. All of it blocks; the callers run it
//! on threads made for that.

use std::ops::Bound;

use bytes::Bytes;
use redb::ReadTransaction;
use wattle_model::Revision;

use super::file::{COMPACTED, DATA, HEAD, LOG, META};
use crate::store::{Change, Key, Operation, Page, Stored};

/// Changes read from the log at once: at most so many, and no more after so many bytes.
const LOG_CHANGES: usize = 256;
const LOG_BYTES: usize = 1 << 20;

/// What the log says after a revision.
pub(super) enum Logged {
    /// Changes under the prefix, and the revision that they reach up to.
    Changes(Vec<Change>, Revision),
    /// The log begins at this revision only.
    Compacted(Revision),
}

/// The revision that the transaction sees.
pub(super) fn head(transaction: &ReadTransaction) -> Result<Revision, redb::Error> {
    number(transaction, HEAD).map(Revision)
}

/// One key.
pub(super) fn get(transaction: &ReadTransaction, key: &Key) -> Result<Option<Stored>, redb::Error> {
    let found = transaction.open_table(DATA)?.get(key.as_str())?;
    Ok(found.map(|found| stored(key.clone(), found.value())))
}

/// Up to `limit` keys under `prefix` and after `after`.
pub(super) fn list(
    transaction: &ReadTransaction,
    prefix: &Key,
    after: Option<&Key>,
    limit: usize,
) -> Result<Page, redb::Error> {
    let prefix = prefix.as_str();
    let start = match after.map(Key::as_str) {
        Some(after) if after >= prefix => Bound::Excluded(after),
        _ => Bound::Included(prefix),
    };
    let table = transaction.open_table(DATA)?;
    let mut items = Vec::new();
    let mut more = false;
    for item in table.range::<&str>((start, Bound::Unbounded))? {
        let (key, value) = item?;
        if !key.value().starts_with(prefix) {
            break;
        }
        if items.len() == limit {
            more = true;
            break;
        }
        items.push(stored(Key::new(key.value()), value.value()));
    }
    Ok(Page { items, revision: head(transaction)?, more })
}

/// What happened under `prefix` after `after`; whole transactions, as many as fit one reading.
pub(super) fn log(
    transaction: &ReadTransaction,
    prefix: &Key,
    after: Revision,
) -> Result<Logged, redb::Error> {
    let compacted = number(transaction, COMPACTED)?;
    if after.0 < compacted {
        return Ok(Logged::Compacted(Revision(compacted).next()));
    }
    let mut changes: Vec<Change> = Vec::new();
    let mut bytes = 0;
    let mut reached = after;
    for item in transaction.open_table(LOG)?.range((after.0 + 1, 0)..)? {
        let (place, entry) = item?;
        let revision = Revision(place.value().0);
        if revision > reached && (changes.len() >= LOG_CHANGES || bytes >= LOG_BYTES) {
            return Ok(Logged::Changes(changes, reached));
        }
        reached = revision;
        let (key, value) = entry.value();
        if !key.starts_with(prefix.as_str()) {
            continue;
        }
        bytes += key.len() + value.map_or(0, <[u8]>::len);
        let operation = match value {
            Some(value) => Operation::Put(Key::new(key), Bytes::copy_from_slice(value)),
            None => Operation::Delete(Key::new(key)),
        };
        match changes.last_mut() {
            Some(change) if change.revision == revision => change.operations.push(operation),
            _ => changes.push(Change { revision, operations: vec![operation] }),
        }
    }
    Ok(Logged::Changes(changes, reached))
}

fn number(transaction: &ReadTransaction, name: &str) -> Result<u64, redb::Error> {
    Ok(transaction.open_table(META)?.get(name)?.map_or(0, |number| number.value()))
}

fn stored(key: Key, (modified, value): (u64, &[u8])) -> Stored {
    Stored { key, value: Bytes::copy_from_slice(value), modified: Revision(modified) }
}
