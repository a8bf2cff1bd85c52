//! Balancing: agents are sent from a replica that has too many to those that have room, and miss
//! nothing.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, timeout};
use wattle_proto::sync::sync_response::Message;

use super::{Three, light::Light};

/// Three replicas, 12 agents: no more than ceil(4 × 1.1) on each.
const AGENTS: usize = 12;
const MOST: usize = 5;

/// Does what it is told for a while. Returns how often it was told to go.
async fn live(agent: &mut Light, three: &Three, until: Instant) -> usize {
    let mut moves = 0;
    while let Ok(step) =
        timeout(until.saturating_duration_since(Instant::now()), agent.step()).await
    {
        if let Message::Drain(drain) = step.unwrap() {
            let preferred = |replica: &&crate::Running| drain.prefer.contains(&replica.address);
            let to = three.replicas.iter().find(preferred).expect("it is told where to go");
            // Make before break: the old stream is there until the new one is.
            drop(agent.reconnect(to).await);
            moves += 1;
        }
    }
    moves
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uneven_replicas_become_even_and_stay_so_without_a_full_set() {
    let three = Three::start().await;
    let mut agents = Vec::new();
    for n in 0..AGENTS {
        agents.push(Light::join(&three.token, &format!("n{n}"), &three.replicas[0]).await);
    }
    let has = || {
        three
            .replicas
            .iter()
            .map(|replica| replica.replicas.sessions().online())
            .collect::<Vec<_>>()
    };
    assert_eq!(has(), [AGENTS, 0, 0]);
    let until = Instant::now() + Duration::from_secs(25);
    let moves = join_all(agents.iter_mut().map(|agent| live(agent, &three, until))).await;
    assert!(has().iter().all(|sessions| *sessions <= MOST), "{:?}", has());
    let moves: usize = moves.iter().sum();
    // Each sheds by what it knows of the others, which is some seconds old: a few go there and back.
    assert!((AGENTS - MOST..=AGENTS).contains(&moves), "{moves} moves");
    let full_sets: usize = agents.iter().map(|agent| agent.full_sets).sum();
    assert_eq!(full_sets, AGENTS, "only the first of each");
    three.stop().await;
}
