//! Goes over everything that grows old and forgets what the horizon has passed, a few records to a
//! transaction. Whatever changed meanwhile is left for the next time.

use futures::TryStreamExt as _;

use super::rules::{Cutoff, rules};
use crate::store::{Batch, Operation, Outcome, Store, StoreError};

/// Says how many records were forgotten or shortened.
pub(super) async fn sweep(store: &dyn Store, cutoff: Cutoff) -> Result<usize, StoreError> {
    let mut done = 0;
    for (prefix, rule) in rules() {
        let (mut pages, mut batch) = (store.snapshot(&prefix).await?.pages, Batch::default());
        while let Some(page) = pages.try_next().await? {
            for stored in page {
                match rule(&stored, cutoff) {
                    Ok(None) => {}
                    Ok(Some(change)) => {
                        if let Some(full) = batch.add(change) {
                            done += commit(store, full).await?;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(key = %stored.key, %error, "record can't be read");
                    }
                }
            }
        }
        done += commit(store, batch).await?;
    }
    Ok(done)
}

/// All of a batch at once; where one of its records has changed, one by one.
async fn commit(store: &dyn Store, batch: Batch) -> Result<usize, StoreError> {
    if batch.is_empty() {
        return Ok(0);
    }
    if batch.parts().len() > 1
        && let Outcome::Committed(_) = store.commit(batch.all()).await?
    {
        return Ok(batch.parts().len());
    }
    let mut done = 0;
    for single in batch.parts() {
        match store.commit(single.clone()).await {
            Ok(outcome) => done += usize::from(outcome != Outcome::Conflict),
            // One record that can't be written holds up no other.
            Err(error @ StoreError::TooLarge { .. }) => {
                let key = single.operations.first().map(Operation::key);
                tracing::warn!(?key, %error, "an old record stays as it is");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
