//! Joins and resumes: what an agent gets first, next, and after its link was cut.

use bytes::Bytes;
use prost::Message as _;
use wattle_model::{Epoch, Revision};
use wattle_proto::{
    store::Horizon,
    sync::{retry::Reason, sync_request, sync_response::Message},
};

use super::{
    agent::{Agent, Held},
    world::World,
};
use crate::store::{Transaction, keys};

#[tokio::test]
async fn a_join_is_a_full_set_then_changes_come_as_they_are() {
    let world = World::new().await;
    let (a, b) = (world.enroll().await, world.enroll().await);
    let (mut agent, welcome) = Agent::connect(&world, &a, Held::new(1)).await;
    assert!(welcome.full_set);
    assert_eq!(welcome.replica_id, world.replica.id.as_bytes().as_slice());
    let batch = agent.batch_acked().await;
    assert!(batch.commit.full_set);
    assert_eq!(batch.entries.len(), 2, "itself included");
    let config = batch.config.expect("a new agent needs its config");
    assert_eq!((config.node_name.as_str(), config.ipv4.as_ref()), ("node-1", &[10, 90, 0, 1][..]));
    assert_eq!(config.ipv4_range.unwrap().length, 16);
    assert_eq!(config.control_planes, ["127.0.0.1:7443"]);
    assert_eq!(config.ca_certificates.len(), 1);

    let revision = world.change(&b, 2).await;
    let batch = agent.batch_acked().await;
    assert_eq!(batch.entries, [b.id]);
    assert!(!batch.commit.full_set && batch.config.is_none());
    assert_eq!(batch.commit.revision, revision.0);
    world.delete(&b).await;
    let batch = agent.batch_acked().await;
    assert_eq!((batch.entries.len(), batch.removed), (0, vec![b.id]));
    assert_eq!(world.sessions.full_sets(), [("first", 1)].into());
}

#[tokio::test]
async fn a_resume_brings_what_was_missed_and_nothing_else() {
    let world = World::new().await;
    let (a, b, c) = (world.enroll().await, world.enroll().await, world.enroll().await);
    let held = Agent::joined(&world, &a, 1).await.cut();

    // Nothing was missed: a heartbeat says so at once.
    let (mut agent, welcome) = Agent::connect(&world, &a, held).await;
    assert!(!welcome.full_set);
    agent.heartbeat().await;
    let held = agent.cut();

    world.change(&b, 2).await;
    world.delete(&c).await;
    let d = world.enroll().await;
    let (mut agent, welcome) = Agent::connect(&world, &a, held.clone()).await;
    assert!(!welcome.full_set);
    let batch = agent.batch().await;
    assert_eq!((batch.entries.clone(), batch.removed.clone()), (vec![b.id, d.id], vec![c.id]));
    assert!(batch.config.is_none(), "it has that");
    drop(agent);

    // The commit was never acked and the stage dropped: all of it comes again, on any replica.
    let world = world.restarted().await;
    let (mut agent, _) = Agent::connect(&world, &a, held).await;
    let again = agent.batch().await;
    assert_eq!((again.entries, again.removed), (batch.entries, batch.removed));
    assert_eq!(world.sessions.full_sets(), [].into(), "none during a restart");
}

#[tokio::test]
async fn a_full_set_comes_in_pages_of_64_kib() {
    let world = World::new().await;
    let a = world.enroll().await;
    world.crowd(600).await;
    let mut agent = Agent::joined(&world, &a, 1).await;
    assert_eq!(agent.held.entries.len(), 601);
    // And what is gone in the meantime is gone, though it comes as a difference.
    let held = Held { epoch: Some(Epoch::new([5; 16])), ..agent.held.clone() };
    agent.held = held;
    let held = agent.cut();
    let (mut agent, welcome) = Agent::connect(&world, &a, held).await;
    assert!(welcome.full_set);
    let batch = agent.batch_acked().await;
    assert!(batch.frames > 3, "{} frames", batch.frames);
    assert_eq!(agent.held.entries.len(), 601);
    assert_eq!(world.sessions.full_sets(), [("first", 1), ("other-epoch", 1)].into());
}

/// Somebody restored the store, or another replica found it set back.
#[tokio::test]
async fn another_epoch_ends_streams_and_brings_full_sets() {
    let world = World::new().await;
    let (a, b) = (world.enroll().await, world.enroll().await);
    let (mut one, mut two) =
        (Agent::joined(&world, &a, 1).await, Agent::joined(&world, &b, 2).await);
    world.set_epoch([7; 16]).await;
    for agent in [&mut one, &mut two] {
        let retry = loop {
            match agent.next().await {
                Message::Retry(retry) => break retry,
                Message::Frame(_) | Message::Heartbeat(_) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(retry.reason(), Reason::Behind);
        assert_eq!(agent.end().await.code(), tonic::Code::Ok);
    }
    let held = one.cut();
    let (mut one, welcome) = Agent::connect(&world, &a, held).await;
    assert!(welcome.full_set);
    assert_eq!(welcome.epoch, [7; 16].as_slice());
    assert!(one.batch_acked().await.commit.full_set);
    assert_eq!(world.sessions.full_sets(), [("first", 2), ("other-epoch", 1)].into());
    // Nobody's stream ends for the same epoch put again.
    world.set_epoch([7; 16]).await;
    one.heartbeat().await;
}

#[tokio::test]
async fn a_wrong_digest_at_head_is_a_full_set() {
    let world = World::new().await;
    let (a, b) = (world.enroll().await, world.enroll().await);
    let mut held = Agent::joined(&world, &a, 1).await.cut();
    held.entries.remove(&b.id);
    let (mut agent, welcome) = Agent::connect(&world, &a, held).await;
    assert!(welcome.full_set);
    assert_eq!(agent.batch().await.entries.len(), 2);
    assert_eq!(world.sessions.full_sets().get("wrong-digest"), Some(&1));
}

#[tokio::test]
async fn an_agent_ahead_of_the_store_gets_a_full_set_alone() {
    let world = World::new().await;
    let a = world.enroll().await;
    let mut held = Agent::joined(&world, &a, 1).await.cut();
    held.revision = Revision(1_000_000);
    let (mut agent, welcome) = Agent::connect(&world, &a, held).await;
    assert!(welcome.full_set);
    let batch = agent.batch_acked().await;
    assert!(batch.commit.full_set && batch.commit.revision < 1_000_000);
    assert_eq!(world.sessions.full_sets().get("store-behind"), Some(&1));
}

#[tokio::test]
async fn an_agent_below_the_horizon_gets_a_full_set() {
    let world = World::new().await;
    let a = world.enroll().await;
    let held = Agent::joined(&world, &a, 1).await.cut();
    let b = world.enroll().await;
    let horizon = Horizon { revision: world.live.read().head().0, marks: Vec::new() };
    let put = Transaction::default().put(keys::horizon(), horizon.encode_to_vec().into());
    world.commit(put).await;
    let (mut agent, welcome) = Agent::connect(&world, &a, held).await;
    assert!(welcome.full_set);
    assert!(agent.batch_acked().await.entries.contains(&b.id));
    assert_eq!(world.sessions.full_sets().get("below-horizon"), Some(&1));
}

#[tokio::test]
async fn a_stream_begins_with_a_hello_that_can_be_read() {
    let world = World::new().await;
    let a = world.enroll().await;
    let mut agent = Agent::open(&world, &a, Held::new(1)).await;
    agent.say(sync_request::Message::Resync(Default::default())).await;
    let status = agent.end().await;
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert!(status.message().starts_with("message: "), "{status}");

    let mut agent = Agent::open(&world, &a, Held::new(1)).await;
    let mut hello = agent.held.hello();
    hello.instance = Bytes::from_static(b"short");
    agent.say(sync_request::Message::Hello(hello)).await;
    let status = agent.end().await;
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert!(status.message().starts_with("hello.instance: "), "{status}");
    assert_eq!(world.sessions.online(), 0);
}

#[tokio::test]
async fn a_node_that_the_view_does_not_know_yet_comes_again() {
    let world = World::new().await;
    let stranger = world.enroll_unseen().await;
    let mut agent = Agent::open(&world, &stranger, Held::new(1)).await;
    agent.say(sync_request::Message::Hello(agent.held.hello())).await;
    match agent.next().await {
        Message::Retry(retry) => assert_eq!(retry.reason(), Reason::Behind),
        other => panic!("{other:?}"),
    }
    assert_eq!(agent.end().await.code(), tonic::Code::Ok);
}
