//! From the store to the view: listed or watched, cut or not, the index is the same.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod etcd;
mod gateway;
mod history;
mod line;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use wattle_controlplane::store::{
    Outcome, Store, Transaction,
    embedded::Embedded,
    feed::{Feed, Live, Pulse},
    keys,
};
use wattle_model::{NetworkName, NodeId, Revision};
use wattle_view::{Index, Life, Position};

use crate::{
    history::Writer,
    line::{Fault, Line},
};

/// A store of its own in a folder of its own.
fn embedded(log: u64) -> (Arc<dyn Store>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::with_log(&folder.path().join("store.redb"), log).unwrap();
    (Arc::new(store), folder)
}

/// Faster than in the field.
const PULSE: Pulse = Pulse {
    every: Duration::from_millis(50),
    stale_after: Duration::from_millis(500),
    audit_every: Duration::from_millis(300),
};

/// A running feed; it ends with the guard.
fn start(store: Arc<dyn Store>) -> (Live, tokio_util::sync::DropGuard) {
    start_with(store, PULSE)
}

fn start_with(store: Arc<dyn Store>, pulse: Pulse) -> (Live, tokio_util::sync::DropGuard) {
    let (feed, live) = Feed::with_pulse(store, pulse);
    let end = CancellationToken::new();
    tokio::spawn(feed.run(end.clone()));
    (live, end.drop_guard())
}

async fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let poll = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), poll).await.unwrap_or_else(|_| panic!("never: {what}"));
}

async fn reaches(live: &Live, head: Revision) {
    let mut heads = live.head();
    let reached = heads.wait_for(|now| *now >= head);
    timeout(Duration::from_secs(20), reached).await.expect("the feed keeps up").unwrap();
}

async fn commit(store: &dyn Store, transaction: Transaction) -> Revision {
    match store.commit(transaction).await.unwrap() {
        Outcome::Committed(revision) => revision,
        Outcome::Conflict => panic!("nobody else writes"),
    }
}

fn network() -> NetworkName {
    "default".parse().unwrap()
}

/// Everything that an index says of its nodes, to everybody, from every revision.
fn said(index: &Index, nodes: &[NodeId]) -> Vec<String> {
    let network = network();
    let mut said = vec![format!("{} {}", index.head(), index.horizon())];
    for node in nodes {
        said.push(format!("{node} {:?}", index.life(&network, *node)));
        said.extend(index.node(&network, *node).map(|node| format!("{node:?}")));
        said.push(index.digest(&network, *node).to_string());
        for from in 0..=index.head().0 {
            let key = index.pull_key(&network, *node, Revision(from), Position::START);
            said.extend(key.map(|key| format!("{from} {:?}", index.pull(&key, 1 << 20))));
        }
    }
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listed_index_equals_a_watched_one() {
    for seed in 0..8 {
        let (store, _folder) = embedded(1000);
        let (watched, _end) = start(store.clone());
        watched.ready().await;
        let mut writer = Writer::new(seed);
        for step in 0..60 {
            let head = commit(store.as_ref(), writer.step()).await;
            writer.learn(head);
            if step % 20 == 0 {
                let (listed, _end) = start(store.clone());
                listed.ready().await;
                reaches(&watched, head).await;
                let nodes = writer.nodes();
                assert_eq!(
                    said(&listed.read(), &nodes),
                    said(&watched.read(), &nodes),
                    "seed {seed}, step {step}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_left_out_by_itself() {
    let (store, _folder) = embedded(1000);
    let mut writer = Writer::new(1);
    let (good, add) = writer.add();
    let bad = NodeId::new([9; 16]);
    let garbage = Bytes::from_static(b"\xff\xff");
    let both = add
        .put(keys::node(&network(), bad), garbage.clone())
        .put(keys::peer(&network(), bad), garbage.clone());
    let (watched, _end) = start(store.clone());
    watched.ready().await;
    let head = commit(store.as_ref(), both).await;
    reaches(&watched, head).await;
    let (listed, _end) = start(store.clone());
    listed.ready().await;
    for live in [watched, listed] {
        assert_eq!(live.read().life(&network(), good), Life::Live);
        assert_eq!(live.read().life(&network(), bad), Life::Unknown);
    }
}

#[tokio::test]
async fn a_replica_is_ready_only_once_it_has_listed() {
    let (store, _folder) = embedded(1000);
    let head = commit(store.as_ref(), Writer::new(1).add().1).await;
    let line = Line::to(store);
    line.cut();
    let (live, _end) = start(line.clone());
    soon("stale", || live.is_stale()).await;
    assert!(!live.is_ready() && *live.head().borrow() == Revision::ZERO);
    line.mend();
    live.ready().await;
    assert_eq!(live.read().head(), head);
    soon("fresh", || !live.is_stale()).await;
}

#[tokio::test]
async fn a_cut_watch_is_taken_up_where_it_ended() {
    let (store, _folder) = embedded(1000);
    let line = Line::to(store.clone());
    let (live, _end) = start(line.clone());
    live.ready().await;
    let mut writer = Writer::new(2);
    for _ in 0..5 {
        line.cut();
        soon("stale", || live.is_stale()).await;
        let (node, add) = writer.add();
        let head = commit(store.as_ref(), add).await;
        line.mend();
        reaches(&live, head).await;
        assert_eq!(live.read().life(&network(), node), Life::Live);
        let passage = live.passage(head).unwrap();
        assert!(passage.since() <= passage.indexed && passage.handed >= Some(passage.indexed));
    }
    assert_eq!(live.lists(), 1, "nothing was listed again");
}

#[tokio::test]
async fn a_log_that_has_forgotten_means_a_new_list() {
    let (store, _folder) = embedded(5);
    let line = Line::to(store.clone());
    let (live, _end) = start(line.clone());
    live.ready().await;
    let mut writer = Writer::new(3);
    let (deleted, add) = writer.add();
    let head = commit(store.as_ref(), add).await;
    reaches(&live, head).await;
    line.cut();
    soon("stale", || live.is_stale()).await;
    let mut head = commit(store.as_ref(), writer.delete(deleted, head)).await;
    for _ in 0..10 {
        head = commit(store.as_ref(), writer.add().1).await;
    }
    line.mend();
    reaches(&live, head).await;
    assert_eq!(live.lists(), 2);
    assert_eq!(live.read().life(&network(), deleted), Life::Deleted);
    assert!(live.is_ready());
}

fn unrelated() -> Transaction {
    Transaction::default().put(keys::occupancy(&network()), Bytes::new())
}

/// What heartbeats can't show: the watch is alive, and has lost something.
#[tokio::test]
async fn what_a_watch_has_lost_is_found_and_repaired() {
    let (store, _folder) = embedded(1000);
    let line = Line::to(store.clone());
    let (live, _end) = start(line.clone());
    live.ready().await;
    let mut writer = Writer::new(4);
    let (deleted, add) = writer.add();
    let made = commit(store.as_ref(), add).await;
    reaches(&live, made).await;
    // A delete that is lost keeps a peer, a put that is lost lacks one. What comes after each of
    // them makes the watch look well.
    line.set_fault(Fault::Loses);
    commit(store.as_ref(), writer.delete(deleted, made)).await;
    soon("lost", || line.has_lost()).await;
    commit(store.as_ref(), unrelated()).await;
    line.set_fault(Fault::Loses);
    let (added, add) = writer.add();
    commit(store.as_ref(), add).await;
    soon("lost", || line.has_lost()).await;
    commit(store.as_ref(), unrelated()).await;
    soon("repaired", || live.repairs() > 0).await;
    soon("the delete", || live.read().life(&network(), deleted) == Life::Deleted).await;
    soon("the put", || live.read().life(&network(), added) == Life::Live).await;
    assert!(!live.is_stale());
    // And once it is right, it is left alone.
    let repairs = live.repairs();
    sleep(PULSE.audit_every * 4).await;
    assert_eq!(live.repairs(), repairs);
}

#[tokio::test]
async fn a_watch_that_repeats_itself_changes_nothing() {
    let (store, _folder) = embedded(1000);
    let line = Line::to(store.clone());
    line.set_fault(Fault::Repeats);
    let (watched, _end) = start(line.clone());
    watched.ready().await;
    let mut writer = Writer::new(5);
    let mut head = Revision::ZERO;
    for _ in 0..60 {
        head = commit(store.as_ref(), writer.step()).await;
        writer.learn(head);
    }
    reaches(&watched, head).await;
    let (listed, _end) = start(store.clone());
    listed.ready().await;
    let nodes = writer.nodes();
    assert_eq!(said(&listed.read(), &nodes), said(&watched.read(), &nodes));
    sleep(PULSE.audit_every * 3).await;
    assert_eq!((watched.repairs(), watched.lists()), (0, 1));
}

/// Only a store that is itself behind what the watch told was set back.
#[tokio::test]
async fn a_heartbeat_that_is_told_wrong_is_no_other_store() {
    let (store, _folder) = embedded(1000);
    let epoch = Bytes::from_static(&[1; 16]);
    commit(store.as_ref(), Transaction::default().put(keys::epoch(), epoch)).await;
    let line = Line::to(store.clone());
    let (live, _end) = start(line.clone());
    live.ready().await;
    let (first, known) = (live.era(), live.epoch());
    let head = commit(store.as_ref(), Writer::new(6).add().1).await;
    reaches(&live, head).await;
    line.set_fault(Fault::BeatsOld);
    soon("stale", || live.is_stale()).await;
    line.set_fault(Fault::None);
    soon("fresh", || !live.is_stale()).await;
    assert_eq!((live.era(), live.epoch(), live.lists()), (first, known, 1));
}

/// As `del --prefix` does it, all at once, and as a restore over what is there does it, in pieces: no
/// machine is told that another one has gone. Filled again, it has another epoch.
async fn a_store_that_is_emptied_takes_nothing_away(store: Arc<dyn Store>, pulse: Pulse) {
    let epoch = |byte: u8| Transaction::default().put(keys::epoch(), vec![byte; 16].into());
    commit(store.as_ref(), epoch(1)).await;
    let mut writer = Writer::new(7);
    let (mut node, add) = writer.add();
    commit(store.as_ref(), add).await;
    let (live, _end) = start_with(store.clone(), pulse);
    live.ready().await;
    for at_once in [true, false] {
        let before = live.era();
        let begin = Transaction::default().delete(keys::epoch()).put(keys::moving(), "x".into());
        let shown = [keys::node(&network(), node), keys::peer(&network(), node)];
        let rest = shown.into_iter().fold(Transaction::default(), Transaction::delete);
        let steps = if at_once { vec![begin.and(rest)] } else { vec![begin, rest] };
        for step in steps {
            commit(store.as_ref(), step).await;
        }
        soon("stale", || live.is_stale()).await;
        assert_eq!(live.read().life(&network(), node), Life::Live, "at once: {at_once}");
        assert_eq!(live.era(), before);
        assert!(store.get(&keys::epoch()).await.unwrap().is_none(), "nothing was made up");

        let (other, add) = writer.add();
        commit(store.as_ref(), add).await;
        let end = epoch(if at_once { 2 } else { 3 }).delete(keys::moving());
        let head = commit(store.as_ref(), end).await;
        soon("the new epoch", || live.era() == before + 1).await;
        reaches(&live, head).await;
        assert_eq!(live.read().life(&network(), other), Life::Live);
        assert_eq!(live.read().life(&network(), node), Life::Unknown);
        soon("fresh", || !live.is_stale()).await;
        node = other;
    }
}

#[tokio::test]
async fn an_embedded_store_that_is_emptied_takes_nothing_away() {
    let (store, _folder) = embedded(1000);
    a_store_that_is_emptied_takes_nothing_away(store, PULSE).await;
}
