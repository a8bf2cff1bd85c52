//! From replica to replica: Retry, Drain, silence, and what the agent does meanwhile.

use std::time::Duration;

use wattle_model::Revision;
use wattle_proto::sync::retry::Reason;

use super::bench::{Bench, EPOCH};
use crate::scripted::{Authority, Replica, digest_of, has, key, peer};

#[tokio::test]
async fn a_stale_replica_is_accepted_only_after_all_were_tried() {
    let mut other = Replica::start(&Authority::new()).await;
    let mut bench = Bench::with_others(&[&other]).await;
    let agent = bench.start().await;
    // The agent begins at either one.
    for turn in 0..2 {
        let stream = tokio::select! {
            stream = bench.replica.stream() => stream,
            stream = other.stream() => stream,
        };
        assert!(!stream.hello.accept_stale, "turn {turn}");
        stream.retry(Reason::Stale, 1).await;
    }
    let stream = tokio::select! {
        stream = bench.replica.stream() => stream,
        stream = other.stream() => stream,
    };
    assert!(stream.hello.accept_stale);
    agent.stop().await;
}

#[tokio::test]
async fn retry_waits_as_long_as_it_is_told() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let stream = bench.replica.stream().await;
    stream.retry(Reason::Busy, 700).await;
    bench.replica.expect_nobody(Duration::from_millis(650)).await;
    bench.replica.stream().await;
    agent.stop().await;
}

#[tokio::test]
async fn a_displaced_agent_waits_and_says_why() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let stream = bench.filled(&[1]).await;
    stream.retry(Reason::Displaced, 1).await;
    let status = agent.status_where(|status| status.session.state == "displaced").await;
    assert!(status.session.error.unwrap().contains("another machine"));
    let refused = agent.leave(false).await;
    assert!(refused.contains("delete the node for both"), "{refused}");
    bench.replica.expect_nobody(Duration::from_secs(3)).await;
    assert_eq!(bench.peers(), [key(1)], "the mesh stays");
    agent.stop().await;
}

#[tokio::test]
async fn a_drained_stream_is_left_after_the_next_one_is_there() {
    let mut other = Replica::start(&Authority::new()).await;
    let mut bench = Bench::with_others(&[&other]).await;
    let agent = bench.start().await;
    let (mut first, elsewhere) = tokio::select! {
        stream = bench.replica.stream() => (stream, &mut other),
        stream = other.stream() => (stream, &mut bench.replica),
    };
    first.welcome(EPOCH, true).await;
    first.commit(5, true, (vec![peer(1)], &[]), &[peer(1)]).await;
    first.ack_where(5, |_| true).await;
    first.drain(10_000).await;

    let mut second = elsewhere.stream().await;
    assert_eq!(has(&second.hello), (Some(EPOCH), Revision(5), digest_of(&[peer(1)])));
    assert!(first.is_open(), "left before the next one was there");
    second.welcome(EPOCH, false).await;
    first.closed().await;
    second.commit(6, false, (vec![peer(2)], &[]), &[peer(1), peer(2)]).await;
    second.ack_where(6, |_| true).await;
    assert_eq!(agent.status().await.session.full_sets, 1);
    agent.stop().await;
}

/// With nowhere to go, a draining stream is good to its end; not even a batch begun before is lost.
#[tokio::test]
async fn a_drained_stream_without_another_is_followed_on() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = bench.filled(&[1]).await;
    stream.frame(vec![peer(2)], &[]).await;
    stream.drain(1_000).await;
    stream.commit(6, false, (vec![peer(3)], &[]), &[peer(1), peer(2), peer(3)]).await;
    stream.ack_where(6, |_| true).await;
    assert_eq!(bench.peers(), [key(1), key(2), key(3)]);
    assert_eq!(agent.status().await.session.resyncs, 0);
    agent.stop().await;
}

#[tokio::test]
async fn three_missed_heartbeats_end_a_stream() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let silent = bench.replica.stream().await;
    silent.welcome_with(EPOCH, true, 100).await;
    bench.replica.stream().await;
    silent.closed().await;
    agent.stop().await;
}
