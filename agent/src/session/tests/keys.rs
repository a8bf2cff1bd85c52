//! This node's own key: made before anybody hears of it, used from the commit on that says so, and
//! not lost wherever the agent is killed.

use bytes::Bytes;
use wattle_model::PublicKey;

use super::bench::{Bench, EPOCH, Running};
use crate::scripted::{Stream, key, peer};

async fn resumed(bench: &mut Bench) -> (Running, Stream) {
    let agent = bench.start().await;
    let stream = bench.replica.stream().await;
    stream.welcome(EPOCH, false).await;
    (agent, stream)
}

fn present(stream: &Stream) -> PublicKey {
    PublicKey::try_from(stream.hello.public_key.as_ref()).unwrap()
}

/// Tells the agent that peers know it by `key` from `revision` on.
async fn told(stream: &mut Stream, key: PublicKey, revision: u64, all: &[Bytes]) {
    stream.own_key(key).await;
    stream.commit(revision, false, (vec![], &[]), all).await;
    stream.ack_where(revision, |_| true).await;
}

#[tokio::test]
async fn the_next_key_is_used_from_the_commit_on_that_says_so() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = bench.filled(&[1, 2]).await;
    let before = present(&stream);
    let next = stream.make_key().await;
    assert_eq!(stream.make_key().await, next, "the same is said again");
    assert_eq!(bench.device.observed().public_key, Some(before));

    stream.own_key(next).await;
    stream.heartbeat(5, &[peer(1), peer(2)]).await;
    stream.ack_where(5, |_| true).await;
    assert_eq!(bench.device.observed().public_key, Some(before), "no commit yet");
    // One of the two was spoken with.
    let age = Some(std::time::Duration::from_secs(9));
    bench.device.tamper(|o| o.peers.get_mut(&key(2)).unwrap().last_handshake = age);
    stream.commit(6, false, (vec![], &[]), &[peer(1), peer(2)]).await;
    stream.ack_where(6, |ack| ack.verified_revision == 6).await;
    assert_eq!(bench.device.observed().public_key, Some(next));
    assert_eq!(bench.device.take_greeted(), [key(2)]);
    assert_eq!(agent.status().await.data_plane.public_key, next.to_string());
    drop(stream);

    let stream = bench.replica.stream().await;
    assert_eq!(present(&stream), next);
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_killed_before_it_changed_says_the_same_key_again() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = bench.filled(&[1]).await;
    let (before, next) = (present(&stream), stream.make_key().await);
    agent.stop().await;
    let (agent, mut stream) = resumed(&mut bench).await;
    assert_eq!(present(&stream), before);
    assert_eq!(stream.make_key().await, next);
    // Its peers were told while it was away.
    told(&mut stream, next, 6, &[peer(1)]).await;
    assert_eq!(bench.device.observed().public_key, Some(next));
    agent.stop().await;
}

/// Killed after the device was given the key, and before that was kept: the link tells.
#[tokio::test]
async fn an_agent_killed_after_it_changed_goes_on_with_the_new_key() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = bench.filled(&[1]).await;
    let next = stream.make_key().await;
    let identity = bench.folder.path().join("identity.json");
    let as_it_was = std::fs::read(&identity).unwrap();
    told(&mut stream, next, 6, &[peer(1)]).await;
    agent.stop().await;
    std::fs::write(&identity, as_it_was).unwrap();
    let (agent, stream) = resumed(&mut bench).await;
    assert_eq!(present(&stream), next);
    assert_eq!(bench.device.observed().public_key, Some(next));
    agent.stop().await;
}

/// A state directory, or the store, came back from a backup.
#[tokio::test]
async fn an_agent_that_lost_its_key_asks_for_another_one() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = bench.filled(&[1]).await;
    let before = present(&stream);
    stream.own_key(key(77)).await;
    stream.commit(6, false, (vec![], &[]), &[peer(1)]).await;
    let next = stream.next_key().await;
    assert!(next != before && next != key(77));
    assert_eq!(bench.device.observed().public_key, Some(before), "nobody knows another one yet");
    told(&mut stream, next, 7, &[peer(1)]).await;
    assert_eq!(bench.device.observed().public_key, Some(next));
    agent.stop().await;
}
