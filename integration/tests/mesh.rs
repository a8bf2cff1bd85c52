//! Five machines, real processes, real TLS, encrypted packets: what the mesh survives.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use wattle_integration::{Agent, Cluster, Flow, Settings, ping, ping_every_pair, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
const NAMES: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];

#[test]
fn five_nodes_mesh_and_survive_a_killed_control_plane() {
    let (mut cluster, agents) = five();
    ping_every_pair(&agents, LIMIT).unwrap();

    let flows = start_flows(&agents);
    sleep(Duration::from_secs(1));
    cluster.control_plane.kill().unwrap();
    sleep(Duration::from_secs(2));
    cluster.control_plane.restart().unwrap();
    wait_all_online(&cluster, 5);
    sleep(Duration::from_secs(1));
    for flow in flows {
        let seen = flow.stop().unwrap();
        assert!(seen.sent > 20, "{seen:?}");
        assert_eq!(seen.lost, 0, "{seen:?}");
    }

    // It remembers everything, resumes everybody, and goes on.
    assert_eq!(cluster.control_plane.full_sets().unwrap(), 0);
    let token = cluster.control_plane.token().unwrap();
    let sixth = cluster.agent("n6", &token).unwrap();
    sixth.wait_peers(&NAMES, LIMIT).unwrap();
    let address = sixth.addresses().unwrap()[0];
    wait_until("a ping to the sixth", LIMIT, || {
        Ok(ping(agents[0].host(), address, Duration::from_secs(1))?.then_some(()))
    })
    .unwrap();
    assert_quiet_logs(&cluster, &agents);
}

#[test]
fn an_agent_killed_comes_back_without_a_control_plane() {
    let (mut cluster, mut agents) = five();
    ping_every_pair(&agents, LIMIT).unwrap();
    cluster.control_plane.kill().unwrap();

    let victim = &mut agents[2];
    let address = victim.addresses().unwrap()[0];
    victim.kill().unwrap();
    victim.restart().unwrap();
    victim.wait_peers(&["n1", "n2", "n4", "n5"], LIMIT).unwrap();
    for other in [0, 1, 3, 4] {
        let (from, target) = (&agents[2], agents[other].addresses().unwrap());
        for target in target {
            wait_until("a ping from the restarted agent", LIMIT, || {
                Ok(ping(from.host(), target, Duration::from_secs(1))?.then_some(()))
            })
            .unwrap();
        }
    }
    assert!(ping(agents[0].host(), address, Duration::from_secs(5)).unwrap());
}

#[test]
fn a_deleted_node_stops_at_once_and_stays_away() {
    let (cluster, mut agents) = five();
    ping_every_pair(&agents, LIMIT).unwrap();
    let mut victim = agents.pop().unwrap();
    let address = victim.addresses().unwrap()[0];

    let begun = Instant::now();
    cluster.control_plane.wattle(&["node", "delete", "n5", "--yes"]).unwrap();
    for agent in &agents {
        wait_until("an unanswered ping", LIMIT, || {
            Ok((!ping(agent.host(), address, Duration::from_millis(50))?).then_some(()))
        })
        .unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(1) * slowness(), "{:?}", begun.elapsed());
    assert_eq!(victim.wait_end(LIMIT).unwrap(), Some(3));
    assert!(!victim.host().has_link("wattle0"));

    // Started again it says the same and ends; it neither enrols nor makes a link.
    victim.restart().unwrap();
    assert_eq!(victim.wait_end(LIMIT).unwrap(), Some(3));
    assert!(!victim.host().has_link("wattle0"));
    for agent in &agents {
        assert!(!agent.peers().unwrap().contains(&"n5".to_owned()));
    }
    assert!(!cluster.control_plane.wattle(&["node", "list"]).unwrap().contains("n5"));
}

#[test]
fn a_left_node_leaves_nothing_behind() {
    let cluster = Cluster::start(Settings::default()).unwrap();
    let token = cluster.control_plane.token().unwrap();
    let agents = cluster.agents(&["n1", "n2"], &token).unwrap();
    agents[0].wait_peers(&["n2"], LIMIT).unwrap();
    wattle_integration::run(&mut agents[1].command(&["leave"]).unwrap()).unwrap();
    agents[0].wait_peers(&[], LIMIT).unwrap();
    assert!(!agents[1].host().has_link("wattle0"));
    assert!(!agents[1].state().join("identity.json").exists());
}

fn five() -> (Cluster, Vec<Agent>) {
    let cluster = Cluster::start(Settings::default()).unwrap();
    let token = cluster.control_plane.token().unwrap();
    let agents = cluster.agents(&NAMES, &token).unwrap();
    for agent in &agents {
        let others: Vec<_> = NAMES.into_iter().filter(|name| *name != agent.name()).collect();
        agent.wait_peers(&others, LIMIT).unwrap();
    }
    (cluster, agents)
}

/// A ping on every pair, one direction each, alternating the family.
fn start_flows(agents: &[Agent]) -> Vec<Flow> {
    let mut flows = Vec::new();
    for (i, from) in agents.iter().enumerate() {
        for (j, to) in agents.iter().enumerate().skip(i + 1) {
            let address = to.addresses().unwrap()[(i + j) % 2];
            flows.push(Flow::start(from.host(), address, Duration::from_millis(100)).unwrap());
        }
    }
    flows
}

fn wait_all_online(cluster: &Cluster, count: u64) {
    wait_until("all agents online", LIMIT, || {
        let status = cluster.control_plane.json(&["status"])?;
        Ok((status["nodes_online"] == count).then_some(()))
    })
    .unwrap();
}

/// A log level is a promise: nobody asked for an error here.
fn assert_quiet_logs(cluster: &Cluster, agents: &[Agent]) {
    let logs = agents.iter().map(|agent| agent.log().unwrap());
    for log in logs.chain([cluster.control_plane.log().unwrap()]) {
        let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
        assert!(errors.is_empty(), "{errors:#?}");
    }
}

/// An emulated machine is 10 to 15 times slower.
fn slowness() -> u32 {
    if std::env::var_os("WATTLE_TEST_EMULATED").is_some() { 15 } else { 1 }
}
