//! A node's own WireGuard key, where it isn't as it should be, and where it can't be changed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use serde_json::Value;
use wattle_integration::{Agent, Cluster, Settings, ping_every_pair, run, wait_until};

const LIMIT: Duration = Duration::from_secs(180);

/// Of a machine set back to a backup, peers know a key that it hasn't got.
#[test]
fn a_machine_that_lost_its_key_comes_to_a_new_one() {
    let (cluster, mut agents) = mesh(Settings::default(), &["n1", "n2"]);
    ping_every_pair(&agents, LIMIT).unwrap();
    let (known, identity) = (public_key(&agents[1]), agents[1].state().join("identity.json"));
    agents[1].kill().unwrap();
    let mut kept: Value = serde_json::from_slice(&std::fs::read(&identity).unwrap()).unwrap();
    // Any 32 bytes are a private key.
    kept["wireguard_key"] = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=".into();
    std::fs::write(&identity, kept.to_string()).unwrap();
    if agents[1].host().has_link("wattle0") {
        run(agents[1].host().command("ip").args(["link", "delete", "wattle0"])).unwrap();
    }
    agents[1].restart().unwrap();
    wait_until("a key that peers know and the device has", LIMIT, || {
        let node = cluster.control_plane.json(&["node", "get", "n2"])?;
        let own = agents[1].status().ok().map(|status| status["data_plane"]["public_key"].clone());
        Ok((own.as_ref() == Some(&node["public_key"]) && own != Some(known.as_str().into()))
            .then_some(()))
    })
    .unwrap();
    ping_every_pair(&agents, LIMIT).unwrap();
    let log = agents[1].log().unwrap();
    assert!(log.contains("peers know this node by a WireGuard key that this machine hasn't got"));
    // It is kept: started again, the agent has it.
    let key = public_key(&agents[1]);
    agents[1].kill().unwrap();
    agents[1].restart().unwrap();
    wait_until("the agent", LIMIT, || Ok(agents[1].status().ok().map(drop))).unwrap();
    assert_eq!(public_key(&agents[1]), key);
    ping_every_pair(&agents, LIMIT).unwrap();
}

#[test]
fn a_userspace_data_plane_is_told_that_it_cant_change_its_key() {
    let settings = Settings { dataplane: "userspace".to_owned(), ..Settings::default() };
    let (cluster, agents) = mesh(settings, &["n1", "n2"]);
    let key = public_key(&agents[0]);
    let refused = cluster.control_plane.wattle(&["node", "rotate-key", "n1"]).unwrap_err();
    let refused = format!("{refused:#}");
    assert!(refused.contains("userspace data plane, which can't change its key"), "{refused}");
    let mut all = cluster.control_plane.command(&["node", "rotate-key", "--all"]).unwrap();
    let output = all.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("n1 has a userspace data plane"), "{said}");
    assert_eq!(public_key(&agents[0]), key);
}

fn mesh(settings: Settings, names: &[&str]) -> (Cluster, Vec<Agent>) {
    let cluster = Cluster::start(settings).unwrap();
    let token = cluster.control_plane.token().unwrap();
    let agents = cluster.agents(names, &token).unwrap();
    for agent in &agents {
        let others: Vec<_> = names.iter().copied().filter(|n| *n != agent.name()).collect();
        agent.wait_peers(&others, LIMIT).unwrap();
    }
    (cluster, agents)
}

fn public_key(agent: &Agent) -> String {
    agent.status().unwrap()["data_plane"]["public_key"].as_str().unwrap().to_owned()
}
