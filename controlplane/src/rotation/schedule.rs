//! Keys that have become too old, by what their networks say.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use tokio::time::sleep;
use wattle_model::{History, NetworkName, NodeId};
use wattle_proto::record::{NetworkBody, decode_history};
use wattle_runtime::clock;

use super::Rotations;
use crate::{
    nodes::NodeRecord,
    store::{Key, Store, StoreError, Stored, keys},
};

/// How often keys' ages are looked at. Nothing where no network says how old they may become.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A key is changed at this part of its age at the earliest, at a moment of the node's own, so that
/// those who joined together don't change together.
const EARLIEST: f64 = 0.9;
/// Records read at once.
const PAGE: usize = 500;

impl Rotations {
    pub(super) async fn keep_schedule(self) {
        let keep = async {
            loop {
                sleep(LOOK_EVERY.mul_f64(0.5 + rand::random::<f64>())).await;
                if let Err(error) = self.look_at_ages().await {
                    tracing::debug!(%error, "the ages of keys aren't known now");
                }
            }
        };
        self.shutdown.token().run_until_cancelled(keep).await;
    }

    /// Wishes another key for every node that is connected here and whose key is too old.
    async fn look_at_ages(&self) -> Result<(), StoreError> {
        let store = self.replicas.own().store.clone();
        for Old { node, keyed_at } in old_keys(&*store, clock::now()).await? {
            if self.can_change(node, false)
                && let Err(error) = self.nodes.ask_rotation_of(node, keyed_at).await
            {
                tracing::debug!(%node, %error, "not noted that its key is old");
            }
        }
        Ok(())
    }
}

/// A node whose key has become too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Old {
    /// Which.
    pub node: NodeId,
    /// Since when it has that key.
    pub keyed_at: SystemTime,
}

/// All nodes whose keys are too old, by what their networks say.
pub async fn old_keys(store: &dyn Store, now: SystemTime) -> Result<Vec<Old>, StoreError> {
    let limits: BTreeMap<_, _> =
        every(store, &keys::networks(), limit).await?.into_iter().collect();
    if limits.is_empty() {
        return Ok(Vec::new());
    }
    every(store, &keys::identities(), |stored| due(stored, &limits, now)).await
}

/// What `look` finds in all records under a prefix.
async fn every<T>(
    store: &dyn Store,
    prefix: &Key,
    look: impl Fn(&Stored) -> Option<T>,
) -> Result<Vec<T>, StoreError> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.list(prefix, after.as_ref(), PAGE).await?;
        found.extend(page.items.iter().filter_map(&look));
        after = page.items.last().map(|stored| stored.key.clone());
        if !page.more || after.is_none() {
            return Ok(found);
        }
    }
}

/// How old keys of a network may become, where it says so. What can't be read says nothing; whoever
/// needs it says that it can't be read.
fn limit(stored: &Stored) -> Option<(NetworkName, Duration)> {
    let history: History<NetworkBody> = decode_history(&stored.value, stored.modified).ok()?;
    let seconds = history.present().body.as_ref()?.key_rotation_seconds;
    let name = stored.key.as_str().rsplit('/').next()?.parse().ok()?;
    (seconds > 0).then(|| (name, Duration::from_secs(seconds)))
}

/// The node of an identity whose key is too old.
fn due(stored: &Stored, limits: &BTreeMap<NetworkName, Duration>, now: SystemTime) -> Option<Old> {
    let node: NodeId = stored.key.as_str().rsplit('/').next()?.parse().ok()?;
    let record = NodeRecord::decode(&stored.value).ok().filter(|r| r.deleted_at.is_none())?;
    let limit = *limits.get(&record.network)?;
    let age = now.duration_since(record.keyed_at).unwrap_or_default();
    (age >= limit.mul_f64(part(node))).then_some(Old { node, keyed_at: record.keyed_at })
}

/// A node's own part of the age, from [`EARLIEST`] to all of it: its id is random.
fn part(node: NodeId) -> f64 {
    let [a, b, ..] = *node.as_bytes();
    EARLIEST + (1.0 - EARLIEST) * f64::from(u16::from_be_bytes([a, b])) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those who joined together are spread over all of the last tenth.
    #[test]
    fn moments_are_spread_evenly_over_the_last_tenth() {
        const NODES: usize = 10_000;
        let mut tenths = [0_usize; 10];
        for _ in 0..NODES {
            let part = part(NodeId::new(rand::random()));
            assert!((EARLIEST..=1.0).contains(&part), "{part}");
            let at = (part - EARLIEST) / (1.0 - EARLIEST) * 10.0;
            tenths[(at as usize).min(9)] += 1;
        }
        // Eight deviations are 240.
        assert!(tenths.iter().all(|count| count.abs_diff(NODES / 10) < 240), "{tenths:?}");
    }
}
