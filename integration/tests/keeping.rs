//! What keeps a control plane over the years: its CA is rotated, its store is lost and restored, or
//! grows into an etcd. The machines stay in the mesh, and no packet is lost.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, time::Duration};

use serde_json::Value;
use wattle_integration::{
    Agent, Cluster, ControlPlane, Flow, Inside, Settings, ha::Member, ping_every_pair, run,
    wait_until,
};

const LIMIT: Duration = Duration::from_secs(60);
/// Between two packets of a flow.
const PACE: Duration = Duration::from_millis(100);

fn session(agent: &Agent) -> Value {
    agent.status().map(|status| status["session"].clone()).unwrap_or_default()
}

fn wait_state(agent: &Agent, state: &str) {
    wait_until(&format!("{} to be {state}", agent.name()), LIMIT, || {
        Ok((session(agent)["state"] == state).then_some(()))
    })
    .unwrap();
}

/// Who still has a certificate of the old root.
fn behind(control_plane: &ControlPlane) -> Vec<String> {
    let shown: Value =
        serde_json::from_str(&control_plane.manage(&["ca", "show", "-o", "json"]).unwrap())
            .unwrap();
    let behind = shown["behind"].as_array().unwrap().iter();
    behind.map(|holder| holder["name"].as_str().unwrap().to_owned()).collect()
}

fn refusal(control_plane: &ControlPlane) -> String {
    format!("{:#}", control_plane.manage(&["ca", "rotate", "--finish"]).unwrap_err())
}

#[test]
fn a_ca_is_rotated_and_nobody_is_cut_off() {
    let lifetime = ["--certificate-lifetime".to_owned(), "4m".to_owned()].to_vec();
    let cluster =
        Cluster::start(Settings { control_plane: lifetime, ..Settings::default() }).unwrap();
    let control_plane = &cluster.control_plane;
    let token = control_plane.token().unwrap();
    let mut agents = cluster.agents(&["n1", "n2", "n3"], &token).unwrap();
    ping_every_pair(&agents, LIMIT).unwrap();
    let flow = Flow::start(agents[0].host(), agents[1].addresses().unwrap()[0], PACE).unwrap();
    // One is away through all of it, with the old root and a certificate of it.
    agents[2].kill().unwrap();
    let before = control_plane.data().join("before.json");
    fs::copy(control_plane.data().join("operator.json"), &before).unwrap();
    let sets = control_plane.full_sets().unwrap();

    for _ in 0..2 {
        let said = control_plane.manage(&["ca", "rotate"]).unwrap();
        assert!(said.contains("step 1 of 3 is done"), "{said}");
    }
    assert!(refusal(control_plane).contains("signs nothing yet"));
    for _ in 0..2 {
        let said = control_plane.manage(&["ca", "rotate", "--switch"]).unwrap();
        assert!(said.contains("step 2 of 3 is done"), "{said}");
    }
    wait_until("the agents that are there to have moved", LIMIT, || {
        Ok((behind(control_plane) == ["admin", "default/n3"]).then_some(()))
    })
    .unwrap();
    let said = refusal(control_plane);
    assert!(said.contains("node default/n3") && said.contains("operator admin"), "{said}");
    control_plane.wattle(&["operator", "renew"]).unwrap();
    assert_eq!(behind(control_plane), ["default/n3"]);

    let said = control_plane.manage(&["ca", "rotate", "--finish", "--force"]).unwrap();
    assert!(said.contains("no longer trusted"), "{said}");
    let said = wait_until("the old credential to be refused", LIMIT, || {
        let mut command = control_plane.command(&["status"])?;
        Ok(run(command.env("WATTLE_CONTEXT", &before)).err())
    })
    .unwrap();
    assert!(format!("{said:#}").contains("wattle-controlplane admin create"), "{said:#}");
    control_plane.wattle(&["status"]).expect("the renewed one is good");

    // A token of before still leads here, and whoever slept through it all comes back.
    let late = cluster.agent("n4", &token).unwrap();
    wait_state(&late, "connected");
    agents[2].restart().unwrap();
    wait_state(&agents[2], "connected");
    agents.push(late);
    ping_every_pair(&agents, LIMIT).unwrap();
    assert_eq!(behind(control_plane), Vec::<String>::new());
    assert_eq!(control_plane.full_sets().unwrap() - sets, 1, "the new machine's alone");
    for agent in &agents[..2] {
        assert!(!agent.log().unwrap().contains("disconnected"), "{}", agent.log().unwrap());
    }
    let seen = flow.stop().unwrap();
    assert!(seen.sent > 50 && seen.lost == 0, "{seen:?}");
}

#[test]
fn a_restored_control_plane_is_found_again_by_those_it_knows() {
    let mut cluster = Cluster::start(Settings::default()).unwrap();
    let token = cluster.control_plane.token().unwrap();
    let mut agents = cluster.agents(&["n1", "n2"], &token).unwrap();
    ping_every_pair(&agents, LIMIT).unwrap();
    let file = cluster.folder().join("backup");
    let file = file.to_str().unwrap();
    cluster.control_plane.manage(&["backup", "--out", file]).unwrap();
    agents.push(cluster.agent("younger", &token).unwrap());
    ping_every_pair(&agents, LIMIT).unwrap();
    let flows = [1, 2].map(|to: usize| {
        Flow::start(agents[0].host(), agents[to].addresses().unwrap()[0], PACE).unwrap()
    });
    let before: Vec<_> = agents.iter().map(|a| session(a)["full_sets"].as_u64()).collect();

    cluster.control_plane.kill().unwrap();
    let data = cluster.control_plane.data().to_owned();
    fs::rename(data.join("store.redb"), data.join("lost.redb")).unwrap();
    cluster.control_plane.manage(&["restore", "--in", file]).unwrap();
    cluster.control_plane.restart().unwrap();

    for agent in &agents[..2] {
        wait_state(agent, "connected");
    }
    wait_state(&agents[2], "unknown");
    let said = session(&agents[2])["error"].to_string();
    assert!(said.contains("doesn't know this node") && said.contains("leave --force"), "{said}");
    let log = agents[2].log().unwrap();
    assert_eq!(log.matches("doesn't know this node").count(), 1, "{log}");
    for (agent, before) in agents[..2].iter().zip(&before) {
        let after = session(agent)["full_sets"].as_u64();
        assert_eq!(after, before.map(|sets| sets + 1), "{} gets one full set", agent.name());
    }
    let status = cluster.control_plane.json(&["status"]).unwrap();
    assert_eq!(status["full_sets"]["other-epoch"], 2, "{status}");
    let log = cluster.control_plane.log().unwrap();
    assert!(!log.contains("was never sent"), "{log}");
    std::thread::sleep(20 * PACE);
    // The restored set has no younger one: its tunnel ends, as after any deletion. The other stays.
    let [kept, _gone] = flows.map(|flow| flow.stop().unwrap());
    assert!(kept.sent > 20 && kept.lost == 0, "{kept:?}");

    // What its status says, done.
    let younger = agents.pop().unwrap();
    run(&mut younger.command(&["leave", "--force"]).unwrap()).unwrap();
    let again = cluster.agent("again", &cluster.control_plane.token().unwrap()).unwrap();
    again.wait_peers(&["n1", "n2"], LIMIT).unwrap();
}

#[test]
fn a_control_plane_grows_into_an_etcd_and_nobody_joins_anew() {
    let mut cluster = Cluster::start(Settings::default()).unwrap();
    let token = cluster.control_plane.token().unwrap();
    let mut agents = cluster.agents(&["n1", "n2"], &token).unwrap();
    ping_every_pair(&agents, LIMIT).unwrap();
    let flow = Flow::start(agents[0].host(), agents[1].addresses().unwrap()[0], PACE).unwrap();
    let before: Vec<_> = agents.iter().map(|a| session(a)["full_sets"].as_u64()).collect();
    let inside = Inside::new(cluster.control_plane.host()).unwrap();
    let host = cluster.host("etcd1").unwrap();
    let members = Member::start_all(vec![host], cluster.folder(), &inside).unwrap();
    let url = format!("http://{}", members[0].address());
    let copy =
        ["store", "copy", "--from", "embedded", "--to", "etcd", "--etcd-endpoints", url.as_str()];
    let said = format!("{:#}", cluster.control_plane.manage(&copy).unwrap_err());
    assert!(said.contains("in use by another process"), "{said}");

    cluster.control_plane.terminate(LIMIT).unwrap();
    let said = cluster.control_plane.manage(&copy).unwrap();
    assert!(said.contains("start the replicas with --store etcd"), "{said}");
    cluster.control_plane.serve_with(&["--store", "etcd", "--etcd-endpoints", &url]);
    cluster.control_plane.restart().unwrap();

    for (agent, before) in agents.iter().zip(&before) {
        wait_state(agent, "connected");
        let after = before.map(|sets| sets + 1);
        wait_until(&format!("one full set for {}", agent.name()), LIMIT, || {
            Ok((session(agent)["full_sets"].as_u64() == after).then_some(()))
        })
        .unwrap();
    }
    // A token of before is good, and says so to the etcd.
    agents.push(cluster.agent("n3", &token).unwrap());
    ping_every_pair(&agents, LIMIT).unwrap();
    let status = cluster.control_plane.json(&["status"]).unwrap();
    assert_eq!((&status["full_sets"]["other-epoch"], &status["nodes"]), (&2.into(), &3.into()));
    let seen = flow.stop().unwrap();
    assert!(seen.sent > 20 && seen.lost == 0, "{seen:?}");
}
