//! Goes over everything that grows old and forgets what the horizon has passed, a few records to a
//! transaction. Whatever changed meanwhile is left for the next time.

use std::time::SystemTime;

use futures::TryStreamExt as _;
use wattle_model::Revision;
use wattle_runtime::clock::unix_millis;

use super::{
    DAY, millis,
    rules::{Cutoff, rules},
};
use crate::store::{Outcome, Store, StoreError, Transaction};

/// Records of one transaction. A record may take three operations.
const BATCH: usize = 32;

/// Says how many records were forgotten or shortened.
pub(super) async fn sweep(
    store: &dyn Store,
    horizon: Revision,
    now: SystemTime,
) -> Result<usize, StoreError> {
    let cutoff = Cutoff { horizon, millis: unix_millis(now).saturating_sub(millis(DAY)) };
    let mut done = 0;
    for (prefix, rule) in rules() {
        let mut pages = store.snapshot(&prefix).await?.pages;
        while let Some(page) = pages.try_next().await? {
            let mut changes = Vec::new();
            for stored in page {
                match rule(&stored, cutoff) {
                    Ok(change) => changes.extend(change),
                    Err(error) => {
                        tracing::warn!(key = %stored.key, %error, "record can't be read");
                    }
                }
            }
            for batch in changes.chunks(BATCH) {
                done += commit(store, batch).await?;
            }
        }
    }
    Ok(done)
}

/// All of a batch at once; where one of its records has changed, one by one.
async fn commit(store: &dyn Store, batch: &[Transaction]) -> Result<usize, StoreError> {
    let all = batch.iter().cloned().fold(Transaction::default(), Transaction::and);
    if let Outcome::Committed(_) = store.commit(all).await? {
        return Ok(batch.len());
    }
    let mut done = 0;
    for single in batch {
        let outcome = store.commit(single.clone()).await?;
        done += usize::from(outcome != Outcome::Conflict);
    }
    Ok(done)
}
