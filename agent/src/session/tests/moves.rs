//! From replica to replica: Retry, Drain, silence, and what the agent does meanwhile.

use std::time::Duration;

use tonic::Status;
use wattle_model::Revision;
use wattle_proto::sync::retry::Reason;

use super::bench::{Bench, EPOCH};
use crate::scripted::{Authority, Replica, Stream, digest_of, has, key, peer};

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

/// The store was set back: of what the agent holds, and has verified, the new stream knows nothing.
#[tokio::test]
async fn nothing_is_said_of_a_set_that_the_stream_does_not_know() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let mut stream = bench.filled(&[1]).await;
    stream.ack_where(5, |ack| ack.verified_revision == 5).await;
    drop(stream);
    let mut stream = bench.replica.stream().await;
    stream.welcome(EPOCH, true).await;
    // Longer than an ack that is owed would wait.
    let ack = tokio::time::timeout(Duration::from_millis(2500), stream.ack()).await;
    assert!(ack.is_err(), "{ack:?}");
    stream.commit(3, true, (vec![peer(2)], &[]), &[peer(2)]).await;
    let ack = stream.ack().await;
    assert_eq!((ack.revision, ack.verified_revision <= 3), (3, true), "{ack:?}");
    agent.stop().await;
}

#[tokio::test]
async fn a_node_that_nobody_knows_keeps_its_mesh_and_says_so() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    drop(bench.filled(&[1]).await);
    for _ in 0..2 {
        let mut status = tonic::Status::permission_denied("no such node");
        status.metadata_mut().insert("wattle-reason", "unknown".parse().unwrap());
        bench.replica.stream().await.fail(status).await;
    }
    let status = agent.status_where(|status| status.session.state == "unknown").await;
    assert!(status.session.error.unwrap().contains("leave --force"));
    assert_eq!(bench.peers(), [key(1)]);
    let _stream = bench.filled(&[1]).await;
    agent.status_where(|status| status.session.state == "connected").await;
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

/// Behind one address may be several replicas: the agent looks there, too, before it leaves.
#[tokio::test]
async fn a_drained_stream_is_replaced_through_the_only_address_there_is() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let first = bench.filled(&[1]).await;
    first.drain(10_000).await;
    let mut second = bench.replica.stream().await;
    assert_eq!(has(&second.hello).1, Revision(5));
    assert!(first.is_open(), "left before the next one was there");
    assert_eq!((first.hello.stream, second.hello.stream), (1, 2), "the agent counts its streams");
    second.welcome(EPOCH, false).await;
    first.closed().await;
    second.commit(6, false, (vec![peer(2)], &[]), &[peer(1), peer(2)]).await;
    second.ack_where(6, |_| true).await;
    agent.stop().await;
}

#[tokio::test]
async fn a_drained_agent_goes_where_it_is_sent() {
    let mut others = Vec::new();
    let authority = Authority::new();
    for _ in 0..4 {
        others.push(Replica::start(&authority).await);
    }
    let mut bench = Bench::with_others(&others.iter().collect::<Vec<_>>()).await;
    others.push(std::mem::replace(&mut bench.replica, Replica::start(&authority).await));
    let agent = bench.start().await;
    let (first, at) = any_stream(&mut others).await;
    first.welcome(EPOCH, true).await;
    first.commit(5, true, (vec![peer(1)], &[]), &[peer(1)]).await;
    let to = (at + 3) % others.len();
    first.drain_to(10_000, &[&others[to].address]).await;
    let second = others[to].stream().await;
    second.welcome(EPOCH, false).await;
    first.closed().await;
    agent.stop().await;
}

/// The next stream, and which replica it came to.
async fn any_stream(replicas: &mut [Replica]) -> (Stream, usize) {
    let streams = replicas.iter_mut().map(|replica| Box::pin(replica.stream()));
    let (stream, at, _) = futures::future::select_all(streams).await;
    (stream, at)
}

/// A replica that stops takes no streams, and behind a name the next attempt may find another one.
#[tokio::test]
async fn an_agent_that_is_to_leave_asks_again_until_somebody_takes_it() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let first = bench.filled(&[1]).await;
    first.drain(10_000).await;
    for _ in 0..2 {
        bench.replica.stream().await.fail(Status::unavailable("it is stopping")).await;
    }
    let second = bench.replica.stream().await;
    assert!(first.is_open());
    second.welcome(EPOCH, false).await;
    first.closed().await;
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
    bench.replica.stream().await.fail(Status::unavailable("it is stopping")).await;
    stream.commit(6, false, (vec![peer(3)], &[]), &[peer(1), peer(2), peer(3)]).await;
    stream.ack_where(6, |_| true).await;
    assert_eq!(bench.peers(), [key(1), key(2), key(3)]);
    assert_eq!(agent.status().await.session.resyncs, 0);
    agent.stop().await;
}

/// A second one may come much later, and counts as well.
#[tokio::test]
async fn a_drain_that_nobody_could_follow_is_not_the_last() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let stream = bench.filled(&[1]).await;
    stream.drain(200).await;
    bench.replica.stream().await.fail(Status::unavailable("full")).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    stream.drain(10_000).await;
    bench.replica.stream().await.welcome(EPOCH, false).await;
    stream.closed().await;
    agent.stop().await;
}

/// One of three is gone for good: whoever comes upon it goes on to the next at once.
#[tokio::test]
async fn a_lost_agent_has_another_replica_within_seconds() {
    let authority = Authority::new();
    let mut other = Replica::start(&authority).await;
    let gone = Replica::start(&authority).await;
    let mut bench = Bench::with_others(&[&gone, &other]).await;
    drop(gone);
    let agent = bench.start().await;
    for _ in 0..4 {
        let began = tokio::time::Instant::now();
        let stream = tokio::select! {
            stream = bench.replica.stream() => stream,
            stream = other.stream() => stream,
        };
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        stream.welcome(EPOCH, true).await;
        stream.fail(Status::unavailable("killed")).await;
    }
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
