//! Follows the store's roots and the key's file while the replica serves, and says in the store when
//! a newer root begins to sign.

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use wattle_certs::Ca;
use wattle_proto::store as proto;

use super::{Authority, CaFiles, Roots, Trust};
use crate::store::{Outcome, Store, StoreError, Stored, Transaction, keys};

/// How often both are looked at: a rotation's steps are minutes apart, and whoever makes them waits
/// to see each one done.
const EVERY: Duration = Duration::from_secs(2);

/// Follows until told to end.
pub async fn keep(
    authority: Authority,
    files: CaFiles,
    store: Arc<dyn Store>,
    end: CancellationToken,
) {
    let mut timer = interval(EVERY);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = String::new();
    while end.run_until_cancelled(timer.tick()).await.is_some() {
        let problem = match look(&authority, &files, store.as_ref()).await {
            Ok(problem) => problem.unwrap_or_default(),
            // The feed says that the store can't be seen.
            Err(error) => {
                tracing::debug!(%error, "the store's roots can't be read");
                continue;
            }
        };
        // Once for each problem, not every two seconds.
        if problem != said {
            said = problem;
            if !said.is_empty() {
                tracing::error!(
                    problem = said,
                    "the CA is not what it should be: this replica goes on with what it had"
                );
            }
        }
    }
}

/// Looks once. Returns what is wrong with the files or the store's roots: the replica goes on with
/// what it has.
pub async fn look(
    authority: &Authority,
    files: &CaFiles,
    store: &dyn Store,
) -> Result<Option<String>, StoreError> {
    let Some(stored) = store.get(&keys::cluster()).await? else { return Ok(None) };
    let record = proto::Cluster::decode(stored.value.clone()).map_err(|e| e.to_string());
    let read = record.and_then(|record| {
        let roots = Roots::read(&record).map_err(|error| error.to_string())?;
        Ok((record, roots))
    });
    let (record, roots) = match read {
        Ok(read) => read,
        Err(what) => return Ok(Some(format!("{}: {what}", stored.key))),
    };
    let files = files.clone();
    let trusted = roots.trusted().to_vec();
    let read = tokio::task::spawn_blocking(move || files.read_key_of(&trusted)).await;
    let read = read.map_err(|error| StoreError::Unavailable(error.to_string()))?;
    let before = authority.now();
    let (ca, mut problem) = match read {
        Ok(ca) if ca.pin() == before.ca.pin() => (before.ca.clone(), None),
        Ok(ca) => (Arc::new(ca), None),
        Err(error) => (before.ca.clone(), Some(error.to_string())),
    };
    // Nothing is signed with a newer root before the store says so: nobody gives it up then.
    if let Some(roots) = announce(store, &stored, record, roots, &ca).await? {
        problem = take(authority, &before, Trust::new(ca, roots)).or(problem);
    }
    Ok(problem)
}

/// Returns why it can't be taken.
fn take(authority: &Authority, before: &Trust, trust: Trust) -> Option<String> {
    let (pin, trusted) = (trust.ca.pin(), trust.roots.trusted().len());
    match authority.replace(trust) {
        Ok(false) => {}
        Ok(true) if pin != before.ca.pin() => {
            tracing::info!(root = %pin, "another root signs from now on");
        }
        Ok(true) => tracing::info!(trusted, "the roots have changed"),
        Err(error) => return Some(format!("the store's roots can't be used: {error}")),
    }
    None
}

/// The first replica that is to sign with a newer root says so: from then on agents want certificates
/// of that one. Returns the roots as they are then; `None` where another replica was faster, or another
/// step: the next look sees it.
async fn announce(
    store: &dyn Store,
    read: &Stored,
    mut record: proto::Cluster,
    roots: Roots,
    ca: &Ca,
) -> Result<Option<Roots>, StoreError> {
    let Some(newer) = roots.signed_by(ca.pin()) else { return Ok(Some(roots)) };
    newer.write(&mut record);
    let put = Transaction::default().replace(read, record.encode_to_vec().into());
    let outcome = store.commit(put).await?;
    Ok(matches!(outcome, Outcome::Committed(_)).then_some(newer))
}
