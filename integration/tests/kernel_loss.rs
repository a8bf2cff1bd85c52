//! The control plane is killed and stays away while every pair of machines talks, on the kernel's own
//! WireGuard; one agent is killed meanwhile and started again. Run by `integration/kernel-tests.sh`;
//! `WATTLE_LOSS_SECONDS` says for how long. Sessions live for 180 s, so from then on every one was
//! begun anew with no control plane there.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, and say what it measured"
)]

use std::{
    thread::sleep,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use wattle_integration::{
    Agent, Cluster, Flow, Lost, Settings, ping, ping_every_pair, run, wait_until,
};

/// Generous: an emulated machine is 10 to 15 times slower, and what emulates it may be busy.
const LIMIT: Duration = Duration::from_secs(180);
const NAMES: [&str; 4] = ["n1", "n2", "n3", "n4"];
/// Between two packets of a pair.
const INTERVAL: Duration = Duration::from_millis(200);
/// WireGuard refuses a session of this age.
const SESSION: Duration = Duration::from_secs(180);

#[test]
fn nothing_is_lost_while_the_control_plane_is_away() {
    let settings = Settings { dataplane: "kernel".to_owned(), ..Settings::default() };
    let mut cluster = Cluster::start(settings).unwrap();
    let token = cluster.control_plane.token().unwrap();
    let mut agents = cluster.agents(&NAMES, &token).unwrap();
    for agent in &agents {
        agent.wait_peers(&others(agent), LIMIT).unwrap();
    }
    ping_every_pair(&agents, LIMIT).unwrap();
    let devices: Vec<_> = agents.iter().map(device).collect();
    let flows = start_flows(&agents);

    let (away, begun) = (away(), Instant::now());
    let lost_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    cluster.control_plane.kill().unwrap();
    sleep(away / 2);
    restart_one(&mut agents[0]);
    sleep(away.saturating_sub(begun.elapsed()));
    let oldest = agents.iter().flat_map(handshakes).min().unwrap();
    if away > SESSION {
        assert!(oldest > lost_at, "a session wasn't begun anew: {oldest:?}, {lost_at:?}");
    }
    let now: Vec<_> = agents.iter().map(device).collect();
    assert_eq!(now, devices, "devices are as they were");

    cluster.control_plane.restart().unwrap();
    let back = Instant::now();
    wait_connected(&agents);
    println!("loss: all agents were connected again after {:.1} s", back.elapsed().as_secs_f32());
    // Before somebody comes who needs one.
    let full_sets = cluster.control_plane.full_sets().unwrap();
    let arrived = a_change_arrives(&cluster, &agents, &token);

    let seen: Vec<Lost> = flows.into_iter().map(|flow| flow.stop().unwrap()).collect();
    let (sent, lost) = seen.iter().fold((0, 0), |(sent, lost), s| (sent + s.sent, lost + s.lost));
    let silence = seen.iter().map(|seen| seen.silence).max().unwrap();
    let renewed = if oldest > lost_at { "every session begun anew" } else { "the same sessions" };
    println!(
        "loss of {} s: {lost} of {sent} packets lost on {} pairs, {renewed}, longest silence {} ms, \
         {} restarted, {full_sets} full sets, a change arrived after {:.1} s",
        away.as_secs(),
        seen.len(),
        silence.as_millis(),
        agents[0].name(),
        arrived.as_secs_f32(),
    );
    assert!(seen.iter().all(|seen| u64::from(seen.sent) > away.as_secs()), "{seen:?}");
    assert_eq!((lost, full_sets), (0, 0), "{seen:?}");
    assert_quiet_logs(&cluster, &agents);
}

/// 20 s, which is what CI has time for, or as long as somebody wants.
fn away() -> Duration {
    let seconds = std::env::var("WATTLE_LOSS_SECONDS").ok().filter(|text| !text.is_empty());
    Duration::from_secs(seconds.map_or(20, |text| text.parse().expect("a number of seconds")))
}

fn others(agent: &Agent) -> Vec<&'static str> {
    NAMES.into_iter().filter(|name| *name != agent.name()).collect()
}

/// A ping on every pair, one direction each, alternating the family.
fn start_flows(agents: &[Agent]) -> Vec<Flow> {
    let mut flows = Vec::new();
    for (i, from) in agents.iter().enumerate() {
        for (j, to) in agents.iter().enumerate().skip(i + 1) {
            let address = to.addresses().unwrap()[(i + j) % 2];
            flows.push(Flow::start(from.host(), address, INTERVAL).unwrap());
        }
    }
    flows
}

/// With nobody to ask, it takes over what is there.
fn restart_one(agent: &mut Agent) {
    agent.kill().unwrap();
    sleep(Duration::from_secs(1));
    agent.restart().unwrap();
    agent.wait_peers(&others(agent), LIMIT).unwrap();
    let status = agent.status().unwrap();
    assert_eq!(status["session"]["state"], "connecting", "{status}");
}

/// Its link's number, its key and its peers' keys and addresses.
fn device(agent: &Agent) -> Vec<String> {
    let host = agent.host();
    let link = run(host.command("ip").args(["-o", "link", "show", "wattle0"])).unwrap();
    let mut all = vec![link.split(':').next().unwrap().to_owned()];
    for what in ["public-key", "allowed-ips"] {
        let said = run(host.command("wg").args(["show", "wattle0", what])).unwrap();
        let mut lines: Vec<_> = said.lines().map(str::to_owned).collect();
        lines.sort();
        all.extend(lines);
    }
    all
}

/// When the last handshake with each peer was, since 1970.
fn handshakes(agent: &Agent) -> Vec<Duration> {
    let mut wg = agent.host().command("wg");
    let said = run(wg.args(["show", "wattle0", "latest-handshakes"])).unwrap();
    let seconds = said.lines().map(|line| line.split_whitespace().nth(1).unwrap().parse().unwrap());
    seconds.map(Duration::from_secs).collect()
}

fn wait_connected(agents: &[Agent]) {
    for agent in agents {
        wait_until(&format!("the stream of {}", agent.name()), LIMIT, || {
            let status = agent.status().ok();
            Ok(status.filter(|status| status["session"]["state"] == "connected"))
        })
        .unwrap();
    }
}

/// A machine joins, and everybody has it.
fn a_change_arrives(cluster: &Cluster, agents: &[Agent], token: &str) -> Duration {
    let fifth = cluster.agent("n5", token).unwrap();
    fifth.addresses().unwrap();
    let begun = Instant::now();
    for agent in agents {
        let expected = [&others(agent)[..], &["n5"]].concat();
        agent.wait_peers(&expected, LIMIT).unwrap();
    }
    let arrived = begun.elapsed();
    let address = fifth.addresses().unwrap()[0];
    for agent in agents {
        wait_until(&format!("a ping from {} to n5", agent.name()), LIMIT, || {
            Ok(ping(agent.host(), address, Duration::from_secs(2))?.then_some(()))
        })
        .unwrap();
    }
    arrived
}

/// A log level is a promise: nobody asked for an error here.
fn assert_quiet_logs(cluster: &Cluster, agents: &[Agent]) {
    let logs = agents.iter().map(|agent| agent.log().unwrap());
    for log in logs.chain([cluster.control_plane.log().unwrap()]) {
        let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
        assert!(errors.is_empty(), "{errors:#?}");
    }
}
