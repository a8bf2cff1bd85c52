//! Over the years: the CA of three replicas is rotated, and their store is put back from a backup.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use wattle_integration::{
    Agent, ControlPlane, Flow, Settings,
    ha::{Fault, HaCluster},
    ping_every_pair, run, wait_until,
};

use crate::{NAMES, assert_good, cluster, trial};

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

fn full_sets(agents: &[Agent]) -> Vec<u64> {
    agents.iter().map(|agent| session(agent)["full_sets"].as_u64().unwrap()).collect()
}

/// What `ca show` says on a replica's machine.
fn shown(replica: &ControlPlane) -> Result<Value> {
    Ok(serde_json::from_str(&replica.manage(&["ca", "show", "-o", "json"])?)?)
}

/// Replicas that sign with the old root, and with the new one.
fn signing(replica: &ControlPlane) -> Result<[u64; 2]> {
    let shown = shown(replica)?;
    let count = |place: usize| shown["roots"][place]["replicas"].as_u64().context("no count");
    Ok([count(0)?, count(1)?])
}

fn behind(replica: &ControlPlane) -> Result<Vec<String>> {
    let shown = shown(replica)?;
    let behind = shown["behind"].as_array().context("no list")?.iter();
    let mut names: Vec<_> = behind.map(|one| format!("{} {}", one["kind"], one["name"])).collect();
    names.iter_mut().for_each(|name| *name = name.replace('"', ""));
    names.sort();
    Ok(names)
}

/// As whoever hands the files to a mounted secret does: each is whole at any time.
fn hand_over(from: &Path, to: &Path) -> Result<()> {
    for file in ["ca.crt", "ca.key"] {
        fs::copy(from.join(file), to.join("new"))?;
        fs::rename(to.join("new"), to.join(file))?;
    }
    Ok(())
}

fn refused(replica: &ControlPlane, arguments: &[&str]) -> String {
    format!("{:#}", replica.manage(arguments).unwrap_err())
}

#[test]
fn the_ca_of_three_replicas_is_rotated_and_nobody_is_cut_off() {
    // Agents move within a 288th of this.
    let lifetime = ["--certificate-lifetime".to_owned(), "30m".to_owned()].to_vec();
    let settings = Settings { control_plane: lifetime, ..Settings::default() };
    let mut cluster = HaCluster::start(&settings, &NAMES).unwrap();
    // One is away through all of it, and nobody has used this token.
    let (token, unused) = (cluster.token("mesh").unwrap(), cluster.token("mesh").unwrap());
    cluster.agent("away", &token).unwrap();
    let mut away = cluster.agents.pop().unwrap();
    wait_state(&away, "connected");
    away.kill().unwrap();
    cluster.wait_balanced().unwrap();
    let homes: Vec<_> = cluster.agents.iter().map(|agent| cluster.home(agent)).collect();
    let old = cluster.folder().join("old.json");
    fs::copy(cluster.replicas[0].data().join("own.json"), &old).unwrap();

    let found = trial(Fault::None, 1).run_with(&mut cluster, rotate).unwrap();
    assert_good(&found);
    let after: Vec<_> = cluster.agents.iter().map(|agent| cluster.home(agent)).collect();
    assert_eq!(after, homes, "no stream was cut");

    // The witnesses don't renew, nor do nodes that were made to be changed.
    let [first, others @ ..] = &cluster.replicas[..] else { unreachable!("there are three") };
    let left = behind(first).unwrap();
    assert!(left.len() > 3 && left.iter().any(|one| one == "node default/witness-web"), "{left:?}");
    let said = refused(first, &["ca", "rotate", "--finish"]);
    assert!(said.contains(&format!("{} in all", left.len())), "{said}");
    for node in left.iter().filter(|one| *one != "node default/away") {
        let name = node.trim_start_matches("node default/");
        first.wattle(&["node", "delete", name, "--yes"]).unwrap();
    }
    let said = refused(&others[0], &["ca", "rotate", "--finish"]);
    assert!(said.contains("1 in all") && said.contains("node default/away"), "{said}");
    let sets = full_sets(&cluster.agents);
    let flow =
        Flow::start(cluster.agents[0].host(), cluster.agents[1].addresses().unwrap()[0], PACE)
            .unwrap();
    // Any replica will do.
    let said = others[1].manage(&["ca", "rotate", "--finish", "--force"]).unwrap();
    assert!(said.contains("no longer trusted"), "{said}");
    wait_until("the old credential to be refused by every replica", LIMIT, || {
        let refuses = |replica: &ControlPlane| {
            let mut command = replica.command(&["status"])?;
            Ok::<_, anyhow::Error>(run(command.env("WATTLE_CONTEXT", &old)).is_err())
        };
        let all: Result<Vec<bool>> = cluster.replicas.iter().map(refuses).collect();
        Ok(all?.iter().all(|refuses| *refuses).then_some(()))
    })
    .unwrap();
    first.wattle(&["status"]).expect("the renewed one is good");

    away.restart().unwrap();
    wait_state(&away, "connected");
    cluster.agents.push(away);
    cluster.agent("late", &unused).unwrap();
    wait_state(cluster.agents.last().unwrap(), "connected");
    ping_every_pair(&cluster.agents, LIMIT).unwrap();
    assert_eq!(behind(&cluster.replicas[0]).unwrap(), Vec::<String>::new());
    assert_eq!(full_sets(&cluster.agents[..NAMES.len()]), sets);
    let seen = flow.stop().unwrap();
    assert!(seen.sent > 15 && seen.lost == 0, "{seen:?}");
}

/// The first two steps, on one replica after the other.
fn rotate(cluster: &mut HaCluster) -> Result<()> {
    let [first, others @ ..] = &cluster.replicas[..] else { unreachable!("there are three") };
    let said = first.manage(&["ca", "rotate"])?;
    ensure!(said.contains("step 1 of 3 is done"), "{said}");
    let said = first.manage(&["ca", "rotate", "--switch"])?;
    ensure!(said.contains("step 2 of 3 is done"), "{said}");
    wait_until("one replica to sign with the new root", LIMIT, || {
        Ok((signing(&others[0])? == [2, 1]).then_some(()))
    })?;
    let said = refused(first, &["ca", "rotate", "--finish"]);
    ensure!(said.contains(&format!("replica {}", cluster.addresses()[2])), "{said}");
    let said = refused(&others[0], &["ca", "rotate", "--finish"]);
    ensure!(said.contains("this replica still signs with an older root"), "{said}");
    for other in others {
        hand_over(first.data(), other.data())?;
    }
    wait_until("all replicas to sign with the new root", LIMIT, || {
        Ok((signing(first)? == [0, 3]).then_some(()))
    })?;
    first.wattle(&["operator", "renew"])?;
    let mut seen = Vec::new();
    wait_until("the agents that are there to have moved", LIMIT, || {
        seen = behind(first)?;
        let agent = |one: &str| seen.iter().any(|seen| *seen == format!("node default/{one}"));
        let moved = !NAMES.iter().any(|name| agent(name)) && agent("away");
        Ok((moved && seen.iter().all(|one| one.starts_with("node "))).then_some(()))
    })
    .with_context(|| format!("behind: {seen:?}"))
}

#[test]
fn a_store_that_is_put_back_keeps_the_machines_it_knows() {
    let mut cluster = cluster();
    let file = cluster.folder().join("backup");
    cluster.replicas[1].manage(&["backup", "--out", file.to_str().unwrap()]).unwrap();
    let token = cluster.token("mesh").unwrap();
    cluster.agent("younger", &token).unwrap();
    ping_every_pair(&cluster.agents, LIMIT).unwrap();
    let younger = cluster.agents.pop().unwrap();
    let sets = full_sets(&cluster.agents);
    let mut flows = Vec::new();
    for (place, from) in cluster.agents.iter().enumerate() {
        for to in &cluster.agents[place + 1..] {
            flows.push(Flow::start(from.host(), to.addresses().unwrap()[0], PACE).unwrap());
        }
    }

    let endpoints = cluster.to_etcd(0).iter().map(|proxy| format!("http://{}", proxy.address()));
    let endpoints = endpoints.collect::<Vec<_>>().join(",");
    let restore = ["restore", "--replace", "--in", file.to_str().unwrap(), "--store", "etcd"];
    let etcd = ["--etcd-prefix", "/wattle/", "--etcd-endpoints", &endpoints];
    let restore = [&restore[..], &etcd].concat();
    let said = refused(&cluster.replicas[0], &restore);
    assert!(said.contains("a replica runs on it"), "{said}");
    cluster.replicas.iter_mut().for_each(|replica| replica.kill().unwrap());
    // Those that were killed are remembered until their leases have run out.
    let said = wait_until("the replicas to be forgotten", LIMIT, || {
        Ok(cluster.replicas[0].manage(&restore).ok())
    })
    .unwrap();
    assert!(said.contains("restored") && said.contains("epoch"), "{said}");
    cluster.replicas.iter_mut().for_each(|replica| replica.spawn().unwrap());
    cluster.replicas.iter_mut().for_each(|replica| replica.wait_ready().unwrap());

    cluster.agents.iter().for_each(|agent| wait_state(agent, "connected"));
    wait_state(&younger, "unknown");
    let once_more: Vec<_> = sets.iter().map(|sets| sets + 1).collect();
    wait_until("one full set for each", LIMIT, || {
        Ok((full_sets(&cluster.agents) == once_more).then_some(()))
    })
    .unwrap();
    let said = session(&younger)["error"].to_string();
    assert!(said.contains("doesn't know this node") && said.contains("leave --force"), "{said}");
    let log = younger.log().unwrap();
    assert_eq!(log.matches("doesn't know this node").count(), 1, "{log}");
    ping_every_pair(&cluster.agents, LIMIT).unwrap();
    for flow in flows {
        let seen = flow.stop().unwrap();
        assert!(seen.sent > 50 && seen.lost == 0, "{seen:?}");
    }
    assert_eq!(full_sets(&cluster.agents), once_more, "and no other");

    // What its status says, done.
    run(&mut younger.command(&["leave", "--force"]).unwrap()).unwrap();
    let token = cluster.token("mesh").unwrap();
    cluster.agent("again", &token).unwrap();
    ping_every_pair(&cluster.agents, LIMIT).unwrap();
}
