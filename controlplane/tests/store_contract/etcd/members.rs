//! Three members, of which some are killed, frozen or cut off while somebody writes and watches.

use std::{
    collections::BTreeSet,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use wattle_controlplane::store::{Key, Outcome, Store, StoreError, Transaction};
use wattle_etcd::{EtcdCluster, Version};
use wattle_model::Revision;

use super::client;
use crate::contract::{done, key, put};

/// Writes one key after another, each created once, and remembers what it was told.
struct Writer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Written>,
}

#[derive(Default)]
struct Written {
    /// Told that it was done.
    done: Vec<(u64, Revision)>,
    /// Told that nobody knows.
    unknown: Vec<u64>,
    /// Between two that were done, at most.
    gap: Duration,
}

impl Writer {
    fn start(store: Arc<dyn Store>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let (mut written, mut last) = (Written::default(), Instant::now());
            for n in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                let create = Transaction::default()
                    .create(key(format!("w/{n}/a")), "x".into())
                    .create(key(format!("w/{n}/b")), "x".into());
                match store.commit(create).await {
                    Ok(Outcome::Committed(revision)) => {
                        written.done.push((n, revision));
                        written.gap = written.gap.max(last.elapsed());
                        last = Instant::now();
                    }
                    Ok(Outcome::Conflict) => panic!("{n} was done twice"),
                    Err(StoreError::Unavailable(_)) => written.unknown.push(n),
                    Err(error) => panic!("{error}"),
                }
                sleep(Duration::from_millis(5)).await;
            }
            written
        });
        Self { stop, task }
    }

    async fn stop(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// Watches as a feed does: where the watch ends it begins again after the last change.
fn watch(store: Arc<dyn Store>, after: Revision) -> (Arc<AtomicBool>, JoinHandle<Vec<Revision>>) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let task = tokio::spawn(async move {
        let (mut told, mut last) = (Vec::new(), after);
        while !stopped.load(Ordering::Relaxed) {
            let Ok(mut watch) = store.watch(&key("w/"), last).await else {
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            while let Ok(Some(Ok(change))) = timeout(Duration::from_secs(2), watch.next()).await {
                assert_eq!(change.operations.len(), 2, "half a transaction");
                assert!(change.revision > last, "told again");
                last = change.revision;
                told.push(last);
            }
        }
        told
    });
    (stop, task)
}

/// All that was told done is there, whole; what is unknown is there whole or not at all; and the
/// watch told of all that is there, once each.
async fn check(store: &Arc<dyn Store>, written: &Written, told: &[Revision]) {
    let mut there = BTreeSet::new();
    let mut after = None;
    let mut revisions = BTreeSet::new();
    loop {
        let page = store.list(&key("w/"), after.as_ref(), 1000).await.unwrap();
        revisions.extend(page.items.iter().map(|item| item.modified));
        there.extend(page.items.iter().map(|item| item.key.to_string()));
        after = page.items.last().map(|item| item.key.clone());
        if !page.more {
            break;
        }
    }
    let has = |n: u64, part: &str| there.contains(&format!("v1/test/w/{n}/{part}"));
    for (n, revision) in &written.done {
        assert!(has(*n, "a") && has(*n, "b"), "{n} was lost");
        assert!(revisions.contains(revision), "{n} is at another revision than was said");
    }
    for n in &written.unknown {
        assert_eq!(has(*n, "a"), has(*n, "b"), "{n} is half there");
    }
    assert_eq!(told.iter().copied().collect::<BTreeSet<_>>(), revisions, "told and there");
    assert!(written.done.len() > 100, "{} writes", written.done.len());
}

/// The leader goes twice while somebody writes: first it is killed, then the next one freezes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_with_a_leader() {
    let mut cluster = EtcdCluster::start(Version::V36, 3).unwrap();
    let (store, _end) = client(&cluster.urls(), "/leader/");
    let (watching, _end_watch) = client(&cluster.urls(), "/leader/");
    let start = store.head().await.unwrap();
    let writer = Writer::start(store.clone());
    let (stop, told) = watch(watching, start);
    sleep(Duration::from_secs(1)).await;

    let killed = cluster.leader().unwrap();
    cluster.member_mut(killed).kill().unwrap();
    sleep(Duration::from_secs(6)).await;
    cluster.run(killed).unwrap();
    cluster.wait_until_healthy().unwrap();
    let frozen = cluster.leader().unwrap();
    cluster.member(frozen).freeze().unwrap();
    sleep(Duration::from_secs(10)).await;
    cluster.member(frozen).thaw().unwrap();
    sleep(Duration::from_secs(1)).await;

    let written = writer.stop().await;
    sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    check(&store, &written, &told.await.unwrap()).await;
    // A commit of 5 s that nobody answers, and an election before the next one.
    assert!(written.gap < Duration::from_secs(9), "no write for {:?}", written.gap);
    assert!(written.unknown.len() <= 4, "{} of unknown end", written.unknown.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_written_and_all_is_read() {
    let mut cluster = EtcdCluster::start(Version::V36, 3).unwrap();
    let (store, _end) = client(&cluster.urls(), "/quorum/");
    for i in 0..10 {
        done(&store, put(i, "before")).await;
    }
    // Wherever it has been read: the member that stays may lag behind.
    sleep(Duration::from_millis(500)).await;
    let leader = cluster.leader().unwrap();
    let stays = (leader + 1) % 3;
    for gone in [leader, (leader + 2) % 3] {
        cluster.member_mut(gone).kill().unwrap();
    }

    let began = Instant::now();
    let refused = store.commit(put("0", "lost").put(key("new"), "lost".into())).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(8), "refused after {:?}", began.elapsed());
    assert!(store.head().await.is_err(), "nobody can know it");
    for round in 0..30 {
        let began = Instant::now();
        let stored = store.get(&key(round % 10)).await.unwrap().expect("it was committed");
        assert_eq!(stored.value, "before");
        assert!(began.elapsed() < Duration::from_secs(6), "read after {:?}", began.elapsed());
    }
    assert_eq!(store.list(&Key::new("v1/"), None, 100).await.unwrap().items.len(), 10);
    assert!(store.beat().await.is_err(), "a replica must find out that it is stale");

    for back in (0..3).filter(|n| *n != stays) {
        cluster.run(back).unwrap();
    }
    cluster.wait_until_healthy().unwrap();
    let revision = done_when_it_is_back(&store).await;
    assert!(store.head().await.unwrap() >= revision);
    let new = store.get(&key("new")).await.unwrap();
    let zero = store.get(&key("0")).await.unwrap().unwrap();
    assert_eq!(new.is_some(), zero.value == "lost", "half a transaction");
}

async fn done_when_it_is_back(store: &Arc<dyn Store>) -> Revision {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match store.commit(put("after", "x")).await {
            Ok(Outcome::Committed(revision)) => return revision,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// At first nobody listens, and it is tried again; then somebody does, who never says a word. All
/// of it takes no longer than a commit may.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_tried_again_ends_in_time() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (store, _end) = client(&[format!("http://{free}")], "/late/");
    let silent = tokio::spawn(async move {
        sleep(Duration::from_millis(3500)).await;
        let _held = TcpListener::bind(free).unwrap();
        sleep(Duration::from_secs(20)).await;
    });
    let began = Instant::now();
    let refused = store.commit(put("a", "1")).await;
    let took = began.elapsed();
    silent.abort();
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert!(took > Duration::from_secs(4) && took < Duration::from_millis(5500), "{took:?}");
}
