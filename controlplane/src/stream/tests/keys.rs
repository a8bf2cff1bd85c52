//! An agent's own WireGuard key: told at the commit at which its peers learn of it, whether or not the
//! agent sees itself; and asked for.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use wattle_proto::sync::{self, sync_request, sync_response::Message};

use super::{
    agent::{Agent, Held},
    world::{PATIENCE, World, entry_of, network},
};
use crate::store::{Transaction, keys};

fn key(seed: u8) -> Bytes {
    Bytes::from(vec![seed; 32])
}

/// Everybody but the node itself would see it. Others' changes in the same batch don't matter.
#[tokio::test]
async fn an_agent_learns_of_its_key_in_the_same_commit_as_its_peers() {
    let world = World::new().await;
    let (web, db) =
        (world.enroll_labelled(&["role=web"]).await, world.enroll_labelled(&["role=db"]).await);
    world.close(&[]).await;
    world.set_policy(1, Some(("role=web", "role=db"))).await;
    let held = Held { public_key: key(web.number), ..Held::new(1) };
    let (mut agent, _) = Agent::connect(&world, &web, held).await;
    let batch = agent.batch_acked().await;
    assert_eq!((batch.entries, batch.own_key), (vec![db.id], None), "it doesn't see itself");
    let mut peer = Agent::joined(&world, &db, 1).await;

    let mut entry = sync::Peer::decode(entry_of(&web, 1)).unwrap();
    entry.next_public_key = key(77);
    let put = |entry: &sync::Peer| {
        Transaction::default().put(keys::peer(&network(), web.id), entry.encode_to_vec().into())
    };
    world.commit(put(&entry)).await;
    assert_eq!(peer.batch_acked().await.entries, [web.id]);
    (entry.public_key, entry.next_public_key) = (key(77), Bytes::new());
    let changed = world.commit(put(&entry)).await;
    let (told, learnt) = (agent.batch_acked().await, peer.batch_acked().await);
    assert_eq!(told.own_key.map(|own| own.public_key), Some(key(77)));
    assert_eq!((told.entries.len(), told.commit.revision), (0, changed.0));
    assert_eq!((learnt.own_key, learnt.commit.revision), (None, changed.0));

    // It has it now, or it hasn't.
    for (has, told) in [(77, None), (5, Some(key(77)))] {
        let held = Held { public_key: key(has), ..agent.cut() };
        agent = Agent::connect(&world, &web, held).await.0;
        world.change(&db, 9000 + u16::from(has)).await;
        let batch = agent.batch_acked().await;
        assert_eq!(batch.own_key.map(|own| own.public_key), told);
    }
}

#[tokio::test]
async fn an_agent_is_asked_for_a_next_key_and_may_ask_by_itself() {
    let world = World::new().await;
    let node = world.enroll().await;
    let mut agent = Agent::joined(&world, &node, 1).await;
    let (sessions, id) = (world.sessions.clone(), node.id);
    let asking = tokio::spawn(async move { sessions.next_key(id, PATIENCE).await });
    let asked = loop {
        match agent.next().await {
            Message::OwnKey(asked) => break asked,
            other => assert!(matches!(other, Message::Heartbeat(_)), "{other:?}"),
        }
    };
    assert!(asked.make_next && asked.public_key.is_empty(), "{asked:?}");
    let next = sync_request::Message::NextKey(sync::NextKey { public_key: key(9) });
    agent.say(next.clone()).await;
    let answer = asking.await.unwrap().unwrap();
    assert_eq!(answer.as_bytes()[..], key(9)[..]);
    assert!(world.sessions.take_key_wishes().is_empty(), "that was an answer");

    agent.say(next).await;
    let mut wishes = world.sessions.take_key_wishes();
    while wishes.is_empty() {
        agent.heartbeat().await;
        wishes = world.sessions.take_key_wishes();
    }
    assert_eq!(wishes, [node.id].into());
    drop(agent);
    assert_eq!(world.sessions.next_key(id, Duration::from_millis(100)).await, None);
}
