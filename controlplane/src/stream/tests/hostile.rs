//! An agent that means harm: it has a good certificate, and does what no honest agent does. What it
//! may cost is bounded, and nobody else notices.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use wattle_proto::sync::sync_request;

use super::{
    agent::{Agent, Held},
    world::World,
};

const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_thousand_streams_of_one_agent_are_one() {
    let world = World::new().await;
    let (bad, good) = (world.enroll().await, world.enroll().await);
    let mut other = Agent::joined(&world, &good, 1).await;
    let mut open = Vec::new();
    for _ in 0..1000 {
        // All but a few connections are refused, before or after the call.
        let Ok(mut agent) = Agent::try_open(&world, &bad, Held::new(2)).await else { continue };
        agent.say(sync_request::Message::Hello(agent.held.hello())).await;
        open.push(agent);
    }
    assert!((1..=16).contains(&open.len()), "{} connections of one node", open.len());
    assert!(world.sessions.online() <= 2);
    let revision = world.change(&good, 9).await;
    let batch = timeout(SOON, other.batch_acked()).await.unwrap();
    assert_eq!(batch.commit.revision, revision.0);
    let streams = open.len();
    let mut ended = 0;
    for agent in &mut open[..streams - 1] {
        ended += u32::from(timeout(SOON, agent.end()).await.is_ok());
    }
    assert_eq!(ended as usize, streams - 1, "the last one has replaced all others");
}

#[tokio::test]
async fn a_flood_of_acks_is_read_slowly_and_delays_nobody() {
    let world = World::new().await;
    let (bad, good) = (world.enroll().await, world.enroll().await);
    let mut flooding = Agent::joined(&world, &bad, 1).await;
    let mut other = Agent::joined(&world, &good, 2).await;
    let ack = flooding.an_ack();
    let begun = Instant::now();
    let mut said = 0_u32;
    while begun.elapsed() < Duration::from_secs(3) {
        let say = flooding.say(sync_request::Message::Ack(ack.clone()));
        // Once HTTP/2's window is full nothing more can be said.
        if timeout(Duration::from_millis(500), say).await.is_err() {
            break;
        }
        said += 1;
        if said % 1000 == 1 {
            let revision = world.change(&good, 1000 + (said / 1000) as u16).await;
            let batch = timeout(SOON, other.batch_acked()).await.unwrap();
            assert_eq!(batch.commit.revision, revision.0);
        }
    }
    assert_eq!(world.sessions.online(), 2);
    // A window of 64 KiB, what the client keeps, and what is read in three seconds.
    assert!(said < 6_000, "{said} acks were taken");
}
