//! What etcd forgets while somebody reads it, on both versions.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use tokio::time::timeout;
use wattle_controlplane::store::{Key, Store, Transaction, WatchError};
use wattle_etcd::{EtcdCluster, Version};
use wattle_model::Revision;

use super::client;
use crate::contract::{done, key, put};

async fn compact(cluster: &EtcdCluster, revision: Revision) {
    let mut etcd = etcd_client::Client::connect(cluster.urls(), None).await.unwrap();
    etcd.compact(i64::try_from(revision.0).unwrap(), None).await.unwrap();
}

async fn forgets(version: Version) {
    let cluster = EtcdCluster::start(version, 1).unwrap();
    let (store, _end) = client(&cluster.urls(), "/compacted/");
    listing(&cluster, &store).await;
    watching(&cluster, &store).await;
    cut_in_a_long_catch_up(&store).await;
}

/// A listing that is overtaken fails, and the next one shows everything.
async fn listing(cluster: &EtcdCluster, store: &Arc<dyn Store>) {
    for chunk in 0..25 {
        let many = (0..100).fold(Transaction::default(), |t, i| {
            t.put(key(format!("{:04}", chunk * 100 + i)), "x".into())
        });
        done(store, many).await;
    }
    let mut snapshot = store.snapshot(&key("")).await.unwrap();
    // Two pages are read ahead of what is shown.
    snapshot.pages.next().await.unwrap().unwrap();
    let head = done(store, put("0000", "y")).await;
    compact(cluster, head).await;
    let rest: Result<Vec<_>, _> = snapshot.pages.try_collect().await;
    let error = rest.expect_err("it was compacted").to_string();
    assert!(error.contains("compacted"), "{error}");
    let again: Vec<_> = store.snapshot(&key("")).await.unwrap().pages.try_collect().await.unwrap();
    assert_eq!(again.concat().len(), 2500);
}

/// A watch from what is forgotten is told so; one from what isn't goes on.
async fn watching(cluster: &EtcdCluster, store: &Arc<dyn Store>) {
    let old = done(store, put("a", "1")).await;
    let mut live = store.watch(&key(""), old).await.unwrap();
    for _ in 0..10 {
        done(store, put("a", "2")).await;
    }
    let head = done(store, put("a", "3")).await;
    compact(cluster, head).await;
    let told = match store.watch(&key(""), old).await {
        Ok(mut watch) => {
            let told = timeout(Duration::from_secs(10), watch.next()).await;
            told.expect("told in time").expect("told").map(drop)
        }
        Err(error) => Err(error),
    };
    assert!(matches!(told, Err(WatchError::Compacted(first)) if first == head), "{told:?}");
    // One that was there before sees all of it.
    let mut last = old;
    while last < head {
        last = live.next().await.unwrap().unwrap().revision;
    }
    let next = done(store, put("a", "4")).await;
    let mut watch = store.watch(&key(""), head).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, next);
}

/// More revisions than etcd tells at once, cut again and again, each told once.
async fn cut_in_a_long_catch_up(store: &Arc<dyn Store>) {
    const REVISIONS: usize = 2600;
    let start = store.head().await.unwrap();
    let writes = (0..REVISIONS).map(|i| {
        let store = store.clone();
        async move { done(&store, put(format!("long/{i}"), "1").put(key("long"), "2".into())).await }
    });
    let mut made: Vec<_> = futures::stream::iter(writes).buffer_unordered(64).collect().await;
    made.sort_unstable();
    let mut told: Vec<Revision> = Vec::new();
    while told.len() < REVISIONS {
        let after = told.last().copied().unwrap_or(start);
        let watch = store.watch(&Key::new("v1/test/long"), after).await.unwrap();
        let piece: Vec<_> =
            watch.take(437.min(REVISIONS - told.len())).try_collect().await.unwrap();
        assert!(piece.iter().all(|change| change.operations.len() == 2), "half a transaction");
        told.extend(piece.iter().map(|change| change.revision));
    }
    assert_eq!(told, made);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_etcd_3_4_forgets_is_told() {
    forgets(Version::V34).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_etcd_3_6_forgets_is_told() {
    forgets(Version::V36).await;
}
