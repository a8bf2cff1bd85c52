//! Batches of several pages: changed under way, cut anywhere, or overtaken by a resync.

use wattle_proto::sync::{self, sync_request, sync_response::Message};

use super::{
    agent::{Agent, Held},
    world::World,
};

/// Enough for more pages than a stream's window holds.
const CROWD: u16 = 6000;

#[tokio::test]
async fn what_changes_behind_a_batch_comes_again_at_its_tail() {
    let world = World::new().await;
    let (a, b, c) = (world.enroll().await, world.enroll().await, world.enroll().await);
    world.crowd(CROWD).await;
    // The full set has begun, and waits for its reader after the oldest entries: those of b and c.
    let (mut agent, _) = Agent::connect(&world, &a, Held::new(1)).await;
    assert!(matches!(agent.next().await, Message::Config(_)));
    let Message::Frame(first) = agent.next().await else { panic!("no frame") };
    assert!(first.commit.is_none());
    world.change(&b, 9).await;
    world.delete(&c).await;
    let d = world.enroll().await;
    // `batch_after` holds the digest against what the frames made together.
    let batch = agent.batch_after(vec![first]).await;
    assert_eq!(batch.entries.iter().filter(|node| **node == b.id).count(), 2, "old, then new");
    assert_eq!(batch.removed, [c.id], "it was sent");
    assert!(batch.entries.contains(&d.id));
    assert_eq!(agent.held.entries.len(), usize::from(CROWD) + 3);
    assert_eq!(batch.commit.revision, world.live.read().head().0);
    agent.ack().await;
}

#[tokio::test]
async fn a_batch_cut_anywhere_comes_again_whole() {
    let world = World::new().await;
    let a = world.enroll().await;
    let held = Agent::joined(&world, &a, 1).await.cut();
    world.crowd(CROWD).await;
    for frames in [0, 1, 2, 4] {
        let (mut agent, welcome) = Agent::connect(&world, &a, held.clone()).await;
        assert!(!welcome.full_set);
        for _ in 0..frames {
            let Message::Frame(frame) = agent.next().await else { panic!("no frame") };
            assert!(frame.commit.is_none());
        }
        // The stage goes with the stream.
        agent.cut();
    }
    let (mut agent, _) = Agent::connect(&world, &a, held).await;
    let batch = agent.batch_acked().await;
    assert!(!batch.commit.full_set && batch.frames > 4);
    assert_eq!(agent.held.entries.len(), usize::from(CROWD) + 1);
    assert_eq!(world.sessions.full_sets(), [("first", 1)].into());
}

#[tokio::test]
async fn a_resync_within_a_batch_lets_it_end_first() {
    let world = World::new().await;
    let a = world.enroll().await;
    let held = Agent::joined(&world, &a, 1).await.cut();
    let joined_at = held.revision;
    world.crowd(CROWD).await;
    let (mut agent, _) = Agent::connect(&world, &a, held).await;
    let Message::Frame(first) = agent.next().await else { panic!("no frame") };
    assert!(first.commit.is_none());
    let resync = sync::Resync { revision: joined_at.0 };
    agent.say(sync_request::Message::Resync(resync)).await;
    assert!(!agent.batch_after(vec![first]).await.commit.full_set);
    agent.ack().await;
    let batch = agent.batch_acked().await;
    assert!(batch.commit.full_set);
    assert_eq!(batch.entries.len(), usize::from(CROWD) + 1);
}
