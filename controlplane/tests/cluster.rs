//! First and second starts, and what may have happened between them.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use prost::Message as _;
use tempfile::TempDir;
use wattle_controlplane::{
    authority::CaFiles,
    cluster::{self, Cluster, ClusterError},
    horizon,
    store::{Key, Outcome, Store, Transaction, embedded::Embedded, keys},
};
use wattle_model::{History, NetworkName, NodeId, OperatorId, Revision, TokenId};
use wattle_proto::{
    record::{NetworkBody, NodeBody, decode_history, encode_changed, encode_first},
    store as proto,
};
use wattle_runtime::clock;

fn folder() -> (Arc<dyn Store>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Arc::new(Embedded::open(&folder.path().join("store.redb")).unwrap()), folder)
}

async fn open(store: &Arc<dyn Store>, data_dir: &Path) -> Result<Cluster, ClusterError> {
    cluster::open(store.as_ref(), &CaFiles::of(data_dir), SystemTime::now()).await
}

fn same(a: &Cluster, b: &Cluster) -> bool {
    (a.epoch, &a.trust_domain, a.trust.ca.pin(), &a.trust.roots)
        == (b.epoch, &b.trust_domain, b.trust.ca.pin(), &b.trust.roots)
}

async fn network(store: &Arc<dyn Store>) -> NetworkBody {
    let stored = store.get(&keys::network(&default())).await.unwrap().unwrap();
    let history: History<NetworkBody> = decode_history(&stored.value, stored.modified).unwrap();
    history.present().body.clone().unwrap()
}

fn default() -> NetworkName {
    "default".parse().unwrap()
}

#[tokio::test]
async fn a_second_start_finds_all_as_it_was() {
    let (store, folder) = folder();
    let first = open(&store, folder.path()).await.unwrap();
    let (head, ranges) = (store.head().await.unwrap(), network(&store).await);
    let second = open(&store, folder.path()).await.unwrap();
    assert!(same(&first, &second));
    assert_eq!(store.head().await.unwrap(), head, "nothing was written");
    assert_eq!(ranges.ipv4_range, "10.90.0.0/16");
    assert!(ranges.ipv6_range.starts_with("fd") && ranges.ipv6_range.ends_with("::/64"));
    let other = folder_and_open().await;
    assert_ne!(network(&other.1).await.ipv6_range, ranges.ipv6_range, "it is random");
}

async fn folder_and_open() -> (Cluster, Arc<dyn Store>, TempDir) {
    let (store, folder) = folder();
    let cluster = open(&store, folder.path()).await.unwrap();
    (cluster, store, folder)
}

#[tokio::test]
async fn the_ca_key_is_private_and_never_overwritten() {
    let (store, folder) = folder();
    let first = open(&store, folder.path()).await.unwrap();
    let key = folder.path().join("ca.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read(&key).unwrap();
    // A first start that ended after the key and before the store.
    let empty = tempfile::tempdir().unwrap();
    let empty: Arc<dyn Store> = Arc::new(Embedded::open(&empty.path().join("store.redb")).unwrap());
    let again = open(&empty, folder.path()).await.unwrap();
    assert_eq!(again.trust.ca.pin(), first.trust.ca.pin());
    assert_eq!(fs::read(&key).unwrap(), text);
}

#[tokio::test]
async fn a_key_of_another_control_plane_is_refused() {
    let (_, store, folder) = folder_and_open().await;
    let (_, _store, other) = folder_and_open().await;
    let key = folder.path().join("ca.key");
    fs::copy(other.path().join("ca.key"), &key).unwrap();
    let error = open(&store, folder.path()).await.unwrap_err().to_string();
    assert!(error.contains("ca.key") && error.contains("none of the store's"), "{error}");
    fs::write(&key, "no key").unwrap();
    let error = open(&store, folder.path()).await.unwrap_err().to_string();
    assert!(error.contains("ca.key") && error.contains("put back"), "{error}");
    fs::remove_file(&key).unwrap();
    let error = open(&store, folder.path()).await.unwrap_err().to_string();
    assert!(error.contains("ca.key"), "{error}");
    assert!(!key.exists(), "no other key is made");
}

#[tokio::test]
async fn another_schema_is_refused() {
    let (_, store, folder) = folder_and_open().await;
    let stored = store.get(&keys::cluster()).await.unwrap().unwrap();
    let mut record = proto::Cluster::decode(stored.value).unwrap();
    record.schema_version = 2;
    put(&store, keys::cluster(), record.encode_to_vec()).await;
    let error = open(&store, folder.path()).await.unwrap_err().to_string();
    assert!(error.contains("schema version 2"), "{error}");
}

async fn put(store: &Arc<dyn Store>, key: Key, value: impl Into<bytes::Bytes>) -> Revision {
    match store.commit(Transaction::default().put(key, value.into())).await.unwrap() {
        Outcome::Committed(revision) => revision,
        Outcome::Conflict => panic!("it compares nothing"),
    }
}

/// Two nodes: one is deleted, the other labelled. A day later the first is forgotten and the other
/// remembers its present labels only; nothing is forgotten before.
#[tokio::test]
async fn what_the_horizon_passes_is_forgotten_and_nothing_before() {
    let (_, store, folder) = folder_and_open().await;
    let start = SystemTime::now();
    let body = |label: &str| NodeBody {
        created_at_millis: 1,
        labels: wattle_model::Labels::from_texts([label]).unwrap(),
        fixed_name: None,
    };
    let key = |n: u8| keys::node(&default(), NodeId::new([n; 16]));
    for n in [1, 2] {
        let modified = put(&store, key(n), encode_first(&body("a=1"))).await;
        let history = History::first(modified, body("a=1"));
        put(&store, key(n), encode_changed(history, (n == 2).then(|| body("a=2")))).await;
    }
    let claim =
        |released_at_millis| proto::Claim { node_id: vec![1; 16].into(), released_at_millis };
    let name = |name: &str| keys::name(&default(), &name.parse().unwrap());
    put(&store, name("released"), claim(1).encode_to_vec()).await;
    put(&store, name("held"), claim(0).encode_to_vec()).await;
    let before = store.snapshot(&keys::all()).await.unwrap().revision;
    let hours = |n: u64| start + Duration::from_secs(n * 3600);
    for hour in 0..24 {
        assert_eq!(horizon::advance(store.as_ref(), hours(hour)).await.unwrap(), Revision::ZERO);
    }
    assert!(store.get(&key(1)).await.unwrap().is_some());
    assert!(store.get(&name("released")).await.unwrap().is_some());
    assert_eq!(horizon::advance(store.as_ref(), hours(24)).await.unwrap(), before);
    assert!(store.get(&key(1)).await.unwrap().is_none());
    assert!(store.get(&name("released")).await.unwrap().is_none());
    assert!(store.get(&name("held")).await.unwrap().is_some());
    let stored = store.get(&key(2)).await.unwrap().unwrap();
    let history: History<NodeBody> = decode_history(&stored.value, stored.modified).unwrap();
    assert!(history.past().is_empty());
    assert_eq!(history.present().body, Some(body("a=2")));
    assert!(history.present().from <= before, "a rewrite moves no body");
    drop(folder);
}

/// Histories are long: what is left of a few dozen is more than one transaction takes.
#[tokio::test]
async fn what_is_large_is_trimmed_as_well() {
    const NODES: u8 = 36;
    let (_, store, _folder) = folder_and_open().await;
    let key = |n: u8| keys::node(&default(), NodeId::new([n; 16]));
    let labels = |change: u8| {
        let label = |n: u8| format!("{n:063}={change:063}");
        let texts: Vec<_> = (0..32).map(label).collect();
        wattle_model::Labels::from_texts(texts.iter().map(String::as_str)).unwrap()
    };
    let body = |change| NodeBody { created_at_millis: 1, labels: labels(change), fixed_name: None };
    let change = async |number: u8| {
        for group in (0..NODES).collect::<Vec<_>>().chunks(12) {
            let mut all = Transaction::default();
            for n in group {
                let value = match store.get(&key(*n)).await.unwrap() {
                    Some(stored) => {
                        let history = decode_history(&stored.value, stored.modified).unwrap();
                        encode_changed::<NodeBody>(history, Some(body(number)))
                    }
                    None => encode_first(&body(number)),
                };
                all = all.put(key(*n), value);
            }
            assert!(matches!(store.commit(all).await.unwrap(), Outcome::Committed(_)));
        }
    };
    let start = SystemTime::now();
    for number in 0..3 {
        change(number).await;
    }
    horizon::advance(store.as_ref(), start).await.unwrap();
    for number in 3..12 {
        change(number).await;
    }
    let claim = proto::Claim { node_id: vec![1; 16].into(), released_at_millis: 1 };
    put(&store, keys::name(&default(), &"last".parse().unwrap()), claim.encode_to_vec()).await;
    let hour = Duration::from_secs(3600);
    for hours in 1..=48 {
        horizon::advance(store.as_ref(), start + hour * hours).await.unwrap();
        if hours == 24 {
            let mut left = 0;
            for n in 0..NODES {
                let stored = store.get(&key(n)).await.unwrap().unwrap();
                let history: History<NodeBody> =
                    decode_history(&stored.value, stored.modified).unwrap();
                assert_eq!(history.past().len(), 9, "of twelve, two are older than the mark");
                left += stored.value.len();
            }
            assert!(left > wattle_controlplane::store::MAX_BYTES, "{left} bytes fit one");
        }
    }
    let left = store.list(&keys::all_names(), None, 10).await.unwrap().items;
    assert!(left.is_empty(), "what comes after them is swept, too");
}

/// Tokens and operators: those whose time ran out, and those revoked, go a day later; the live stay.
#[tokio::test]
async fn dead_tokens_and_operators_are_forgotten_a_day_after_their_end() {
    let (_, store, _folder) = folder_and_open().await;
    let start = SystemTime::now();
    let hours = |n: u64| start + Duration::from_secs(n * 3600);
    let lives = [(false, 100), (true, 100), (false, 1)];
    let token = |n: u8| keys::join_token(TokenId::new([n; 8]));
    let operator = |n: u8| keys::operator(OperatorId::new([n; 16]));
    for (n, (revoked, until)) in (0..).zip(lives) {
        let expires_at_millis = clock::unix_millis(hours(until));
        let record = proto::JoinToken { revoked, expires_at_millis, ..Default::default() };
        put(&store, token(n), record.encode_to_vec()).await;
        let record = proto::Operator { revoked, expires_at_millis, ..Default::default() };
        put(&store, operator(n), record.encode_to_vec()).await;
    }
    let mut now = (0..).peekable();
    let mut left = async |hour| {
        while let Some(next) = now.next_if(|next| *next <= hour) {
            horizon::advance(store.as_ref(), hours(next)).await.unwrap();
        }
        let mut left = Vec::new();
        for n in 0..3 {
            let (token, operator) = (store.get(&token(n)).await, store.get(&operator(n)).await);
            left.push([token.unwrap().is_some(), operator.unwrap().is_some()]);
        }
        left
    };
    let (all, none) = ([true; 2], [false; 2]);
    assert_eq!(left(0).await, [all, all, all]);
    assert_eq!(left(23).await, [all, all, all]);
    assert_eq!(left(24).await, [all, none, all], "who was revoked, once the horizon is past that");
    assert_eq!(left(25).await, [all, none, none], "who ran out, by the clock");
    assert_eq!(left(123).await, [all, none, none]);
    assert_eq!(left(125).await, [none, none, none]);
}
