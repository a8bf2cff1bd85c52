//! Five machines on the kernel's own WireGuard: real processes, real TLS, the netlink path. What the
//! devices hold is asked of the kernel by `ip` and `wg`, not of the agents. Run by
//! `integration/kernel-tests.sh`; not among the tests that `cargo test` runs unasked.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use wattle_integration::{Agent, Cluster, Flow, Settings, ping, ping_every_pair, run, wait_until};

/// Generous: an emulated machine is 10 to 15 times slower, and what emulates it may be busy.
const LIMIT: Duration = Duration::from_secs(120);
const NAMES: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];

#[test]
fn five_nodes_mesh_restart_and_forget_on_the_kernels_wireguard() {
    let settings = Settings { dataplane: "kernel".to_owned(), ..Settings::default() };
    let cluster = Cluster::start(settings).unwrap();
    let token = cluster.control_plane.token().unwrap();
    let mut agents = cluster.agents(&NAMES, &token).unwrap();
    agents.iter().for_each(assert_on_the_kernel);
    wait_full_mesh(&agents);
    ping_every_pair(&agents, LIMIT).unwrap();

    restart_under_traffic(&mut agents);
    wait_full_mesh(&agents);
    delete_the_last(&cluster, &mut agents);
    ping_every_pair(&agents, LIMIT).unwrap();
}

/// The kernel carries packets while no agent runs, and the next one leaves them alone.
fn restart_under_traffic(agents: &mut [Agent]) {
    let (there, back) = (agents[0].addresses().unwrap(), agents[1].addresses().unwrap());
    let interval = Duration::from_millis(200);
    let flows = [
        Flow::start(agents[1].host(), there[0], interval).unwrap(),
        Flow::start(agents[0].host(), back[1], interval).unwrap(),
    ];
    let before = device(&agents[0]);
    agents[0].kill().unwrap();
    agents[0].restart().unwrap();
    wait_until("the restarted agent's stream", LIMIT, || {
        let status = agents[0].status().ok();
        Ok(status.filter(|status| status["session"]["state"] == "connected"))
    })
    .unwrap();
    for flow in flows {
        let seen = flow.stop().unwrap();
        assert!(seen.sent > 0, "{seen:?}");
        assert_eq!(seen.lost, 0, "{seen:?}");
    }
    assert_eq!(device(&agents[0]), before, "the device was adopted, not made anew");
}

fn delete_the_last(cluster: &Cluster, agents: &mut Vec<Agent>) {
    let mut deleted = agents.pop().unwrap();
    let [address, _] = deleted.addresses().unwrap();
    let key = device(&deleted).remove(0);
    cluster.control_plane.wattle(&["node", "delete", deleted.name(), "--yes"]).unwrap();
    for agent in agents.iter() {
        wait_until(&format!("a device of {} without it", agent.name()), LIMIT, || {
            Ok((!device(agent).contains(&key)).then_some(()))
        })
        .unwrap();
        assert_eq!(device(agent).len(), agents.len(), "its own key and its peers'");
        assert!(!ping(agent.host(), address, Duration::from_secs(1)).unwrap());
    }
    assert_eq!(deleted.wait_end(LIMIT).unwrap(), Some(3));
    assert!(!deleted.host().has_link("wattle0"));
}

/// What the agent says is what the kernel has.
fn assert_on_the_kernel(agent: &Agent) {
    let name = agent.name();
    let status = wait_until(&format!("a device of {name}"), LIMIT, || {
        Ok(agent.status().ok().filter(|_| agent.host().has_link("wattle0")))
    });
    assert_eq!(status.unwrap()["data_plane"]["kind"], "kernel", "{name}");
    let mut show = agent.host().command("ip");
    let link = run(show.args(["-d", "link", "show", "wattle0"])).unwrap();
    assert!(link.contains("wireguard"), "{name}: {link}");
}

fn wait_full_mesh(agents: &[Agent]) {
    for agent in agents {
        wait_until(&format!("all peers in the device of {}", agent.name()), LIMIT, || {
            Ok((device(agent).len() == agents.len()).then_some(()))
        })
        .unwrap();
    }
}

/// The public keys of an agent's device: its own first, then its peers'.
fn device(agent: &Agent) -> Vec<String> {
    let show = |what| run(agent.host().command("wg").args(["show", "wattle0", what])).unwrap();
    let mut peers: Vec<_> = show("peers").lines().map(str::to_owned).collect();
    peers.sort();
    [vec![show("public-key").trim().to_owned()], peers].concat()
}
