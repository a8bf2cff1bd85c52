//! The demo's steps.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::Value;
use wattle_integration::{Agent, Cluster, Process, Settings, binary, ping, wait_until};

use crate::{
    report::Figures,
    say::{chapter, line},
};

const LIMIT: Duration = Duration::from_secs(20);

/// Tells it all. Whether everything held.
pub(crate) fn tell() -> Result<bool> {
    let mut figures = Figures::default();

    chapter("One control plane");
    let begun = Instant::now();
    let cluster = Cluster::start(Settings { dataplane: "auto".to_owned(), ..Settings::default() })?;
    line(&format!(
        "started in {:.0} ms on {}:7443",
        millis(begun),
        cluster.control_plane.host().ipv4
    ));
    let token = cluster.control_plane.token()?;
    session(
        "wattle token create --network default --uses 0 --ttl 1h",
        &format!("{}…  (one string: where to go, whom to trust, the right to join)", &token[..20]),
    );

    chapter("Three machines join with it");
    let mut agents = cluster.agents(&["berlin", "tokyo", "oregon"], &token)?;
    wait_full_mesh(&agents)?;
    for agent in &agents {
        let [ipv4, ipv6] = agent.addresses()?;
        line(&format!("{:<8} {ipv4:<12} {ipv6}", agent.name()));
    }
    ping_all(&agents, &mut figures)?;
    line(&format!(
        "{} of {} pings through the tunnel answered: every pair, both directions, both families",
        figures.pairs_ok, figures.pairs
    ));

    chapter("A fourth machine joins");
    join_fourth(&cluster, &mut agents, &token, &mut figures)?;
    session("wattle node list", &cluster.control_plane.wattle(&["node", "list"])?);

    chapter("One is deleted");
    delete_one(&cluster, &mut agents, &mut figures)?;

    let path = Path::new(&binary("wattle-demo")?).ancestors().nth(2).map(|t| t.join("demo.json"));
    let path = path.context("no target folder")?;
    figures.write(&path)?;
    chapter("Cleaned up");
    line(&format!("figures: {}", path.display()));
    Ok(figures.pairs_ok == figures.pairs)
}

fn wait_full_mesh(agents: &[Agent]) -> Result<()> {
    for agent in agents {
        let mut others: Vec<_> =
            agents.iter().map(Agent::name).filter(|name| *name != agent.name()).collect();
        others.sort_unstable();
        agent.wait_peers(&others, LIMIT)?;
    }
    Ok(())
}

fn ping_all(agents: &[Agent], figures: &mut Figures) -> Result<()> {
    for from in agents {
        for to in agents.iter().filter(|to| to.name() != from.name()) {
            for address in to.addresses()? {
                figures.pairs += 1;
                figures.pairs_ok +=
                    usize::from(ping(from.host(), address, Duration::from_secs(3))?);
            }
        }
    }
    Ok(())
}

fn join_fourth(
    cluster: &Cluster,
    agents: &mut Vec<Agent>,
    token: &str,
    figures: &mut Figures,
) -> Result<()> {
    let target = agents[0].addresses()?[0];
    let host_ready = cluster.host("sydney")?;
    let before = &cluster.control_plane.json(&["status"])?["revision"];
    let watch = ["watch", "--after", &before.to_string(), "-o", "json"];
    let watch = cluster.control_plane.command(&watch)?;
    let watch = Process::spawn("watch", watch, cluster.folder())?;
    let begun = Instant::now();
    let sydney = cluster.agent_on(host_ready, token)?;
    wait_until("sydney's first ping", LIMIT, || {
        Ok(ping(sydney.host(), target, Duration::from_millis(100))?.then_some(()))
    })?;
    figures.join_to_first_ping_ms = millis(begun);
    line(&format!(
        "{:.0} ms from starting its agent to its first answered ping: keys, certificate, address, peers",
        figures.join_to_first_ping_ms
    ));

    let created = wait_until("sydney's enrolment in `wattle watch`", LIMIT, || {
        Ok(revision_of("sydney", &watch.output()?))
    })?;
    let applied = cluster.control_plane.json(&["wait", &created.to_string()])?;
    for (name, micros) in applied["applied_after_us"].as_object().context("no applied_after_us")? {
        let micros = micros.as_f64().context("applied_after_us holds numbers")?;
        figures.commit_to_applied_ms.insert(name.clone(), micros / 1000.0);
    }
    for (name, ms) in &figures.commit_to_applied_ms {
        line(&format!("{name:<8} had it in its WireGuard {ms:.1} ms after the commit"));
    }
    agents.push(sydney);
    wait_full_mesh(agents)
}

/// The first revision at which a line of `wattle watch -o json` speaks of this node.
fn revision_of(node: &str, lines: &str) -> Option<u64> {
    lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|line| {
        let changes = line["changes"].as_array()?;
        let of_node = |change: &Value| change["node"]["name"] == node;
        changes.iter().any(of_node).then(|| line["revision"].as_u64())?
    })
}

fn delete_one(cluster: &Cluster, agents: &mut Vec<Agent>, figures: &mut Figures) -> Result<()> {
    let mut gone = agents.remove(1);
    let begun = Instant::now();
    cluster.control_plane.wattle(&["node", "delete", gone.name(), "--yes"])?;
    wait_full_mesh(agents)?;
    figures.delete_to_gone_ms = millis(begun);
    line(&format!(
        "{:.0} ms from `wattle node delete {}` to its being gone from every device",
        figures.delete_to_gone_ms,
        gone.name()
    ));
    let code = gone.wait_end(LIMIT)?.unwrap_or_default();
    line(&format!("its own agent was told, took its link down and ended (exit code {code})"));
    anyhow::ensure!(!gone.host().has_link("wattle0"), "the deleted node's link is still there");
    for agent in agents.iter() {
        line(&format!("{:<8} now has {}", agent.name(), agent.peers()?.join(", ")));
    }
    Ok(())
}

fn millis(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1000.0
}

/// Shows a command and what it printed, as a person would see it.
fn session(command: &str, output: &str) {
    line(&format!("$ {command}"));
    output.trim_end().lines().for_each(line);
}
