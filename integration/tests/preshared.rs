//! Preshared keys: turned on, derived of another secret and turned off under packets that go on; used by
//! every handshake; the same at both ends. On the kernel's WireGuard, too, where `wg` shows them.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, and says what it measured"
)]

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use serde_json::Value;
use wattle_integration::{Agent, Cluster, Flow, Settings, ping, ping_every_pair, run, wait_until};

const LIMIT: Duration = Duration::from_secs(180);
/// Between two packets of a pair.
const INTERVAL: Duration = Duration::from_millis(50);
/// Longer than a handshake and its repetition.
const UNANSWERED: Duration = Duration::from_secs(12);

#[test]
fn no_packet_is_lost_while_preshared_keys_come_change_and_go() {
    let (cluster, mut agents) = mesh();
    let kernel = agents[0].status().unwrap()["data_plane"]["kind"] == "kernel";
    let flows = flows(&agents);
    turn(&cluster, "on");
    settled(&cluster, &agents, 1);
    same_at_both_ends(&agents, kernel);

    change_secret(&cluster);
    settled(&cluster, &agents, 2);
    same_at_both_ends(&agents, kernel);
    // A userspace device ends with its agent, and what it carries with it.
    if kernel {
        while_one_is_away(&cluster, &mut agents);
    } else {
        change_secret(&cluster);
    }
    settled(&cluster, &agents, 3);
    same_at_both_ends(&agents, kernel);

    turn(&cluster, "off");
    for agent in &agents {
        wait_until("no preshared key", LIMIT, || {
            let keys = &agent.status()?["preshared_keys"];
            Ok((keys["announced"] == 4 && keys["peers"] == 0).then_some(()))
        })
        .unwrap();
    }
    std::thread::sleep(Duration::from_secs(1));
    let (mut sent, mut lost) = (0, 0);
    for flow in flows {
        let seen = flow.stop().unwrap();
        (sent, lost) = (sent + seen.sent, lost + seen.lost);
    }
    println!("preshared keys: on, changed twice, off: {lost} of {sent} packets lost");
    assert!(sent > 300, "{sent}");
    assert_eq!(lost, 0);
    for agent in &agents {
        let log = agent.log().unwrap();
        assert!(!log.contains("somebody changed the interface"), "{log}");
    }
}

/// The others go on to the new secret with each other, and stay with it at the one that it has.
fn while_one_is_away(cluster: &Cluster, agents: &mut [Agent]) {
    let before = preshared(&agents[0])[&public_key(&agents[2])].clone();
    agents[1].kill().unwrap();
    change_secret(cluster);
    wait_until("the others to hold it", LIMIT, || {
        let secret = cluster.control_plane.json(&["network", "get", "default"])?["secret"].clone();
        Ok((secret["nodes_holding"] == 2 && secret["nodes_behind"] == 1).then_some(()))
    })
    .unwrap();
    let refused = cluster.control_plane.wattle(&["network", "rotate-secret", "default"]);
    let refused = format!("{:#}", refused.unwrap_err());
    assert!(refused.contains("1 of network default still go by") && refused.contains("(n2)"));
    let keys = [0, 1, 2].map(|at| public_key(&agents[at]));
    wait_until("both others to use it with each other alone", LIMIT, || {
        let [one, two, three] = [0, 1, 2].map(|at| preshared(&agents[at]));
        let away = one[&keys[1]] == two[&keys[0]] && three[&keys[1]] == two[&keys[2]];
        let together = one[&keys[2]] == three[&keys[0]] && one[&keys[2]] != before;
        Ok((away && together).then_some(()))
    })
    .unwrap();
    agents[1].restart().unwrap();
}

/// A new link has no session, and begins one with its first packet: what is answered has shaken hands with
/// what both ends derived.
#[test]
fn every_handshake_takes_the_preshared_key() {
    let (cluster, mut agents) = mesh();
    turn(&cluster, "on");
    settled(&cluster, &agents, 1);
    anew(&mut agents[2], |_| {});
    assert!(is_heard(&agents), "with the right one");

    let identity = agents[2].state().join("identity.json");
    let right = fs::read(&identity).unwrap();
    anew(&mut agents[2], |kept| {
        kept["secrets"]["kept"][0]["secret"] =
            "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=".into();
    });
    assert!(!is_heard(&agents), "with one of another secret");
    ping_every_pair(&agents[..2], LIMIT).unwrap();
    anew(&mut agents[2], |kept| *kept = serde_json::from_slice(&right).unwrap());
    assert!(is_heard(&agents), "with the right one again");
}

/// Whether the first node answers the last one.
fn is_heard(agents: &[Agent]) -> bool {
    let (first, last) = (&agents[0], &agents[2]);
    wait_until("its peers", LIMIT, || {
        // It doesn't answer at once.
        Ok(last.peers().is_ok_and(|peers| peers.len() == 2).then_some(()))
    })
    .unwrap();
    let [address, _] = first.addresses().unwrap();
    let until = Instant::now() + UNANSWERED;
    while Instant::now() < until {
        if ping(last.host(), address, Duration::from_secs(2)).unwrap() {
            return true;
        }
    }
    false
}

/// Three nodes that have exchanged packets.
fn mesh() -> (Cluster, Vec<Agent>) {
    let names = ["n1", "n2", "n3"];
    let cluster = Cluster::start(Settings::default()).unwrap();
    let token = cluster.control_plane.token().unwrap();
    let agents = cluster.agents(&names, &token).unwrap();
    for agent in &agents {
        let others: Vec<_> = names.iter().copied().filter(|n| *n != agent.name()).collect();
        agent.wait_peers(&others, LIMIT).unwrap();
    }
    ping_every_pair(&agents, LIMIT).unwrap();
    (cluster, agents)
}

/// A running ping of each pair.
fn flows(agents: &[Agent]) -> Vec<Flow> {
    let pair = |from: usize| {
        let to = &agents[(from + 1) % agents.len()];
        let address = to.addresses().unwrap()[from % 2];
        Flow::start(agents[from].host(), address, INTERVAL).unwrap()
    };
    (0..agents.len()).map(pair).collect()
}

fn turn(cluster: &Cluster, switch: &str) {
    let update = ["network", "update", "default", "--preshared-keys", switch];
    cluster.control_plane.wattle(&update).unwrap();
}

fn change_secret(cluster: &Cluster) {
    cluster.control_plane.wattle(&["network", "rotate-secret", "default"]).unwrap();
}

/// Waits until all nodes hold a generation, and go by it with all others.
fn settled(cluster: &Cluster, agents: &[Agent], generation: u64) {
    let begun = Instant::now();
    wait_until(&format!("generation {generation} on all nodes"), LIMIT, || {
        let secret = cluster.control_plane.json(&["network", "get", "default"])?["secret"].clone();
        Ok((secret["generation"] == generation && secret["nodes_holding"] == 3).then_some(()))
    })
    .unwrap();
    for agent in agents {
        wait_until(&format!("generation {generation} at {}", agent.name()), LIMIT, || {
            // One that was just started doesn't answer yet.
            let Ok(status) = agent.status() else { return Ok(None) };
            let keys = &status["preshared_keys"];
            Ok((keys["announced"] == generation && keys["peers"] == 2).then_some(()))
        })
        .unwrap();
    }
    println!("preshared keys: generation {generation} is everywhere after {:?}", begun.elapsed());
}

/// What `wg` shows, at both ends of each pair.
fn same_at_both_ends(agents: &[Agent], kernel: bool) {
    if !kernel {
        return;
    }
    // The device's word comes some moments after the store's.
    wait_until("the same preshared keys at both ends", LIMIT, || {
        let ends: Vec<_> =
            agents.iter().map(|agent| (public_key(agent), preshared(agent))).collect();
        let same = ends.iter().all(|(key, keys)| {
            keys.iter().all(|(peer, preshared)| {
                let other = ends.iter().find(|(other, _)| other == peer);
                preshared != "(none)" && other.is_some_and(|(_, theirs)| theirs[key] == *preshared)
            })
        });
        Ok((same && ends.iter().all(|(_, keys)| keys.len() == 2)).then_some(()))
    })
    .unwrap();
}

/// The preshared key with each peer, by the peer's key.
fn preshared(agent: &Agent) -> BTreeMap<String, String> {
    let shown = agent.host().command("wg").args(["show", "wattle0", "preshared-keys"]).output();
    let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
    let pair = |line: &str| line.split_once('\t').map(|(a, b)| (a.to_owned(), b.to_owned()));
    shown.lines().filter_map(pair).collect()
}

fn public_key(agent: &Agent) -> String {
    let shown = agent.host().command("wg").args(["show", "wattle0", "public-key"]).output();
    String::from_utf8(shown.unwrap().stdout).unwrap().trim().to_owned()
}

/// Starts an agent again on a link that is new, with another identity file.
fn anew(agent: &mut Agent, change: impl FnOnce(&mut Value)) {
    let identity = agent.state().join("identity.json");
    agent.kill().unwrap();
    let mut kept: Value = serde_json::from_slice(&fs::read(&identity).unwrap()).unwrap();
    change(&mut kept);
    fs::write(&identity, kept.to_string()).unwrap();
    if agent.host().has_link("wattle0") {
        run(agent.host().command("ip").args(["link", "delete", "wattle0"])).unwrap();
    }
    agent.restart().unwrap();
}
