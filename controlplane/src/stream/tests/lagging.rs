//! A replica that is behind its store, or can't see it, and agents that have seen more.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use wattle_proto::sync::{retry::Reason, sync_request, sync_response::Message};

use super::{
    agent::{Agent, Held},
    flow::eventually,
    veil::Sight,
    world::{Node, World},
};

#[tokio::test]
async fn who_has_seen_more_waits_for_the_view_and_goes_on() {
    let world = World::new().await;
    let (a, b) = (world.enroll().await, world.enroll().await);
    let mut held = Agent::joined(&world, &a, 1).await.cut();
    // Another replica has shown it a change that this one hasn't read.
    world.veil.set(Sight::Late);
    held.revision = world.change_unseen(&b, 2).await;
    held.entries.insert(b.id, super::world::entry_of(&b, 2));
    let open = async {
        let (mut agent, welcome) = Agent::connect(&world, &a, held).await;
        assert!(!welcome.full_set);
        agent.heartbeat().await;
    };
    let lift = async {
        sleep(Duration::from_millis(300)).await;
        world.veil.set(Sight::Clear);
    };
    tokio::join!(open, lift);
    assert_eq!(world.sessions.full_sets(), [("first", 1)].into());
}

#[tokio::test]
async fn a_view_that_stays_behind_sends_the_agent_elsewhere() {
    let world = World::new().await;
    let (a, b) = (world.enroll().await, world.enroll().await);
    let mut held = Agent::joined(&world, &a, 1).await.cut();
    world.veil.set(Sight::Late);
    held.revision = world.change_unseen(&b, 2).await;
    let began = Instant::now();
    assert_eq!(refused(&world, &a, held, false).await, Reason::Behind);
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(2) && waited < Duration::from_secs(6), "{waited:?}");
}

#[tokio::test]
async fn a_stale_replica_resumes_and_gives_full_sets_only_when_begged() {
    let world = World::new().await;
    let a = world.enroll().await;
    let agent = Agent::joined(&world, &a, 1).await;
    world.veil.set(Sight::Gone);
    eventually(|| world.live.is_stale()).await;
    let held = agent.cut();
    assert_eq!(refused(&world, &a, Held::new(1), false).await, Reason::Stale);
    // Who is ahead can't be told from who is lost.
    let ahead = Held { revision: held.revision.next(), ..held.clone() };
    assert_eq!(refused(&world, &a, ahead, true).await, Reason::Stale);
    let (mut agent, welcome) = Agent::connect(&world, &a, held).await;
    assert!(!welcome.full_set);
    agent.heartbeat().await;
    let mut desperate = Agent::open(&world, &a, Held::new(1)).await;
    let mut hello = desperate.held.hello();
    hello.accept_stale = true;
    desperate.say(sync_request::Message::Hello(hello)).await;
    assert!(matches!(desperate.next().await, Message::Welcome(welcome) if welcome.full_set));
    assert_eq!(desperate.batch().await.entries, [a.id]);
}

#[tokio::test]
async fn a_replica_that_has_not_listed_everything_serves_nobody() {
    let world = World::unready().await;
    let a = world.enroll_unseen().await;
    assert_eq!(refused(&world, &a, Held::new(1), true).await, Reason::Behind);
    assert_eq!(world.sessions.full_sets(), [].into());
}

/// Says hello and is told to come again; why?
async fn refused(world: &World, node: &Node, held: Held, accept_stale: bool) -> Reason {
    let mut agent = Agent::open(world, node, held).await;
    let hello = wattle_proto::sync::Hello { accept_stale, ..agent.held.hello() };
    agent.say(sync_request::Message::Hello(hello)).await;
    let Message::Retry(retry) = agent.next().await else { panic!("no retry") };
    assert_eq!(agent.end().await.code(), tonic::Code::Ok);
    retry.reason()
}
