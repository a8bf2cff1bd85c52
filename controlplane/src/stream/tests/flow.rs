//! What flows while nothing is wrong: shared pages, heartbeats, config; and what a reader that
//! stands still costs, and what it costs others.

use std::{net::SocketAddr, time::Duration};

use tokio::time::{Instant, sleep};
use wattle_model::{Endpoint, Revision};
use wattle_proto::{
    entry,
    sync::{self, sync_request, sync_response::Message},
};

use super::{
    super::admission::{PLACES, Turn},
    agent::{Agent, Held},
    world::{PATIENCE, World},
};

#[tokio::test]
async fn a_change_is_encoded_once_for_fifty_agents() {
    let world = World::new().await;
    let mut nodes = Vec::new();
    for _ in 0..50 {
        nodes.push(world.enroll().await);
    }
    let mut agents = Vec::new();
    for node in &nodes {
        agents.push(Agent::joined(&world, node, 1).await);
    }
    assert_eq!(world.service.encodes(), 1, "one first set for all");
    // An idle stretch first: agents that were told nothing stay together.
    world.unrelated().await;
    for change in 0..5 {
        let before = world.service.encodes();
        let revision = world.change(&nodes[7], 100 + change).await;
        for agent in &mut agents {
            let batch = agent.batch_acked().await;
            assert_eq!((batch.entries, batch.commit.revision), (vec![nodes[7].id], revision.0));
        }
        assert_eq!(world.service.encodes() - before, 1);
    }
    assert_eq!(world.sessions.online(), 50);
}

/// Ten groups, each a class of its own, and all see all: what they are told is the same.
#[tokio::test]
async fn a_change_is_encoded_once_for_ten_classes() {
    let world = World::new().await;
    let groups: Vec<_> = (0..10).map(|group| format!("group={group}")).collect();
    let mut selectors: Vec<_> = groups.iter().map(String::as_str).collect();
    selectors.push("");
    world.close(&selectors).await;
    let mut nodes = Vec::new();
    for group in groups.iter().chain(&groups) {
        nodes.push(world.enroll_labelled(&[group]).await);
    }
    let mut agents = Vec::new();
    for node in &nodes {
        agents.push(Agent::joined(&world, node, 1).await);
    }
    for change in 0..3 {
        let before = world.service.encodes();
        world.change(&nodes[7], 100 + change).await;
        for agent in &mut agents {
            assert_eq!(agent.batch_acked().await.entries, [nodes[7].id]);
        }
        assert_eq!(world.service.encodes() - before, 1);
    }
}

#[tokio::test]
async fn heartbeats_move_an_idle_agent_on() {
    let world = World::new().await;
    let a = world.enroll().await;
    let mut agent = Agent::joined(&world, &a, 1).await;
    let joined_at = agent.held.revision;
    let revision = world.unrelated().await;
    assert!(revision > joined_at);
    let heartbeat = agent.heartbeat().await;
    assert_eq!((heartbeat.revision, heartbeat.ack_wanted), (revision.0, false));
    agent.ack().await;
    eventually(|| world.sessions.info(a.id).unwrap().applied == revision).await;
}

/// Replicas put their heartbeats every other second: thousands of streams must sleep through that.
#[tokio::test]
async fn what_means_nothing_to_the_view_wakes_nobody() {
    let world = World::new().await;
    let a = world.enroll().await;
    let mut agent = Agent::joined(&world, &a, 1).await;
    agent.heartbeat().await;
    let mut news = world.live.news();
    let before = (*news.borrow_and_update(), world.service.encodes());
    let mut last = before.0;
    for _ in 0..50 {
        last = world.beat_of_another().await;
    }
    assert!(!news.has_changed().unwrap(), "somebody was woken");
    assert_eq!((last.0, world.service.encodes()), (before.0.0 + 50, before.1));
    assert_eq!(*news.borrow(), last, "who wakes for another reason sees the head");
    let revision = world.change(&a, 9).await;
    assert!(news.has_changed().unwrap());
    assert_eq!(agent.batch_acked().await.commit.revision, revision.0);
}

#[tokio::test]
async fn a_report_changes_the_config_and_the_record() {
    let world = World::new().await;
    let a = world.enroll().await;
    let mut agent = Agent::joined(&world, &a, 1).await;
    let own = Endpoint::new(SocketAddr::from(([203, 0, 113, 9], 51820))).unwrap();
    agent.report(&[own], 51820).await;
    let config = agent.batch_acked().await.config.expect("it was seen at an endpoint");
    let observed = Endpoint::try_from(config.observed_endpoint.as_ref()).unwrap();
    assert_eq!(observed.to_string(), "198.51.100.1:51820");
    // Its own entry comes back to it, as its peers get it.
    let reached = |agent: &Agent| entry::decode(&agent.held.entries[&a.id]).unwrap().endpoints;
    while reached(&agent) != [own, observed] {
        agent.batch_acked().await;
    }
    let record = world.identity(&a).await;
    assert_eq!(record.own_endpoints, [own.to_bytes()]);
    assert_eq!(record.observed_endpoint, config.observed_endpoint);

    // A reconnect brings no config: the port it had is taken for the one it has.
    let (mut agent, _) = Agent::connect(&world, &a, agent.cut()).await;
    agent.heartbeat().await;
}

#[tokio::test]
async fn a_network_s_new_range_reaches_idle_agents() {
    let world = World::new().await;
    let a = world.enroll().await;
    let mut agent = Agent::joined(&world, &a, 1).await;
    let revision = world.change_range("10.80.0.0/12").await;
    let batch = agent.batch_acked().await;
    let range = batch.config.unwrap().ipv4_range.unwrap();
    assert_eq!((range.address.as_ref(), range.length), (&[10, 80, 0, 0][..], 12));
    // Nothing else is new, but a config is applied at a commit.
    assert!(batch.entries.is_empty() && batch.removed.is_empty());
    assert_eq!((batch.commit.revision, batch.commit.full_set), (revision.0, false));
}

/// It isn't waited for a heartbeat, nor taken from memory.
#[tokio::test]
async fn a_network_s_mtu_reaches_agents_at_once() {
    let world = World::new().await;
    let a = world.enroll().await;
    let mut agent = Agent::joined(&world, &a, 1).await;
    for bytes in [1380, 1400, 0] {
        agent.heartbeat().await;
        let (revision, began) = (world.set_mtu(bytes).await, Instant::now());
        let batch = agent.batch_acked().await;
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        assert_eq!(batch.config.unwrap().mtu, bytes);
        assert!(batch.entries.is_empty() && batch.removed.is_empty());
        assert_eq!((batch.commit.revision, batch.commit.full_set), (revision.0, false));
    }
}

#[tokio::test]
async fn a_flood_of_reports_is_a_write_a_second() {
    let world = World::new().await;
    let a = world.enroll().await;
    let mut agent = Agent::joined(&world, &a, 1).await;
    let before = world.live.read().head();
    let began = Instant::now();
    for port in 1..=500 {
        let own = Endpoint::new(SocketAddr::from(([203, 0, 113, 9], port))).unwrap();
        agent.report(&[own], 51820).await;
    }
    let last = Endpoint::new(SocketAddr::from(([203, 0, 113, 9], 500))).unwrap().to_bytes();
    while world.identity(&a).await.own_endpoints != [last.clone()] {
        assert!(began.elapsed() < PATIENCE);
        sleep(Duration::from_millis(10)).await;
    }
    let writes = world.live.read().head().0 - before.0;
    let seconds = began.elapsed().as_secs() + 2;
    assert!(writes <= seconds, "{writes} writes in {seconds} s");
}

#[tokio::test]
async fn a_reader_that_stands_still_costs_nobody_and_converges() {
    let world = World::new().await;
    let (a, b) = (world.enroll().await, world.enroll().await);
    let mut slow = Agent::joined(&world, &a, 1).await;
    let mut quick = Agent::joined(&world, &b, 2).await;
    // `slow` reads nothing: its windows fill up, and then nothing more is made for it.
    let mut last = Revision::ZERO;
    for port in 1..400 {
        last = world.change(&b, port).await;
        let began = Instant::now();
        let batch = quick.batch_acked().await;
        assert_eq!(batch.commit.revision, last.0);
        assert!(began.elapsed() < Duration::from_secs(1), "delayed by another agent");
    }
    let mut batches = 0;
    while slow.held.revision < last {
        slow.batch_acked().await;
        batches += 1;
    }
    assert_eq!(slow.held.entries, quick.held.entries);
    assert!(batches <= 399);
}

#[tokio::test]
async fn a_frozen_agent_is_closed_and_its_backlog_is_one_batch() {
    let world = World::new().await;
    let a = world.enroll().await;
    // Two megabytes, which is far more than a stream's window.
    world.crowd(6000).await;
    let (mut frozen, _) = Agent::connect(&world, &a, Held::new(1)).await;
    assert!(matches!(frozen.next().await, Message::Config(_)));
    eventually(|| world.sessions.counts().stalled() == 1).await;
    eventually(|| world.sessions.online() == 0).await;
    let made = world.service.encodes();
    assert!(made < 40, "{made} pages were made for somebody who reads none");
    assert_eq!(frozen.end().await.code(), tonic::Code::Unknown, "cut, and not ended in order");
    // When it wakes, it converges.
    let agent = Agent::joined(&world, &a, 1).await;
    assert_eq!(agent.held.entries.len(), 6001);
}

pub(super) async fn eventually(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came true");
        sleep(Duration::from_millis(10)).await;
    }
}

impl Agent {
    pub(super) async fn report(&mut self, own: &[Endpoint], listen_port: u32) {
        let report = sync::Report {
            endpoints: own.iter().map(|e| e.to_bytes().into()).collect(),
            listen_port,
            data_plane: sync::DataPlane::Kernel.into(),
            secret_generation: 0,
        };
        self.say(sync_request::Message::Report(report)).await;
    }
}

/// Thousands of agents that wait for their first sets must not keep those from being sent.
#[tokio::test]
async fn who_waits_for_a_full_set_sleeps() {
    let world = World::new().await;
    let node = world.enroll().await;
    let mut turns: Vec<_> = (0..PLACES).map(|_| world.service.turn()).collect();
    assert!(turns.iter_mut().all(Turn::may_go), "nobody else has a place");
    let (mut agent, _) = Agent::connect(&world, &node, Held::new(1)).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let before = metrics.worker_total_busy_duration(0);
    sleep(Duration::from_millis(500)).await;
    let busy = metrics.worker_total_busy_duration(0) - before;
    assert!(busy < Duration::from_millis(150), "{busy:?} of 500 ms to wait for a place");
    drop(turns);
    assert_eq!(agent.batch_acked().await.entries, [node.id]);
}
