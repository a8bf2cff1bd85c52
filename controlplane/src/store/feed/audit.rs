//! Anti-entropy: every few minutes what the feed has seen is compared, key by key and revision by
//! revision, with what the store holds. A watch that lost an event, or told one that never was, is
//! found out here; heartbeats prove only that it is alive.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures::{TryStreamExt as _, future::BoxFuture};
use tokio::time::{Instant, sleep_until};
use wattle_model::Revision;

use crate::store::{Change, Key, Operation, Store, StoreError, keys};

/// Where the keys are that the view is made of.
fn places() -> [Key; 4] {
    [keys::networks(), keys::all_nodes(), keys::all_peers(), keys::all_policies()]
}

/// A key, in eight bytes: two keys of one number would hide each other's loss from one comparison,
/// once in 10^10 meshes of 10,000 nodes.
type Number = u64;

fn number(key: &Key) -> Option<Number> {
    static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let ours = places().iter().any(|place| key.as_str().starts_with(place.as_str()));
    ours.then(|| HASHER.hash_one(key))
}

/// What the feed has taken in: each key's last revision. Sixteen bytes a key.
#[derive(Debug, Default)]
pub(super) struct Seen(HashMap<Number, Revision>);

impl Seen {
    pub(super) fn listed(&mut self, key: &Key, modified: Revision) {
        if let Some(number) = number(key) {
            self.0.insert(number, modified);
        }
    }

    pub(super) fn changed(&mut self, change: &Change) {
        for operation in &change.operations {
            let Some(number) = number(operation.key()) else { continue };
            match operation {
                Operation::Put(..) => self.0.insert(number, change.revision),
                Operation::Delete(_) => self.0.remove(&number),
            };
        }
    }
}

/// The comparisons of one watch.
pub(super) struct Audit {
    store: Arc<dyn Store>,
    every: Duration,
    state: State,
    /// Changed since the comparison began: these can't be compared.
    touched: HashSet<Number>,
}

enum State {
    Waiting {
        until: Instant,
    },
    Listing(BoxFuture<'static, Result<Listed, StoreError>>),
    /// The watch isn't that far yet.
    Listed(Listed),
}

struct Listed {
    revision: Revision,
    keys: HashMap<Number, Revision>,
}

/// Keys that aren't as the store has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The store has them, and the feed hasn't.
    pub(super) missing: usize,
    /// The feed has them, and the store hasn't.
    pub(super) extra: usize,
    /// Both have them, at different revisions.
    pub(super) different: usize,
}

impl Audit {
    /// The first one comes at a moment of its own, so that replicas that began together don't ask
    /// together.
    pub(super) fn begin(store: Arc<dyn Store>, every: Duration) -> Self {
        let until = Instant::now() + every.mul_f64(rand::random_range(0.5..1.0));
        Self { store, every, state: State::Waiting { until }, touched: HashSet::new() }
    }

    /// Goes on with the comparison. May be dropped at any time and called again.
    pub(super) async fn go_on(&mut self) {
        match &mut self.state {
            State::Waiting { until } => {
                sleep_until(*until).await;
                self.touched.clear();
                self.state = State::Listing(Box::pin(list(self.store.clone())));
            }
            State::Listing(listing) => match listing.await {
                Ok(listed) => self.state = State::Listed(listed),
                Err(error) => {
                    tracing::debug!(%error, "nothing to compare with");
                    self.wait();
                }
            },
            State::Listed(_) => std::future::pending().await,
        }
    }

    /// A transaction was taken in.
    pub(super) fn changed(&mut self, change: &Change) {
        if !matches!(self.state, State::Waiting { .. }) {
            let keys = change.operations.iter().map(Operation::key);
            self.touched.extend(keys.filter_map(number));
        }
    }

    /// Compares, once the feed has come to where the store was listed.
    pub(super) fn compare(&mut self, seen: &Seen, head: Revision) -> Option<Wrong> {
        let State::Listed(listed) = &self.state else { return None };
        if head < listed.revision {
            return None;
        }
        let untouched = |number: &&Number| !self.touched.contains(number);
        let mut wrong = Wrong { missing: 0, extra: 0, different: 0 };
        for (number, modified) in &listed.keys {
            if untouched(&number) {
                match seen.0.get(number) {
                    None => wrong.missing += 1,
                    Some(known) => wrong.different += usize::from(known != modified),
                }
            }
        }
        let extra = seen.0.keys().filter(untouched);
        wrong.extra = extra.filter(|number| !listed.keys.contains_key(number)).count();
        self.wait();
        (wrong != Wrong { missing: 0, extra: 0, different: 0 }).then_some(wrong)
    }

    fn wait(&mut self) {
        self.touched.clear();
        let until = Instant::now() + self.every.mul_f64(rand::random_range(0.8..1.2));
        self.state = State::Waiting { until };
    }
}

/// Each place at a revision of its own; whatever changes meanwhile is touched.
async fn list(store: Arc<dyn Store>) -> Result<Listed, StoreError> {
    let mut listed = Listed { revision: Revision::ZERO, keys: HashMap::new() };
    for place in places() {
        let mut snapshot = store.snapshot(&place).await?;
        listed.revision = listed.revision.max(snapshot.revision);
        while let Some(page) = snapshot.pages.try_next().await? {
            let items = page.iter().filter_map(|item| Some((number(&item.key)?, item.modified)));
            listed.keys.extend(items);
        }
    }
    // On a store that others write to, the revision may be one that no watch tells of.
    if !listed.keys.is_empty() {
        listed.revision = store.beat().await?;
    }
    Ok(listed)
}
