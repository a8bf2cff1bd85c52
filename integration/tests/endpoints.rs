//! Where nodes are: behind NATs, and on the move. Public addresses, routers with nftables, encrypted
//! packets.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, and say what it measured"
)]

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    thread::sleep,
    time::Duration,
};

use wattle_integration::{
    Agent, Cluster, Flow, Nat, Settings, Site, Underlay, ping, run, wait_until,
};

/// Generous: an emulated machine is 10 to 15 times slower.
const LIMIT: Duration = Duration::from_secs(120);
const PORT: u16 = 51820;
/// Of a flow's packets.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long a node that has moved may be out of reach.
const HEALED: Duration = Duration::from_millis(500);

type Addresses = (Ipv4Addr, Ipv6Addr);

/// A public node, and two nodes each behind its own NAT. Fields drop in order: agents, then networks.
struct TwoSites {
    hub: Agent,
    tokyo: Agent,
    paris: Agent,
    routers: [Site; 2],
    cluster: Cluster,
}

impl TwoSites {
    fn start(nats: [Nat; 2]) -> Self {
        let cluster = Cluster::start_on(Underlay::public().unwrap(), Settings::default()).unwrap();
        let token = cluster.control_plane.token().unwrap();
        let hub = cluster.agent("hub", &token).unwrap();
        let [first, second] = nats;
        let routers = [("r-tokyo", 101, first), ("r-paris", 102, second)]
            .map(|(name, n, nat)| Site::new(cluster.underlay(), name, n, nat).unwrap());
        let agent = |site: &Site, name: &str| {
            let host = site.host(cluster.underlay(), name, 5).unwrap();
            cluster.agent_on(host, &token).unwrap()
        };
        let (tokyo, paris) = (agent(&routers[0], "tokyo"), agent(&routers[1], "paris"));
        Self { hub, tokyo, paris, routers, cluster }
    }

    /// Both reach each other without anybody in between, at these ports of their NATs.
    fn assert_direct(&self, ports: [u16; 2]) {
        for (from, to) in [(&self.tokyo, &self.paris), (&self.paris, &self.tokyo)] {
            wait_ping(from, to);
        }
        let [tokyo, paris] =
            [0, 1].map(|n| SocketAddr::from((self.routers[n].router().ipv4, ports[n])));
        assert_eq!(endpoint(&self.tokyo, "paris"), Some(paris));
        assert_eq!(endpoint(&self.paris, "tokyo"), Some(tokyo));
        assert_eq!(endpoint(&self.hub, "paris"), Some(paris));
    }
}

fn wait_ping(from: &Agent, to: &Agent) {
    let address = to.addresses().unwrap()[0];
    wait_until(&format!("a ping from {} to {}", from.name(), to.name()), LIMIT, || {
        Ok(ping(from.host(), address, Duration::from_secs(1))?.then_some(()))
    })
    .unwrap();
}

/// Where an agent's packets to a peer go.
fn endpoint(agent: &Agent, peer: &str) -> Option<SocketAddr> {
    let status = agent.status().unwrap();
    let peer = status["peers"].as_array()?.iter().find(|found| found["name"] == peer)?.clone();
    peer["endpoint"].as_str()?.parse().ok()
}

/// Keepalives are for those behind NAT alone. Asked of the kernel, where that has the device.
fn assert_keepalives(sites: &TwoSites) {
    if sites.hub.status().unwrap()["data_plane"]["kind"] != "kernel" {
        return;
    }
    for (agent, expected) in [(&sites.hub, "off"), (&sites.tokyo, "25"), (&sites.paris, "25")] {
        let mut wg = agent.host().command("wg");
        let said = run(wg.args(["show", "wattle0", "persistent-keepalive"])).unwrap();
        let said: Vec<_> = said.split_whitespace().skip(1).step_by(2).collect();
        assert_eq!(said, [expected; 2], "{}", agent.name());
    }
}

#[test]
fn two_sites_behind_nats_that_keep_ports_reach_each_other() {
    let sites = TwoSites::start([Nat::KeepsPorts; 2]);
    sites.assert_direct([PORT, PORT]);
    assert_keepalives(&sites);
}

/// Only the public node sees the ports that the NATs give.
#[test]
fn two_sites_behind_nats_that_change_ports_reach_each_other_once_a_public_node_has_seen_both() {
    let sites = TwoSites::start([Nat::ChangesPort(41_000), Nat::ChangesPort(42_000)]);
    sites.assert_direct([41_000, 42_000]);
}

/// The hub alone has something to say, so it is the control plane that tells it where the other one
/// went: WireGuard by itself would hear it up to 25 s later.
#[test]
fn a_node_that_moves_is_reached_again_at_once() {
    let cluster = Cluster::start_on(Underlay::public().unwrap(), Settings::default()).unwrap();
    let token = cluster.control_plane.token().unwrap();
    let [hub, roamer] = ["hub", "roamer"].map(|name| cluster.agent(name, &token).unwrap());
    wait_ping(&hub, &roamer);
    let index = || {
        let link = run(roamer.host().command("ip").args(["-o", "link", "show", "wattle0"]));
        link.unwrap().split(':').next().map(str::to_owned)
    };
    let (before, target) = (index(), roamer.addresses().unwrap()[0]);

    let mut at = (roamer.host().ipv4, roamer.host().ipv6);
    let mut gaps = Vec::new();
    for number in 201..206 {
        let flow = Flow::start(hub.host(), target, INTERVAL).unwrap();
        sleep(Duration::from_secs(1));
        at = go(&roamer, at, cluster.underlay().addresses(number));
        wait_until("a ping to where it went", LIMIT, || {
            let there = endpoint(&hub, "roamer")
                .is_some_and(|to| [at.0.into(), at.1.into()].contains(&to.ip()));
            Ok((there && ping(hub.host(), target, Duration::from_secs(1))?).then_some(()))
        })
        .unwrap();
        sleep(Duration::from_secs(1));
        gaps.push(INTERVAL * flow.stop().unwrap().lost);
    }
    println!("a node that moved was out of reach for {gaps:?}");
    assert_eq!(index(), before, "its link is the same");
    assert!(gaps.iter().all(|gap| *gap < HEALED * slowness()), "{gaps:?}");
    // Even where everything is slow, it can be done.
    assert!(gaps.iter().any(|gap| *gap < HEALED), "{gaps:?}");
}

/// Nobody can tell the hub which port the new NAT gives: it has to hear it from the node.
#[test]
fn a_node_that_moves_from_one_nat_to_another_is_reached_again_at_once() {
    let sites = TwoSites::start([Nat::KeepsPorts; 2]);
    let TwoSites { hub, tokyo, routers: [home, _], cluster, .. } = &sites;
    let nat = Nat::ChangesPort(43_000);
    let osaka = Site::new(cluster.underlay(), "r-osaka", 103, nat).unwrap();
    wait_ping(hub, tokyo);
    let target = tokyo.addresses().unwrap()[0];
    let mut gaps = Vec::new();
    for (site, port) in [(&osaka, 43_000), (home, PORT), (&osaka, 43_000)] {
        let flow = Flow::start(hub.host(), target, INTERVAL).unwrap();
        sleep(Duration::from_secs(1));
        // The same number: a NAT that it comes back to may still know it.
        site.take(tokyo.host(), 5).unwrap();
        let there = SocketAddr::from((site.router().ipv4, port));
        wait_until("a ping to where it went", LIMIT, || {
            let there = endpoint(hub, "tokyo") == Some(there);
            Ok((there && ping(hub.host(), target, Duration::from_secs(1))?).then_some(()))
        })
        .unwrap();
        sleep(Duration::from_secs(1));
        gaps.push(INTERVAL * flow.stop().unwrap().lost);
    }
    println!("a node that moved from NAT to NAT was out of reach for {gaps:?}");
    // What WireGuard sends by itself had it back after 7 to 12 s.
    let bound = (4 * HEALED * slowness()).min(Duration::from_secs(10));
    assert!(gaps.iter().all(|gap| *gap < bound), "{gaps:?}");
}

/// Gives a host other addresses. The old ones go first: another one of their subnet would go with them.
fn go(agent: &Agent, from: Addresses, to: Addresses) -> Addresses {
    for command in [
        format!("addr del {}/24 dev eth0", from.0),
        format!("addr del {}/64 dev eth0", from.1),
        format!("addr add {}/24 dev eth0", to.0),
        format!("addr add {}/64 dev eth0 nodad", to.1),
    ] {
        agent.host().ip(&command).unwrap();
    }
    to
}

/// An emulated machine is 10 to 15 times slower.
fn slowness() -> u32 {
    if std::env::var_os("WATTLE_TEST_EMULATED").is_some() { 15 } else { 1 }
}
