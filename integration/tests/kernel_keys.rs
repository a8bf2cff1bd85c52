//! Keys changed under traffic on the kernel's WireGuard, one node after the other: how long each pair is
//! silent. And what becomes of a change in the middle of which somebody is killed. Run by
//! `integration/kernel-tests.sh`; `WATTLE_TEST_NODES` says of how many nodes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    process::Command,
    sync::{Mutex, PoisonError},
    thread::sleep,
    time::{Duration, Instant},
};

use wattle_integration::{Agent, Cluster, Flow, Settings, ping, ping_every_pair, wait_until};

const LIMIT: Duration = Duration::from_secs(180);
/// Between two packets of a pair.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long a pair may be silent. An emulated machine is 10 to 15 times slower, and its agents take turns;
/// a pair that waits for a handshake to be repeated is silent for 5 s.
fn bound() -> Duration {
    let emulated = std::env::var_os("WATTLE_TEST_EMULATED").is_some();
    Duration::from_millis(if emulated { 500 } else { 150 })
}

/// What is measured isn't what else goes on.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_pair_is_hardly_silent_while_a_key_changes() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let names: Vec<_> = (1..=nodes()).map(|n| format!("n{n}")).collect();
    let (cluster, agents) = mesh(&names);
    // Each pair's session is there, and nobody joins any more.
    ping_every_pair(&agents, LIMIT).unwrap();
    let quiet = silences(&agents, 0, || sleep(Duration::from_secs(3)));
    report("nothing", &quiet);

    let mut worst = Vec::new();
    for changed in 0..agents.len() {
        let name = agents[changed].name();
        let before = public_key(&agents[changed]);
        let pairs = silences(&agents, changed, || {
            let done = cluster.control_plane.json(&["node", "rotate-key", name]).unwrap();
            assert_eq!(done[0]["state"], "done", "{done}");
            sleep(Duration::from_secs(1));
        });
        assert_ne!(public_key(&agents[changed]), before);
        report(name, &pairs);
        worst.extend(pairs);
    }
    let over: Vec<_> = worst.iter().filter(|pair| pair.silence > bound()).collect();
    println!(
        "keys: {} changes, {} pairs, longest silence {} ms, {} over {} ms, {} packets lost of {}",
        agents.len(),
        worst.len(),
        longest(&worst).as_millis(),
        over.len(),
        bound().as_millis(),
        worst.iter().map(|pair| pair.lost).sum::<u32>(),
        worst.iter().map(|pair| pair.sent).sum::<u32>(),
    );
    assert!(over.is_empty(), "{over:?}");
    for agent in &agents {
        let errors = agent.log().unwrap();
        assert!(!errors.contains("ERROR"), "{errors}");
    }
}

/// One pair while a key changed.
#[derive(Debug)]
struct Pair {
    with: String,
    sent: u32,
    lost: u32,
    silence: Duration,
}

/// Every other node talks with the `changed` one while `meanwhile` runs: half of them ask, half answer.
fn silences(agents: &[Agent], changed: usize, meanwhile: impl FnOnce()) -> Vec<Pair> {
    let others = agents.iter().enumerate().filter(|(n, _)| *n != changed);
    let flows: Vec<_> = others
        .map(|(n, other)| {
            let (from, to) = match n % 2 {
                0 => (&agents[changed], other),
                _ => (other, &agents[changed]),
            };
            let address = to.addresses().unwrap()[n % 2];
            (other.name().to_owned(), Flow::start(from.host(), address, INTERVAL).unwrap())
        })
        .collect();
    sleep(Duration::from_secs(1));
    meanwhile();
    let pairs = flows.into_iter().map(|(with, flow)| {
        let seen = flow.stop().unwrap();
        Pair { with, sent: seen.sent, lost: seen.lost, silence: seen.silence }
    });
    pairs.collect()
}

fn report(name: &str, pairs: &[Pair]) {
    let all: Vec<_> = pairs
        .iter()
        .map(|pair| format!("{} {} ms (-{})", pair.with, pair.silence.as_millis(), pair.lost))
        .collect();
    println!("keys: {name} changed: {}", all.join(", "));
}

fn longest(pairs: &[Pair]) -> Duration {
    pairs.iter().map(|pair| pair.silence).max().unwrap_or_default()
}

#[test]
fn a_change_goes_on_whoever_is_killed_in_the_middle() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut cluster, mut agents) = mesh(&["n1".to_owned(), "n2".to_owned(), "n3".to_owned()]);
    ping_every_pair(&agents, LIMIT).unwrap();
    // An agent, at any moment of its change.
    for wait in [0, 400, 900, 1300, 1700] {
        let before = public_key(&agents[1]);
        ask(&cluster, "n2");
        sleep(Duration::from_millis(wait));
        agents[1].kill().unwrap();
        agents[1].restart().unwrap();
        changed(&agents[1], &before);
        ping_every_pair(&agents, LIMIT).unwrap();
    }
    // The control plane, and nobody loses a packet for it.
    for wait in [0, 700, 1400] {
        let before = public_key(&agents[2]);
        ask(&cluster, "n3");
        sleep(Duration::from_millis(wait));
        cluster.control_plane.kill().unwrap();
        let [address, _] = agents[2].addresses().unwrap();
        assert!(ping(agents[0].host(), address, Duration::from_secs(10)).unwrap());
        cluster.control_plane.restart().unwrap();
        changed(&agents[2], &before);
        ping_every_pair(&agents, LIMIT).unwrap();
    }
}

fn mesh(names: &[String]) -> (Cluster, Vec<Agent>) {
    let cluster =
        Cluster::start(Settings { dataplane: "kernel".to_owned(), ..Settings::default() }).unwrap();
    let token = cluster.control_plane.token().unwrap();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let agents = cluster.agents(&names, &token).unwrap();
    for agent in &agents {
        let mut others: Vec<_> = names.iter().copied().filter(|n| *n != agent.name()).collect();
        others.sort_unstable();
        agent.wait_peers(&others, LIMIT).unwrap();
    }
    (cluster, agents)
}

fn ask(cluster: &Cluster, node: &str) {
    let mut asked: Command =
        cluster.control_plane.command(&["node", "rotate-key", node, "--no-wait"]).unwrap();
    wattle_integration::run(&mut asked).unwrap();
}

fn changed(agent: &Agent, before: &str) {
    let begun = Instant::now();
    wait_until(&format!("another key of {}", agent.name()), LIMIT, || {
        let status = agent.status().ok();
        let key = status.map(|status| status["data_plane"]["public_key"].clone());
        Ok(key.filter(|key| key != before && !key.is_null()))
    })
    .unwrap();
    println!("keys: {} changed {:?} after it was asked again", agent.name(), begun.elapsed());
}

fn public_key(agent: &Agent) -> String {
    agent.status().unwrap()["data_plane"]["public_key"].as_str().unwrap().to_owned()
}

/// Ten where there is time for them.
fn nodes() -> usize {
    std::env::var("WATTLE_TEST_NODES").ok().and_then(|n| n.parse().ok()).unwrap_or(4)
}
