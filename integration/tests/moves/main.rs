//! Addresses that move between peers, the hardest thing to apply: the kernel takes a prefix from
//! whoever has it without a word. Real processes, encrypted packets; who answers a ping proves who
//! has the address, because WireGuard drops what comes from or goes to the wrong peer.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod surgery;

use std::{net::IpAddr, time::Duration};

use surgery::Surgery;
use wattle_integration::{Agent, Cluster, Settings, ping, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

type Addresses = [IpAddr; 2];

/// A swap, a cycle of three, a deletion whose address is reused in the same batch, then new
/// endpoints for nodes that had other addresses before.
#[test]
fn addresses_move_between_peers_and_none_is_stolen() {
    let mut cluster = Cluster::start(Settings::default()).unwrap();
    let token = cluster.control_plane.token().unwrap();
    let names = ["n1", "n2", "n3", "n4", "n5"];
    let mut agents = cluster.agents(&names, &token).unwrap();
    for agent in &agents {
        let others: Vec<_> = names.into_iter().filter(|name| *name != agent.name()).collect();
        agent.wait_peers(&others, LIMIT).unwrap();
    }
    let [one, two, three, four, five] =
        [0, 1, 2, 3, 4].map(|at: usize| agents[at].addresses().unwrap());
    settled(&agents, &[one, two, three, four, five]);

    change(&mut cluster, async |surgery| surgery.rotate(&["n1", "n2"]).await);
    settled(&agents, &[two, one, three, four, five]);

    change(&mut cluster, async |surgery| surgery.rotate(&["n1", "n2", "n3"]).await);
    settled(&agents, &[one, three, two, four, five]);

    change(&mut cluster, async |surgery| surgery.inherit("n4", "n5").await);
    assert_eq!(agents[4].wait_end(LIMIT).unwrap(), Some(3), "a deleted node ends");
    agents.truncate(4);
    settled(&agents, &[one, three, two, five]);

    // Each of these had an address once that is another one's now.
    for (at, port) in [(0, "52001"), (1, "52002"), (3, "52004")] {
        let agent = &mut agents[at];
        agent.kill().unwrap();
        agent.restart_with(&["--listen-port", port]).unwrap();
        wait_for_endpoint(&cluster, agent.name(), port);
    }
    settled(&agents, &[one, three, two, five]);
    assert_eq!(cluster.control_plane.full_sets().unwrap(), 0, "all of it came as deltas");
}

/// Changes the store while nobody serves it; every agent gets all of it in one batch.
fn change(cluster: &mut Cluster, plan: impl AsyncFnOnce(Surgery) -> Surgery) {
    cluster.control_plane.kill().unwrap();
    let data = cluster.control_plane.data();
    // The store is closed once the runtime's last task is gone.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async { plan(Surgery::open(data)).await.commit().await });
    cluster.control_plane.restart().unwrap();
}

/// Waits until each agent has its addresses, and until each answers the others at them.
fn settled(agents: &[Agent], expected: &[Addresses]) {
    for (agent, expected) in agents.iter().zip(expected) {
        wait_until(&format!("{} to have {expected:?}", agent.name()), LIMIT, || {
            Ok((agent.addresses()? == *expected).then_some(()))
        })
        .unwrap();
    }
    for from in agents {
        for (to, addresses) in
            agents.iter().zip(expected).filter(|(to, _)| to.name() != from.name())
        {
            for address in addresses {
                let what = format!("an answer of {} to {} at {address}", to.name(), from.name());
                wait_until(&what, LIMIT, || {
                    Ok(ping(from.host(), *address, Duration::from_secs(1))?.then_some(()))
                })
                .unwrap();
            }
        }
    }
}

/// Waits until every agent has applied a change of this node's listen port.
fn wait_for_endpoint(cluster: &Cluster, node: &str, port: &str) {
    let mut revision = String::new();
    wait_until(&format!("{node} to be known at port {port}"), LIMIT, || {
        let node = cluster.control_plane.json(&["node", "get", node])?;
        revision = node["revision"].to_string();
        Ok(node["endpoints"].to_string().contains(&format!(":{port}")).then_some(()))
    })
    .unwrap();
    cluster.control_plane.wattle(&["wait", &revision, "--timeout", "30s"]).unwrap();
}
