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
        let networks = every(&*store, &keys::networks(), limit).await?;
        let limits: BTreeMap<_, _> = networks.into_iter().collect();
        if limits.is_empty() {
            return Ok(());
        }
        let now = clock::now();
        for node in every(&*store, &keys::identities(), |stored| due(stored, &limits, now)).await? {
            if self.can_change(node, false)
                && let Err(error) = self.nodes.ask_rotation(node, false).await
            {
                tracing::debug!(%node, %error, "not noted that its key is old");
            }
        }
        Ok(())
    }
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
fn due(
    stored: &Stored,
    limits: &BTreeMap<NetworkName, Duration>,
    now: SystemTime,
) -> Option<NodeId> {
    let node: NodeId = stored.key.as_str().rsplit('/').next()?.parse().ok()?;
    let record = NodeRecord::decode(&stored.value).ok().filter(|r| r.deleted_at.is_none())?;
    let limit = *limits.get(&record.network)?;
    let age = now.duration_since(record.keyed_at).unwrap_or_default();
    (age >= limit.mul_f64(part(node))).then_some(node)
}

/// A node's own part of the age, from [`EARLIEST`] to all of it: its id is random.
fn part(node: NodeId) -> f64 {
    let [a, b, ..] = *node.as_bytes();
    EARLIEST + (1.0 - EARLIEST) * f64::from(u16::from_be_bytes([a, b])) / f64::from(u16::MAX)
}
