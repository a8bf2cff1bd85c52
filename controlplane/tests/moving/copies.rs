//! From store to store.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use wattle_controlplane::{
    authority::CaFiles,
    cluster, horizon,
    moving::{
        MoveError, Moved, Record,
        source::Source,
        target::{self, Occupied, Target},
    },
    store::{
        Key, Operation, Outcome, Page, Snapshot, Store, StoreError, Stored, Transaction, Watch,
        WatchError,
        etcd::{Etcd, EtcdConfig},
        keys,
    },
};
use wattle_etcd::{EtcdCluster, Version};
use wattle_model::{At, History, ReplicaId, Revision};
use wattle_proto::record::{NodeBody, decode_history};
use wattle_runtime::shutdown::Shutdown;

use crate::{Place, network};

async fn copy(from: &dyn Store, to: &dyn Store) -> Result<Moved, MoveError> {
    copy_onto(Occupied::Refuse, from, to).await
}

async fn copy_onto(
    occupied: Occupied,
    from: &dyn Store,
    to: &dyn Store,
) -> Result<Moved, MoveError> {
    target::copy(from, to, occupied, "a test", SystemTime::now(), &mut |_| {}).await
}

/// Everything but what belongs to one store: bit for bit, but for histories.
fn by_key(all: Vec<Stored>) -> BTreeMap<String, Stored> {
    all.into_iter().map(|stored| (stored.key.to_string(), stored)).collect()
}

#[tokio::test]
async fn what_is_copied_is_the_same_control_plane_at_other_revisions() {
    let ((from, made), to) = (Place::lived().await, Place::empty());
    let moved = copy(&*from.store, &*to.store).await.unwrap();
    assert_eq!(moved.source, moved.target);
    assert_eq!(moved.source, target::tally(&*from.store).await.unwrap());

    let (before, after) = (by_key(from.all().await), by_key(to.all().await));
    let mut same = 0;
    for (key, stored) in &before {
        let is = |kind: &str| key.starts_with(&format!("v1/{kind}/"));
        if is("meta") || is("node") || is("network") {
            continue;
        }
        assert_eq!(after.get(key).map(|after| &after.value), Some(&stored.value), "{key}");
        same += 1;
    }
    assert!(same > 1000, "entries, identities, names, addresses, keys, tokens: {same}");
    assert_eq!(after["v1/meta/cluster"].value, before["v1/meta/cluster"].value);
    assert_ne!(after["v1/meta/epoch"].value, before["v1/meta/epoch"].value);
    assert!(!after.contains_key("v1/meta/moving"));

    for (n, node) in made.iter().enumerate() {
        let stored = to.store.get(&keys::node(&network(), *node)).await.unwrap();
        let Some(stored) = stored else {
            assert!((10..30).contains(&n), "only the deleted are gone");
            continue;
        };
        let history: History<NodeBody> = decode_history(&stored.value, stored.modified).unwrap();
        assert!(history.past().is_empty() && history.present().from == stored.modified);
        let labels = &history.present().body.as_ref().unwrap().labels;
        assert_eq!(labels.iter().count(), usize::from(n < 10), "its present ones");
        assert_eq!(history.at(Revision(1)), At::Known(None));
    }
    let horizon = after["v1/meta/horizon"].clone();
    let record: wattle_proto::store::Horizon = prost::Message::decode(horizon.value).unwrap();
    assert_eq!(
        record.revision + 1,
        to.store.head().await.unwrap().0,
        "the head before its own write"
    );

    // It starts with the same CA, and a first sweep forgets nobody who was deleted just now.
    let files = CaFiles::of(from.folder.path());
    let cluster = cluster::open(&*to.store, &files, SystemTime::now()).await.unwrap();
    assert_eq!(cluster.epoch, moved.epoch);
    horizon::advance(&*to.store, SystemTime::now()).await.unwrap();
    let deleted = to.store.get(&keys::identity(made[15])).await.unwrap();
    assert!(deleted.is_some(), "its agent is still to be told");

    // And back: the way leads in both directions.
    let back = Place::empty();
    let moved_back = copy(&*to.store, &*back.store).await.unwrap();
    assert_eq!(moved_back.target.digest, moved.target.digest);
    assert_ne!(moved_back.epoch, moved.epoch);
}

#[tokio::test]
async fn a_target_in_use_is_refused_and_named() {
    let (from, _) = Place::lived().await;
    let (used, foreign) = (Place::empty(), Place::empty());
    let files = CaFiles::of(used.folder.path());
    let cluster = cluster::open(&*used.store, &files, SystemTime::now()).await.unwrap();
    let before = used.all().await;
    let error = copy(&*from.store, &*used.store).await.unwrap_err().to_string();
    assert!(error.contains(cluster.trust_domain.as_str()), "{error}");
    assert_eq!(used.all().await, before);
    foreign.put(Key::new("v1/what/is/this"), "?").await;
    let error = copy(&*from.store, &*foreign.store).await.unwrap_err().to_string();
    assert!(error.contains("v1/what/is/this"), "{error}");
    let error = copy(&*Place::empty().store, &*Place::empty().store).await.unwrap_err();
    assert!(matches!(error, MoveError::Nothing(_)), "{error}");

    // Told to, it takes the place of what is there, but not of what is used.
    let replica = keys::replica(ReplicaId::new([1; 16]));
    used.put(replica.clone(), "?").await;
    let error = copy_onto(Occupied::Replace, &*from.store, &*used.store).await.unwrap_err();
    assert!(matches!(error, MoveError::InUse(_)), "{error}");
    let gone = Transaction::default().delete(replica);
    let _ = used.store.commit(gone).await.unwrap();
    assert_eq!(used.all().await, before);
    for used in [&used, &foreign] {
        // Cut on its way, what was there is nobody's, and what is to come isn't either.
        for commits in [1, 2, 4] {
            let cut = Faulty::after(&used.store, commits);
            copy_onto(Occupied::Replace, &*from.store, &cut).await.unwrap_err();
            let files = CaFiles::of(from.folder.path());
            let error = cluster::open(&*used.store, &files, SystemTime::now()).await.unwrap_err();
            assert!(error.to_string().contains("half-way into this store"), "{error}");
        }
        let moved = copy_onto(Occupied::Replace, &*from.store, &*used.store).await.unwrap();
        assert_eq!(moved.source, moved.target);
    }
}

/// A record may be as large as a transaction, whatever comes before it.
#[tokio::test]
async fn large_records_are_copied() {
    let (from, _) = Place::lived().await;
    for (n, kilobytes) in [400, 700, 100, 1000, 1, 500].into_iter().enumerate() {
        let key = Key::new(format!("v1/of-a-later-version/{n}"));
        from.put(key, vec![7; kilobytes << 10]).await;
    }
    let to = Place::empty();
    let moved = copy(&*from.store, &*to.store).await.unwrap();
    assert_eq!(moved.source, moved.target);
}

/// Cut after every so many transactions: half of a copy is nobody's control plane and nobody's source,
/// and the same command makes it whole.
#[tokio::test]
async fn a_copy_cut_anywhere_is_begun_again() {
    let (from, _) = Place::lived().await;
    let to = Place::empty();
    for commits in [1, 2, 3, 7, 9] {
        let cut = Faulty::after(&to.store, commits);
        let error = copy(&*from.store, &cut).await.unwrap_err();
        assert!(matches!(error, MoveError::Store(_)), "{error}");
        let files = CaFiles::of(from.folder.path());
        let error = cluster::open(&*to.store, &files, SystemTime::now()).await.unwrap_err();
        assert!(error.to_string().contains("half-way into this store"), "{error}");
        let error = copy(&*to.store, &*Place::empty().store).await.unwrap_err();
        assert!(matches!(error, MoveError::Half(_)), "{error}");
    }
    let moved = copy(&*from.store, &*to.store).await.unwrap();
    assert_eq!(moved.source, moved.target);
    let error = copy(&*from.store, &*to.store).await.unwrap_err();
    assert!(matches!(error, MoveError::NotEmpty(_)), "{error}");
}

/// Two at once: the one that began later goes on, the other one writes nothing more.
#[tokio::test]
async fn of_two_at_once_one_goes_on() {
    let (from, _) = Place::lived().await;
    let to = Place::empty();
    let now = SystemTime::now();
    let mut first = Target::begin(&*to.store, Occupied::Refuse, "one", now).await.unwrap();
    let moved = copy(&*from.store, &*to.store).await.unwrap();
    let before = to.all().await;
    let record = Record { key: Key::new("v1/late"), value: Bytes::from_static(b"?") };
    first.put(record, &mut |_| {}).await.unwrap();
    let error = first.finish(moved.source, &mut |_| {}).await.unwrap_err();
    assert!(matches!(error, MoveError::Contended), "{error}");
    assert_eq!(to.all().await, before);
}

/// What arrives otherwise than it was sent is found before anybody could start on it.
#[tokio::test]
async fn a_record_that_arrives_changed_is_found() {
    let (from, made) = Place::lived().await;
    let to = Place::empty();
    let spoiled = Some(keys::peer(&network(), made[0]));
    let changed = Faulty { spoiled, ..Faulty::after(&to.store, 1000) };
    let error = copy(&*from.store, &changed).await.unwrap_err();
    assert!(matches!(error, MoveError::Differs { .. }), "{error}");
    assert!(to.store.get(&keys::epoch()).await.unwrap().is_none());
}

/// A store that fails after so many commits, and may spoil one record.
struct Faulty {
    store: Arc<dyn Store>,
    commits: AtomicI64,
    spoiled: Option<Key>,
}

impl Faulty {
    fn after(store: &Arc<dyn Store>, commits: i64) -> Self {
        Self { store: store.clone(), commits: AtomicI64::new(commits), spoiled: None }
    }
}

#[async_trait]
impl Store for Faulty {
    async fn head(&self) -> Result<Revision, StoreError> {
        self.store.head().await
    }

    async fn beat(&self) -> Result<Revision, StoreError> {
        self.store.beat().await
    }

    async fn get(&self, key: &Key) -> Result<Option<Stored>, StoreError> {
        self.store.get(key).await
    }

    async fn list(
        &self,
        prefix: &Key,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.store.list(prefix, after, limit).await
    }

    async fn snapshot(&self, prefix: &Key) -> Result<Snapshot, StoreError> {
        self.store.snapshot(prefix).await
    }

    async fn commit(&self, mut transaction: Transaction) -> Result<Outcome, StoreError> {
        if self.commits.fetch_sub(1, Ordering::Relaxed) <= 0 {
            return Err(StoreError::Unavailable("cut".into()));
        }
        for operation in &mut transaction.operations {
            if let Operation::Put(key, value) = operation
                && self.spoiled.as_ref() == Some(&*key)
            {
                *value = value.slice(1..);
            }
        }
        self.store.commit(transaction).await
    }

    async fn announce(&self, key: Key, value: Bytes) -> Result<Revision, StoreError> {
        self.store.announce(key, value).await
    }

    async fn watch(&self, prefix: &Key, after: Revision) -> Result<Watch, WatchError> {
        self.store.watch(prefix, after).await
    }
}

/// What is written while it is read isn't shown: half of a change would be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_is_what_there_was_at_one_revision() {
    let (from, made) = Place::lived().await;
    let etcd = EtcdCluster::start(Version::V36, 1).unwrap();
    let (store, shutdown) = open(&etcd);
    copy(&*from.store, &store).await.unwrap();
    for store in [&*from.store, &store as &dyn Store] {
        let before = target::tally(store).await.unwrap();
        let mut source = Source::open(store).await.unwrap();
        source.next().await.unwrap().unwrap();
        let (first, last) = (keys::peer(&network(), made[0]), Key::new("v1/zebra"));
        let written = Transaction::default().delete(first).put(last, "?".into());
        assert!(matches!(store.commit(written).await.unwrap(), Outcome::Committed(_)));
        while source.next().await.unwrap().is_some() {}
        assert_eq!(source.tally(), before);
        assert_ne!(target::tally(store).await.unwrap(), before);
    }
    shutdown.drain(Duration::from_secs(1)).await;
}

/// One member's store, with what ends its tasks.
fn open(etcd: &EtcdCluster) -> (Etcd, Shutdown) {
    let config = EtcdConfig {
        endpoints: etcd.urls().iter().map(|url| url.parse().unwrap()).collect(),
        prefix: "/mesh/".parse().unwrap(),
        tls: None,
        user: None,
    };
    let shutdown = Shutdown::new();
    (Etcd::open(&config, &shutdown).unwrap(), shutdown)
}

/// Embedded, into an etcd and back: the same control plane all the way, and the command says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_grows_into_etcd_and_back() {
    let (from, made) = Place::lived().await;
    let etcd = EtcdCluster::start(Version::V36, 1).unwrap();
    let (store, shutdown) = open(&etcd);
    let moved = copy(&*from.store, &store).await.unwrap();
    let entry = keys::peer(&network(), made[0]);
    let (before, after) = (from.store.get(&entry).await.unwrap(), store.get(&entry).await.unwrap());
    assert_eq!(before.unwrap().value, after.unwrap().value);
    let back = Place::empty();
    let moved_back = copy(&store, &*back.store).await.unwrap();
    assert_eq!(moved_back.target, moved.source);
    let error = copy(&*from.store, &store).await.unwrap_err();
    assert!(matches!(error, MoveError::NotEmpty(_)), "{error}");
    let lease = keys::replica(ReplicaId::new([1; 16]));
    store.announce(lease, Bytes::new()).await.unwrap();
    let error = copy_onto(Occupied::Replace, &*from.store, &store).await.unwrap_err();
    assert!(matches!(error, MoveError::InUse(_)), "{error}");

    // The same by the command, into a place of its own. The file is in use until then.
    let url = etcd.urls()[0].clone();
    let arguments = format!(
        "store copy --from embedded --to etcd --etcd-endpoints {url} --etcd-prefix /other/"
    );
    let Place { store: embedded, folder } = from;
    let busy = crate::commands::run_in(folder.path(), &arguments);
    assert!(busy.contains("in use by another process"), "{busy}");
    drop(embedded);
    let said = crate::commands::run_in(folder.path(), &arguments);
    assert_eq!(said.matches(&moved.source.hex()).count(), 2, "{said}");
    let said = crate::commands::run_in(folder.path(), &arguments);
    assert!(said.contains("isn't empty"), "{said}");
    shutdown.drain(Duration::from_secs(1)).await;
}
