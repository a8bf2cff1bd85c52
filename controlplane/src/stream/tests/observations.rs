//! Where agents see their peers: a port behind NAT reaches everybody, and what an agent makes up
//! reaches nobody. All agents here come from 198.51.100.1.

use std::{net::SocketAddr, time::Duration};

use tokio::time::{Instant, timeout};
use wattle_model::{Endpoint, NodeId};
use wattle_proto::{
    entry,
    sync::{self, sync_request},
};

use super::{
    agent::Agent,
    flow::eventually,
    world::{Node, World},
};
use crate::stream::Counts;

const OWN: &str = "10.0.0.5:51820";
const SEEN: &str = "198.51.100.1:51820";
const SECOND: Duration = Duration::from_secs(1);

fn endpoint(text: &str) -> Endpoint {
    Endpoint::new(text.parse().unwrap()).unwrap()
}

/// Says where a peer was seen, with a handshake of that age.
async fn say(agent: &mut Agent, peer: NodeId, at: &str, handshake: Duration) {
    let seen = sync::Observation {
        node_id: bytes::Bytes::copy_from_slice(peer.as_bytes()),
        endpoint: endpoint(at).to_bytes().into(),
        handshake_millis_ago: handshake.as_millis() as u64,
    };
    let said = sync::Observations { observations: vec![seen] };
    agent.say(sync_request::Message::Observations(said)).await;
}

/// Applies batches until the agent sees the peer at these endpoints.
async fn until_at(agent: &mut Agent, peer: NodeId, endpoints: &[&str]) {
    let endpoints: Vec<_> = endpoints.iter().map(|text| endpoint(text)).collect();
    while entry::decode(&agent.held.entries[&peer]).unwrap().endpoints != endpoints {
        agent.batch_acked().await;
    }
}

/// A node behind NAT, and its agent.
async fn behind_nat(world: &World) -> (Node, Agent) {
    let node = world.enroll().await;
    let mut agent = Agent::joined(world, &node, 1).await;
    agent.report(&[endpoint(OWN)], 51820).await;
    until_at(&mut agent, node.id, &[OWN, SEEN]).await;
    (node, agent)
}

async fn mapping(world: &World, node: &Node) -> Option<u32> {
    world.identity(node).await.mapping.map(|mapping| mapping.port)
}

#[tokio::test]
async fn a_port_that_another_node_saw_reaches_everybody() {
    let world = World::new().await;
    let (hidden, mut agent) = behind_nat(&world).await;
    let mut hub = Agent::joined(&world, &world.enroll().await, 2).await;
    let mut other = Agent::joined(&world, &world.enroll().await, 3).await;
    until_at(&mut other, hidden.id, &[OWN, SEEN]).await;
    say(&mut hub, hidden.id, SEEN, SECOND).await;
    say(&mut hub, hidden.id, "198.51.100.1:4000", SECOND).await;
    until_at(&mut other, hidden.id, &[OWN, "198.51.100.1:4000"]).await;
    assert_eq!(mapping(&world, &hidden).await, Some(4000));
    let accepted = || world.sessions.counts().observations_accepted();
    eventually(|| accepted() == 1).await;

    // It holds for as long as the node is seen where it was, and no longer.
    agent.report(&[endpoint("10.0.0.6:51820")], 51820).await;
    until_at(&mut other, hidden.id, &["10.0.0.6:51820", "198.51.100.1:4000"]).await;
    agent.report(&[endpoint("10.0.0.6:7")], 7).await;
    until_at(&mut other, hidden.id, &["10.0.0.6:7", "198.51.100.1:7"]).await;
    assert_eq!(mapping(&world, &hidden).await, None);
}

#[tokio::test]
async fn what_an_agent_makes_up_changes_nothing() {
    type Count = fn(&Counts) -> u64;
    let world = World::new().await;
    let (hidden, mut agent) = behind_nat(&world).await;
    let bad = world.enroll().await;
    let mut liar = Agent::joined(&world, &bad, 2).await;
    until_at(&mut liar, hidden.id, &[OWN, SEEN]).await;
    let before = world.identity(&hidden).await;
    let good = "198.51.100.1:4000";
    let lies: [(NodeId, &str, Duration, Count); 6] = [
        (hidden.id, "198.51.100.2:4000", SECOND, Counts::observations_elsewhere),
        (hidden.id, "10.0.0.5:4000", SECOND, Counts::observations_elsewhere),
        (hidden.id, good, Duration::from_secs(180), Counts::observations_old),
        (hidden.id, good, Duration::MAX, Counts::observations_old),
        (bad.id, good, SECOND, Counts::observations_unseen),
        (NodeId::new([0xcc; 16]), good, SECOND, Counts::observations_unseen),
    ];
    for (peer, at, handshake, count) in lies {
        let counted = count(world.sessions.counts());
        say(&mut liar, peer, at, handshake).await;
        eventually(|| count(world.sessions.counts()) == counted + 1).await;
        assert_eq!(world.identity(&hidden).await, before, "{at} of {peer}");
    }

    // What the node says itself isn't overruled.
    agent.report(&[endpoint("198.51.100.1:5000")], 51820).await;
    until_at(&mut liar, hidden.id, &["198.51.100.1:5000"]).await;
    say(&mut liar, hidden.id, good, SECOND).await;
    eventually(|| world.sessions.counts().observations_own_word() == 1).await;
    assert_eq!(mapping(&world, &hidden).await, None);
    assert_eq!(world.sessions.counts().observations_accepted(), 0);
}

#[tokio::test]
async fn nobody_is_heard_of_a_node_that_it_does_not_see_or_that_is_gone() {
    let world = World::new().await;
    let (hidden, agent) = behind_nat(&world).await;
    let mut hub = Agent::joined(&world, &world.enroll().await, 2).await;
    world.close(&[]).await;
    let unseen = || world.sessions.counts().observations_unseen();
    say(&mut hub, hidden.id, "198.51.100.1:4000", SECOND).await;
    eventually(|| unseen() == 1).await;
    assert_eq!(mapping(&world, &hidden).await, None);

    world.set_mode(wattle_model::Mode::Mesh).await;
    drop(agent);
    world.delete(&hidden).await;
    let before = world.identity(&hidden).await;
    say(&mut hub, hidden.id, "198.51.100.1:4000", SECOND).await;
    eventually(|| unseen() == 2).await;
    assert_eq!(world.identity(&hidden).await, before);
}

#[tokio::test]
async fn two_that_disagree_change_a_node_once_in_half_a_minute() {
    let world = World::new().await;
    let (hidden, _agent) = behind_nat(&world).await;
    let mut first = Agent::joined(&world, &world.enroll().await, 2).await;
    let mut second = Agent::joined(&world, &world.enroll().await, 3).await;
    say(&mut first, hidden.id, "198.51.100.1:4000", SECOND).await;
    until_at(&mut second, hidden.id, &[OWN, "198.51.100.1:4000"]).await;
    for port in 5000..5010 {
        say(&mut second, hidden.id, &format!("198.51.100.1:{port}"), SECOND).await;
        say(&mut first, hidden.id, &format!("198.51.100.1:{}", port + 1000), SECOND).await;
    }
    let too_soon = || world.sessions.counts().observations_too_soon();
    eventually(|| too_soon() == 2).await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(too_soon(), 2, "each is asked about once, and again in half a minute");
    assert_eq!(mapping(&world, &hidden).await, Some(4000));
    assert_eq!(world.sessions.counts().observations_accepted(), 1);
}

#[tokio::test]
async fn a_flood_of_observations_delays_nobody_and_is_bounded() {
    let world = World::new().await;
    let (hidden, _agent) = behind_nat(&world).await;
    let mut flooding = Agent::joined(&world, &world.enroll().await, 2).await;
    let quiet = world.enroll().await;
    let mut other = Agent::joined(&world, &quiet, 3).await;
    let (begun, mut said) = (Instant::now(), 0_u16);
    while begun.elapsed() < 2 * SECOND {
        let observations = (0..64).map(|n| sync::Observation {
            node_id: bytes::Bytes::copy_from_slice(hidden.id.as_bytes()),
            endpoint: endpoint(&SocketAddr::from(([198, 51, 100, 1], 1 + n + said)).to_string())
                .to_bytes()
                .into(),
            handshake_millis_ago: 1,
        });
        let message = sync::Observations { observations: observations.collect() };
        let say = flooding.say(sync_request::Message::Observations(message));
        // Once HTTP/2's window is full nothing more can be said.
        let _ = timeout(Duration::from_millis(100), say).await;
        said += 1;
        if said % 50 == 1 {
            let revision = world.change(&quiet, said).await;
            while other.held.revision < revision {
                timeout(5 * SECOND, other.batch_acked()).await.unwrap();
            }
        }
    }
    assert_eq!(world.sessions.counts().observations_accepted(), 1);
    assert!(world.sessions.counts().observations_too_soon() <= 1);
}
