//! Operators ask about tunnels, through the streams.

use std::{sync::Arc, time::Duration};

use wattle_proto::sync::{Inspected, sync_request, sync_response::Message};

use super::{agent::Agent, world::World};

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(300);

/// The next question, heartbeats aside.
async fn question(agent: &mut Agent) -> wattle_proto::sync::Inspect {
    loop {
        match agent.next().await {
            Message::Inspect(inspect) => return inspect,
            Message::Heartbeat(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_agent_tells_of_its_tunnel_to_a_peer() {
    let world = World::new().await;
    let (a, b) = (world.enroll().await, world.enroll().await);
    let mut agent = Agent::joined(&world, &a, 1).await;
    let (sessions, node, peer) = (Arc::new(world.sessions.clone()), a.id, b.id);
    let asking = Arc::clone(&sessions);
    let asked = tokio::spawn(async move { asking.inspect(node, peer, LONG).await });
    let inspect = question(&mut agent).await;
    assert_eq!(inspect.node_id, peer.as_bytes().as_slice());
    let answer = Inspected {
        query: inspect.query,
        endpoint: vec![192, 0, 2, 7, 0xca, 0x6c].into(),
        handshake_millis_ago: Some(1500),
    };
    agent.say(sync_request::Message::Inspected(answer)).await;
    let tunnel = asked.await.unwrap().expect("the agent has answered");
    assert_eq!(tunnel.endpoint.unwrap().to_string(), "192.0.2.7:51820");
    assert_eq!(tunnel.last_handshake, Some(Duration::from_millis(1500)));

    assert_eq!(sessions.inspect(b.id, a.id, SHORT).await, None, "it isn't connected");
    assert_eq!(sessions.inspect(a.id, b.id, SHORT).await, None, "it doesn't answer");
    let lie = Inspected { query: 99, ..Default::default() };
    agent.say(sync_request::Message::Inspected(lie)).await;
    let status = agent.end().await;
    assert!(status.message().contains("inspected.query"), "{status:?}");
}

#[tokio::test]
async fn no_agent_is_asked_of_a_peer_that_it_does_not_see() {
    let world = World::new().await;
    world.close(&["group=1", "group=2"]).await;
    let a = world.enroll_labelled(&["group=1"]).await;
    let near = world.enroll_labelled(&["group=1"]).await;
    let far = world.enroll_labelled(&["group=2"]).await;
    let mut agent = Agent::joined(&world, &a, 1).await;
    assert_eq!(world.sessions.inspect(a.id, far.id, SHORT).await, None);
    assert_eq!(world.sessions.inspect(a.id, near.id, SHORT).await, None, "no answer yet");
    assert_eq!(question(&mut agent).await.node_id, near.id.as_bytes().as_slice());
}
