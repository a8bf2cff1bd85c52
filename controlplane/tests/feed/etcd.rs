//! The feed over a real etcd: what is compacted away, set back or lost below it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::DropGuard;
use wattle_controlplane::store::{
    Outcome, Store, StoreError, Transaction,
    etcd::{Etcd, EtcdConfig},
    feed::{Live, Pulse},
    keys,
};
use wattle_etcd::{EtcdCluster, Version};
use wattle_model::{Epoch, NodeId, Revision};
use wattle_proxy::{Fault as Order, Proxy};
use wattle_runtime::shutdown::Shutdown;
use wattle_view::Life;

use crate::{
    a_store_that_is_emptied_takes_nothing_away, commit,
    gateway::{Gateway, Wrong},
    history::Writer,
    line::Line,
    network, reaches, said, soon, start_with,
};

/// Slower than the others': etcd waits for a disk that others use, too.
const PULSE: Pulse = Pulse {
    every: Duration::from_millis(100),
    stale_after: Duration::from_secs(5),
    audit_every: Duration::from_millis(500),
};

fn start(store: Arc<dyn Store>) -> (Live, DropGuard) {
    start_with(store, PULSE)
}

async fn ready(live: &Live) {
    timeout(Duration::from_secs(20), live.ready()).await.expect("ready in time");
}

fn open(cluster: &EtcdCluster) -> (Arc<dyn Store>, DropGuard) {
    open_at(&cluster.urls())
}

fn open_at(urls: &[String]) -> (Arc<dyn Store>, DropGuard) {
    let config = EtcdConfig {
        endpoints: urls.iter().map(|url| url.parse().unwrap()).collect(),
        prefix: "/feed/".parse().unwrap(),
        tls: None,
        user: None,
    };
    let shutdown = Shutdown::new();
    let store = Etcd::open(&config, &shutdown).unwrap();
    (Arc::new(store), shutdown.token().drop_guard())
}

async fn compact(cluster: &EtcdCluster, revision: Revision) {
    let mut client = etcd_client::Client::connect(cluster.urls(), None).await.unwrap();
    client.compact(i64::try_from(revision.0).unwrap(), None).await.unwrap();
}

fn epoch(byte: u8) -> Transaction {
    Transaction::default().put(keys::epoch(), Bytes::from(vec![byte; 16]))
}

/// A relist is a difference: an agent that was told all until the cut is told the rest, deletions
/// included, from the index that was listed anew.
async fn what_is_compacted_away_is_listed(version: Version) {
    let cluster = EtcdCluster::start(version, 1).unwrap();
    let (store, _end) = open(&cluster);
    let line = Line::to(store.clone());
    let (live, _end) = start(line.clone());
    let (unbroken, _end) = start(store.clone());
    ready(&live).await;
    ready(&unbroken).await;
    let mut writer = Writer::new(6);
    let (deleted, add) = writer.add();
    let mut head = commit(store.as_ref(), add).await;
    reaches(&live, head).await;
    line.cut();
    head = commit(store.as_ref(), writer.delete(deleted, head)).await;
    writer.learn(head);
    for _ in 0..40 {
        head = commit(store.as_ref(), writer.step()).await;
        writer.learn(head);
    }
    compact(&cluster, head).await;
    line.mend();
    reaches(&live, head).await;
    reaches(&unbroken, head).await;
    assert_eq!(live.lists(), 2, "what was compacted can only be listed");
    assert_eq!(live.read().life(&network(), deleted), Life::Deleted);
    let nodes = writer.nodes();
    same(&live, &unbroken, &nodes).await;
}

/// Pull for pull, once both are at one head: heartbeats move it.
async fn same(one: &Live, other: &Live, nodes: &[NodeId]) {
    soon("the same", || {
        let (one, other) = (one.read(), other.read());
        one.head() == other.head() && {
            assert_eq!(said(&one, nodes), said(&other, nodes));
            true
        }
    })
    .await;
}

async fn same_digests(one: &Live, other: &Live, nodes: &[NodeId]) {
    soon("the same digests", || {
        let (one, other) = (one.read(), other.read());
        let same = |node| one.digest(&network(), node) == other.digest(&network(), node);
        one.head() == other.head() && nodes.iter().copied().all(same)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_etcd_3_4_compacts_away_is_listed() {
    what_is_compacted_away_is_listed(Version::V34).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_etcd_3_6_compacts_away_is_listed() {
    what_is_compacted_away_is_listed(Version::V36).await;
}

/// What a watch tells twice, late or never leaves the same index as what it tells once. What never
/// came is found by the audit, which says so.
async fn watches_that_go_wrong_change_nothing(version: Version) {
    let cluster = EtcdCluster::start(version, 1).unwrap();
    let gateway = Gateway::to(&cluster.urls()[0]).await;
    let (store, _end) = open(&cluster);
    let (behind, _end_behind) = open_at(&[gateway.url().to_owned()]);
    let (live, _end_live) = start(behind);
    let (unbroken, _end_unbroken) = start(store.clone());
    ready(&live).await;
    ready(&unbroken).await;
    let mut writer = Writer::new(9);
    for wrong in [Wrong::Repeats, Wrong::Nothing, Wrong::Loses(3)] {
        let (done, repairs) = (gateway.done(), live.repairs());
        gateway.set(wrong);
        let mut head = Revision::ZERO;
        for step in 0..40 {
            let change = if step % 4 == 0 { writer.add().1 } else { writer.step() };
            head = commit(store.as_ref(), change).await;
            writer.learn(head);
        }
        reaches(&live, head).await;
        reaches(&unbroken, head).await;
        match wrong {
            Wrong::Nothing | Wrong::Repeats => {
                // Several revisions may come in one response.
                let again = if wrong == Wrong::Repeats { 5 } else { 0 };
                assert!(gateway.done() >= done + again, "nothing came again");
                same(&live, &unbroken, &writer.nodes()).await;
                assert_eq!((live.lists(), live.repairs()), (1, 0), "watched all the while");
            }
            Wrong::Loses(lost) => {
                assert_eq!(gateway.done(), done + lost);
                soon("repairs", || live.repairs() > repairs).await;
                // What is repaired counts as changed then, so that agents are told of it again.
                same_digests(&live, &unbroken, &writer.nodes()).await;
            }
        }
    }
    assert_eq!((unbroken.lists(), unbroken.repairs()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_of_etcd_3_4_that_go_wrong_change_nothing() {
    watches_that_go_wrong_change_nothing(Version::V34).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_of_etcd_3_6_that_go_wrong_change_nothing() {
    watches_that_go_wrong_change_nothing(Version::V36).await;
}

/// Heartbeats that come too late, whose answers come too late, or both: the store is slow, and no
/// other one. An answer takes longer than anybody waits for it, and the connection lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_slow_is_no_other_one() {
    let cluster = EtcdCluster::start(Version::V36, 1).unwrap();
    let way = Proxy::start(([127, 0, 0, 1], 0).into(), cluster.member(0).address()).await.unwrap();
    let (store, _end) = open(&cluster);
    let (behind, _end_behind) = open_at(&[format!("http://{}", way.address())]);
    commit(store.as_ref(), epoch(1)).await;
    let (live, _end_live) = start(behind);
    ready(&live).await;
    let (first, mut writer) = (live.era(), Writer::new(10));
    let delay = Order::Delay(Duration::from_millis(1200));
    for (fault, seconds) in [(delay, 5), (Order::Stall, 4)] {
        way.set(fault);
        let until = Instant::now() + Duration::from_secs(seconds);
        let mut head = Revision::ZERO;
        while Instant::now() < until + Duration::from_secs(1) {
            head = commit(store.as_ref(), writer.step()).await;
            writer.learn(head);
            sleep(Duration::from_millis(20)).await;
            if Instant::now() > until {
                way.set(Order::Pass);
            }
        }
        reaches(&live, head).await;
        soon("fresh", || !live.is_stale()).await;
        assert_eq!((live.epoch(), live.era()), (Some(Epoch::new([1; 16])), first), "{fault:?}");
    }
    assert_eq!(live.lists(), 1, "watched all the while");
}

/// Two replicas over an etcd that is put back to an hour ago: one new epoch, and both show what
/// the store now holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_set_back_gets_one_new_epoch() {
    let mut cluster = EtcdCluster::start(Version::V36, 1).unwrap();
    let (store, _end) = open(&cluster);
    let mut writer = Writer::new(7);
    let old = Epoch::new([1; 16]);
    commit(store.as_ref(), epoch(1)).await;
    let (kept, add) = writer.add();
    commit(store.as_ref(), add).await;
    let (one, _end_one) = start(store.clone());
    let (second, _end_second) = open(&cluster);
    let (two, _end_two) = start(second.clone());
    ready(&one).await;
    ready(&two).await;
    assert_eq!((one.epoch(), two.epoch()), (Some(old), Some(old)));

    let saved = tempfile::tempdir().unwrap();
    let saved = saved.path().join("saved");
    cluster.member_mut(0).kill().unwrap();
    cluster.save(0, &saved).unwrap();
    cluster.run(0).unwrap();
    cluster.wait_until_healthy().unwrap();
    let (lost, add) = writer.add();
    let mut head = commit_when_it_is_back(store.as_ref(), add).await;
    for _ in 0..20 {
        head = commit(store.as_ref(), writer.add().1).await;
    }
    for live in [&one, &two] {
        reaches(live, head).await;
        assert_eq!(live.read().life(&network(), lost), Life::Live);
    }
    let eras = (one.era(), two.era());

    cluster.member_mut(0).kill().unwrap();
    cluster.put_back(0, Some(&saved)).unwrap();
    cluster.run(0).unwrap();
    cluster.wait_until_healthy().unwrap();
    soon("a new epoch", || one.epoch() != Some(old) && one.epoch() == two.epoch()).await;
    for live in [&one, &two] {
        soon("what was lost", || live.read().life(&network(), lost) == Life::Unknown).await;
        assert_eq!(live.read().life(&network(), kept), Life::Live);
    }
    let stored = store.get(&keys::epoch()).await.unwrap().unwrap();
    assert_eq!(Epoch::try_from(stored.value.as_ref()).ok(), one.epoch());
    assert_eq!((one.era(), two.era()), (eras.0 + 1, eras.1 + 1), "one new epoch");
    soon("fresh", || !one.is_stale() && !two.is_stale()).await;
}

/// Somebody else's call is the one that is told so, while the feed sees nothing of the store; and
/// others have written so much since that no revision shows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_set_back_is_found_by_whoever_asks_it() {
    let mut cluster = EtcdCluster::start(Version::V36, 1).unwrap();
    let (store, _end) = open(&cluster);
    let line = Line::to(store.clone());
    let mut writer = Writer::new(11);
    commit(store.as_ref(), epoch(1)).await;
    store.beat().await.unwrap();
    let (live, _end_live) = start(line.clone());
    ready(&live).await;
    let saved = tempfile::tempdir().unwrap();
    let saved = saved.path().join("saved");
    cluster.member_mut(0).kill().unwrap();
    cluster.save(0, &saved).unwrap();
    cluster.run(0).unwrap();
    cluster.wait_until_healthy().unwrap();
    let (lost, add) = writer.add();
    let head = commit_when_it_is_back(store.as_ref(), add).await;
    reaches(&live, head).await;
    let beat = store.beat().await.unwrap();
    reaches(&live, beat).await;

    line.cut();
    cluster.member_mut(0).kill().unwrap();
    cluster.put_back(0, Some(&saved)).unwrap();
    cluster.run(0).unwrap();
    cluster.wait_until_healthy().unwrap();
    let (others, _end_others) = open(&cluster);
    let mut head = Revision::ZERO;
    while head < Revision(beat.0 + 50) {
        head = commit_when_it_is_back(others.as_ref(), writer.add().1).await;
    }
    let told = beat_when_it_is_back(store.as_ref()).await;
    assert!(matches!(told, StoreError::Replaced(_)), "{told}");
    store.beat().await.expect("told once");
    line.mend();
    let old = Some(Epoch::new([1; 16]));
    soon("a new epoch", || live.epoch() != old).await;
    soon("what was lost", || live.read().life(&network(), lost) == Life::Unknown).await;
    reaches(&live, head).await;
    assert_eq!(live.lists(), 2);
}

/// What a heartbeat is told at last, once etcd answers.
async fn beat_when_it_is_back(store: &dyn Store) -> StoreError {
    for _ in 0..50 {
        match store.beat().await {
            Err(StoreError::Unavailable(_)) => sleep(Duration::from_millis(100)).await,
            Err(error) => return error,
            Ok(revision) => panic!("beaten at {revision}, as if nothing had been"),
        }
    }
    panic!("etcd doesn't come back")
}

/// An etcd that lost everything isn't a mesh from which everything was deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_lost_everything_takes_nothing_away() {
    let mut cluster = EtcdCluster::start(Version::V36, 1).unwrap();
    let (store, _end) = open(&cluster);
    let mut writer = Writer::new(8);
    commit(store.as_ref(), epoch(1)).await;
    let (node, add) = writer.add();
    commit(store.as_ref(), add).await;
    let (live, _end) = start(store.clone());
    ready(&live).await;
    cluster.member_mut(0).kill().unwrap();
    cluster.put_back(0, None).unwrap();
    cluster.run(0).unwrap();
    cluster.wait_until_healthy().unwrap();
    soon("stale", || live.is_stale()).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(live.read().life(&network(), node), Life::Live);
    assert!(live.is_stale());
    assert!(store.get(&keys::epoch()).await.unwrap().is_none(), "nothing was made up");
}

/// All of it deleted while etcd goes on, and put back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_is_emptied_takes_nothing_away() {
    let cluster = EtcdCluster::start(Version::V36, 1).unwrap();
    let (store, _end) = open(&cluster);
    a_store_that_is_emptied_takes_nothing_away(store, PULSE).await;
}

/// After a restart of etcd the first commits may find a dead connection.
async fn commit_when_it_is_back(store: &dyn Store, transaction: Transaction) -> Revision {
    for _ in 0..50 {
        if let Ok(Outcome::Committed(revision)) = store.commit(transaction.clone()).await {
            return revision;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("etcd doesn't come back")
}
