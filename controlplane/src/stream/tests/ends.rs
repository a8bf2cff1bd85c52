//! How streams end: replaced, displaced, removed, drained.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;
use wattle_proto::sync::{retry::Reason, sync_response::Message};

use super::{
    agent::{Agent, Held},
    flow::eventually,
    world::World,
};

#[tokio::test]
async fn the_same_agent_replaces_its_old_stream() {
    let world = World::new().await;
    let (a, b) = (world.enroll().await, world.enroll().await);
    let mut old = Agent::joined(&world, &a, 1).await;
    let (mut new, _) = Agent::connect(&world, &a, old.held.clone()).await;
    assert_eq!(old.end().await.code(), Code::Ok, "silently");
    drop(old);
    // The end of the old one doesn't touch the new one.
    new.heartbeat().await;
    let info = world.sessions.info(a.id).unwrap();
    assert!(info.online && !info.displaced);
    assert_eq!((world.sessions.online(), world.sessions.counts().displaced()), (1, 0));
    world.change(&b, 2).await;
    assert_eq!(new.batch_acked().await.entries, [b.id]);
}

/// The loser comes back after its wait and wins in its turn: the same happens to the other, the
/// node is online throughout, and is shown as displaced.
#[tokio::test]
async fn two_machines_with_one_identity_displace_each_other() {
    let world = World::new().await;
    let a = world.enroll().await;
    let mut holder = Agent::joined(&world, &a, 1).await;
    assert!(!world.sessions.info(a.id).unwrap().displaced);
    for (count, instance) in [(1, 2), (2, 1), (3, 2)] {
        let mut winner = Agent::joined(&world, &a, instance).await;
        is_displaced(&mut holder).await;
        drop(holder);
        winner.heartbeat().await;
        let info = world.sessions.info(a.id).unwrap();
        assert!(info.online && info.displaced);
        assert_eq!((info.instance, world.sessions.online()), (winner.held.instance, 1));
        assert_eq!(world.sessions.counts().displaced(), count);
        holder = winner;
    }
}

async fn is_displaced(loser: &mut Agent) {
    loop {
        match loser.next().await {
            Message::Heartbeat(_) => {}
            Message::Retry(retry) => {
                assert_eq!(retry.reason(), Reason::Displaced);
                assert!(retry.after_millis >= 60_000);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(loser.end().await.code(), Code::Ok);
}

#[tokio::test]
async fn a_deleted_node_is_told() {
    let world = World::new().await;
    let (a, b) = (world.enroll().await, world.enroll().await);
    let mut agent = Agent::joined(&world, &a, 1).await;
    let mut other = Agent::joined(&world, &b, 2).await;
    world.delete(&a).await;
    loop {
        match agent.next().await {
            Message::Heartbeat(_) => {}
            Message::Removed(_) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(agent.end().await.code(), Code::Ok);
    assert_eq!(other.batch_acked().await.removed, [a.id]);
    eventually(|| world.sessions.online() == 1).await;
    // The registry forgets it.
    eventually(|| world.sessions.info(a.id).is_none()).await;
    // Who comes after its deletion is told at the door.
    let refused = Agent::try_open(&world, &a, Held::new(1)).await.err().unwrap();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(refused.metadata().get("wattle-reason").unwrap(), "removed");
}

#[tokio::test]
async fn a_drain_tells_every_agent_a_moment_of_its_own_then_cuts() {
    let world = World::new().await;
    let mut agents = Vec::new();
    for n in 0..8 {
        let node = world.enroll().await;
        agents.push(Agent::joined(&world, &node, n).await);
    }
    // Those who joined later are news for those who joined before.
    let began = Instant::now();
    world.shutdown.begin();
    let mut deadlines = Vec::new();
    for agent in &mut agents {
        loop {
            match agent.next().await {
                Message::Drain(drain) => break deadlines.push(drain.deadline_millis),
                Message::Heartbeat(_) | Message::Frame(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(deadlines.iter().all(|d| *d <= 2000), "{deadlines:?}");
    deadlines.dedup();
    assert!(deadlines.len() > 1, "all at once: {deadlines:?}");
    for agent in &mut agents {
        let status = agent.end().await;
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    }
    assert!(began.elapsed() >= Duration::from_millis(900), "cut before its time");
    eventually(|| world.sessions.online() == 0).await;
    let drained = world.shutdown.drain(Duration::from_secs(5)).await;
    assert_eq!(drained, wattle_runtime::shutdown::Drained::All);
}
