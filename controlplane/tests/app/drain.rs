//! The three beats: nobody new, time to leave, the cut.

use std::time::Duration;

use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};
use tonic::{Code, Streaming, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient};

use crate::{
    Running, folder,
    replicas::{Three, light::Light},
    start,
};

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

/// A stream that the server ends by itself never.
async fn endless(channel: Channel) -> Streaming<HealthCheckResponse> {
    let request = HealthCheckRequest::default();
    let mut stream = HealthClient::new(channel).watch(request).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().status, SERVING);
    stream
}

/// Waits until the first beat has reached the client.
async fn begins(running: &Running, stream: &mut Streaming<HealthCheckResponse>) {
    running.shutdown.begin();
    assert_eq!(stream.message().await.unwrap().unwrap().status, NOT_SERVING);
}

#[tokio::test]
async fn newcomers_are_refused_while_streams_go_on_and_then_are_cut() {
    let folder = folder();
    let running = start(folder.path()).await;
    let mut stream = endless(running.anonymous().await).await;
    let began = Instant::now();
    begins(&running, &mut stream).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(TcpStream::connect(&running.address).await.is_err(), "nobody new is accepted");
    assert!(!running.task.is_finished(), "the stream is still there");
    let end = stream.message().await;
    let after = began.elapsed();
    assert!(end.is_err(), "cut in the middle: {end:?}");
    assert!(after > Duration::from_millis(1900), "it had its grace: {after:?}");
    running.task.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(4));
}

/// A load balancer that asks while a replica stops hears that it isn't ready, and an agent that comes
/// through it is told to look elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_stops_says_so_to_newcomers_where_there_is_another_one() {
    let three = Three::start().await;
    let mut agent = Light::join(&three.token, "one", &three.replicas[0]).await;
    agent.reach(agent.made.revision).await;
    let leaving = &three.replicas[0];
    leaving.shutdown.begin();
    sleep(Duration::from_millis(300)).await;
    let mut health = HealthClient::new(leaving.anonymous().await);
    let answer = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.status, NOT_SERVING);
    let refused = agent.try_reconnect(leaving).await.err().expect("it takes nobody");
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(agent.drained().await.deadline_millis <= 2000);
    drop(agent.reconnect(&three.replicas[1]).await);
    sleep(Duration::from_millis(1200)).await;
    assert!(TcpStream::connect(&leaving.address).await.is_err(), "the notice is over");
    assert_eq!(agent.full_sets, 1);
    three.stop().await;
}

#[tokio::test]
async fn streams_that_leave_end_the_drain_early() {
    let folder = folder();
    let running = start(folder.path()).await;
    let mut stream = endless(running.anonymous().await).await;
    let began = Instant::now();
    begins(&running, &mut stream).await;
    drop(stream);
    running.task.await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
}
