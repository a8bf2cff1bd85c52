//! Waiting until everybody has applied a revision.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use wattle_proto::sync::{self, sync_request, sync_response::Message};

use super::{agent::Agent, flow::eventually, world::World};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(15);

#[tokio::test]
async fn a_wait_tells_applied_pending_rejected_and_offline_apart() {
    let world = World::new().await;
    let (a, b, c, d) =
        (world.enroll().await, world.enroll().await, world.enroll().await, world.enroll().await);
    let mut applies = Agent::joined(&world, &a, 1).await;
    let mut rejects = Agent::joined(&world, &b, 2).await;
    let mut waits = Agent::joined(&world, &c, 3).await;
    let gone = Agent::joined(&world, &d, 4).await;
    drop(gone);
    eventually(|| world.sessions.online() == 3).await;
    let revision = world.change(&a, 9).await;
    applies.batch_acked().await;
    rejects.batch().await;
    waits.batch().await;
    let rejected = sync::Rejection {
        node_id: Bytes::copy_from_slice(a.id.as_bytes()),
        reason: "no route".to_owned(),
    };
    let ack = sync::Ack { rejected: vec![rejected], ..rejects.an_ack() };
    rejects.say(sync_request::Message::Ack(ack)).await;

    let progress = world.sessions.wait_applied(revision, SHORT).await;
    let ids = |list: &[crate::stream::Lagging]| list.iter().map(|l| l.node).collect::<Vec<_>>();
    assert!(progress.indexed);
    assert_eq!(progress.applied.iter().map(|done| done.node).collect::<Vec<_>>(), [a.id]);
    assert!(progress.applied[0].after.is_some_and(|after| after < LONG));
    assert_eq!(ids(&progress.rejected), [b.id]);
    assert!(progress.rejected[0].reason.ends_with("no route"));
    assert_eq!(ids(&progress.pending), [c.id]);
    assert_eq!(ids(&progress.offline), [d.id]);
    let seen = world.sessions.progress(revision);
    assert_eq!(seen.applied.len(), 1);
    assert_eq!((ids(&seen.pending), ids(&seen.offline)), (vec![c.id], vec![d.id]));

    // A disconnect ends the wait; it is never taken for "applied".
    let sessions = world.sessions.clone();
    let wait = tokio::spawn(async move { sessions.wait_applied(revision, LONG).await });
    tokio::task::yield_now().await;
    drop(waits);
    let progress = wait.await.unwrap();
    assert_eq!((progress.applied.len(), progress.offline.len()), (1, 2));
}

#[tokio::test]
async fn somebody_who_waits_asks_for_acks() {
    let world = World::new().await;
    let (a, b) = (world.enroll().await, world.enroll().await);
    let mut agent = Agent::joined(&world, &a, 1).await;
    let revision = world.change(&b, 2).await;
    // Sent before anybody waits, and applied, and not acked: a heartbeat asks.
    assert!(!agent.batch().await.commit.ack_wanted);
    // Whoever only looks asks nobody, and what isn't acked isn't applied.
    assert_eq!(world.sessions.progress(revision).pending.len(), 1);
    let asked = tokio::time::timeout(SHORT, agent.next()).await;
    assert!(!matches!(asked, Ok(Message::Heartbeat(beat)) if beat.ack_wanted));
    let sessions = Arc::new(world.sessions.clone());
    let waiting = Arc::clone(&sessions);
    let wait = tokio::spawn(async move { waiting.wait_applied(revision, LONG).await });
    loop {
        match agent.next().await {
            Message::Heartbeat(heartbeat) if heartbeat.ack_wanted => break,
            Message::Heartbeat(_) => {}
            other => panic!("{other:?}"),
        }
    }
    // Whatever is committed while somebody waits asks, too.
    world.change(&b, 3).await;
    assert!(agent.batch().await.commit.ack_wanted);
    agent.ack().await;
    let progress = wait.await.unwrap();
    assert_eq!(progress.applied.len(), 1, "{progress:?}");
    assert_eq!(progress.offline.len(), 1, "b was never connected: {progress:?}");
}

#[tokio::test]
async fn a_revision_that_concerns_nobody_is_applied_and_one_to_come_is_unknown() {
    let world = World::new().await;
    let a = world.enroll().await;
    let agent = Agent::joined(&world, &a, 1).await;
    let revision = world.unrelated().await;
    let progress = world.sessions.wait_applied(revision, LONG).await;
    assert!(progress.indexed && progress.pending.is_empty());
    let progress = world.sessions.wait_applied(revision.next(), SHORT).await;
    assert!(!progress.indexed);
    drop(agent);
}
