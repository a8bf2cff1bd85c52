//! What the agent does to a host whose kernel has WireGuard, and what it leaves alone: drift, foreign
//! objects, routes, MTU, capabilities, leaving. What is there is asked of the kernel by `ip`, `wg`
//! and `nft`. Run by `integration/kernel-tests.sh`; not among the tests that `cargo test` runs unasked.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::chown,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;
use wattle_integration::{
    Agent, Cluster, Flow, Host, Process, Settings, binary, ping, run, wait_until,
};

/// Generous: an emulated machine is 10 to 15 times slower, and what emulates it may be busy.
const LIMIT: Duration = Duration::from_secs(120);
/// How soon the agent puts right what the kernel tells it of, and what it has to look for.
const TOLD: Duration = Duration::from_secs(5);
const LOOKED_FOR: Duration = Duration::from_secs(30);
/// Of an emulated machine, for the test's own commands.
const GRACE: Duration = Duration::from_secs(3);

fn cluster() -> (Cluster, String) {
    let settings = Settings { dataplane: "kernel".to_owned(), ..Settings::default() };
    let cluster = Cluster::start(settings).unwrap();
    let token = cluster.control_plane.token().unwrap();
    (cluster, token)
}

fn output(host: &Host, command: &str) -> String {
    let mut words = command.split_whitespace();
    run(host.command(words.next().unwrap()).args(words)).unwrap()
}

fn status(agent: &Agent) -> Value {
    agent.status().unwrap()
}

fn wait_pings(agent: &Agent, address: std::net::IpAddr) {
    wait_until(&format!("a ping from {} to {address}", agent.name()), LIMIT, || {
        Ok(ping(agent.host(), address, Duration::from_secs(2))?.then_some(()))
    })
    .unwrap();
}

/// What belongs to the agent, one line each, without what differs from one making to the next.
fn own(host: &Host) -> BTreeSet<String> {
    let show = |command: &str| {
        let mut words = command.split_whitespace();
        run(host.command(words.next().unwrap()).args(words)).unwrap_or_default()
    };
    let mut all = BTreeSet::new();
    for line in show("ip -o addr show dev wattle0").lines() {
        let net = line.split_whitespace().skip_while(|w| !w.starts_with("inet")).nth(1).unwrap();
        if !net.starts_with("fe80") {
            all.insert(format!("address {net}"));
        }
    }
    for family in ["-4", "-6"] {
        for line in show(&format!("ip {family} route show table all dev wattle0")).lines() {
            let table = line.split("table ").nth(1).and_then(|t| t.split(' ').next());
            let first = line.split_whitespace().next().unwrap();
            let unicast =
                !["local", "broadcast", "multicast", "anycast", "fe80::/64"].contains(&first);
            if unicast {
                all.insert(format!("route {family} {first} table {}", table.unwrap_or("main")));
            }
        }
        let rules = show(&format!("ip {family} rule"));
        all.extend(
            rules.lines().filter(|l| l.contains("proto 87")).map(|l| format!("{family} {l}")),
        );
    }
    let link = show("ip -o link show wattle0");
    let word = |after: &str| link.split(after).nth(1).and_then(|r| r.split([' ', ',', '>']).next());
    all.insert(format!("mtu {}, up {}", word("mtu ").unwrap_or("?"), link.contains(",UP")));
    for what in ["public-key", "listen-port", "fwmark", "allowed-ips", "preshared-keys"] {
        for line in show(&format!("wg show wattle0 {what}")).lines() {
            // In whatever order the prefixes were given.
            let words: BTreeSet<&str> = line.split_whitespace().collect();
            all.insert(format!("{what} {words:?}"));
        }
    }
    all
}

/// Everything that isn't the agent's.
fn foreign(host: &Host) -> Vec<String> {
    let commands = [
        "ip -d link show dev other0",
        "ip addr show dev other0",
        "ip route show table all dev other0",
        "ip -6 route show table all dev other0",
        "ip route show table 777",
        "ip addr show dev eth0",
        "ip route show dev eth0",
        "wg show other1",
        "nft list ruleset",
    ];
    let rules = |family| {
        let all = output(host, &format!("ip {family} rule"));
        all.lines().filter(|l| !l.contains("proto 87")).collect::<Vec<_>>().join("\n")
    };
    let mut all: Vec<String> = commands.iter().map(|command| output(host, command)).collect();
    all.extend(["-4", "-6"].map(rules));
    all
}

fn make_foreign_objects(host: &Host) {
    for command in [
        "link add other0 type dummy",
        "addr add 198.51.100.1/24 dev other0",
        "addr add 2001:db8:9::1/64 dev other0 nodad",
        "link set other0 up",
        "route add 203.0.113.0/24 dev other0",
        "route add 198.18.0.0/15 dev other0 table 777",
        "rule add from 198.18.0.1 lookup 777 pref 5000",
        "-6 rule add from 2001:db8:9::7 lookup 777 pref 5000",
        "link add other1 type wireguard",
    ] {
        host.ip(command).unwrap();
    }
    let peer = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=";
    output(host, &format!("wg set other1 peer {peer} allowed-ips 198.19.0.0/16"));
    output(host, "nft add table inet other");
    output(host, "nft add chain inet other input { type filter hook input priority 0 ; }");
}

/// Each thing that somebody does to the agent's link behind its back.
#[test]
fn drift_is_put_right_counted_and_nothing_else_is_touched() {
    let (cluster, token) = cluster();
    let mut one = cluster.agent("n1", &token).unwrap();
    let two = cluster.agent("n2", &token).unwrap();
    make_foreign_objects(one.host());
    one.wait_peers(&["n2"], LIMIT).unwrap();
    one.kill().unwrap();
    one.restart_with(&["--route", "172.20.0.0/16=n2,0.0.0.0/0=n2,fd20::/48=n2"]).unwrap();
    let theirs = two.addresses().unwrap();
    wait_pings(&one, theirs[0]);
    settle(&one);
    let (right, others) = (own(one.host()), foreign(one.host()));
    assert!(right.contains("route -4 172.20.0.0/16 table main"), "{right:#?}");
    assert!(right.contains("route -4 default table 22343"), "{right:#?}");
    assert!(right.contains("route -6 fd20::/48 table main"), "{right:#?}");

    told(&one, &right);
    assert_eq!(foreign(one.host()), others);
    looked_for(&one, &right);
    assert_eq!(foreign(one.host()), others);
    wait_pings(&one, theirs[1]);
    with_foreign_objects_on_the_link(&one, &right);

    let log = one.log().unwrap();
    for said in ["the route to 10.90.0.0/16 was missing", "the link was gone", "was missing"] {
        assert!(log.contains(said), "{said}: {log}");
    }
    let repairs = status(&one)["data_plane"]["repairs"].clone();
    for kind in ["address", "key", "link", "mark", "mtu", "peer", "port", "route", "rule", "state"]
    {
        assert!(repairs[kind].as_u64().is_some_and(|count| count > 0), "{kind}: {repairs}");
    }
    // Ten seconds are between two lines of the log, however much was done.
    let warnings =
        log.lines().filter(|line| line.contains("somebody changed the interface")).count();
    assert!((2..25).contains(&warnings), "{warnings}: {log}");
}

/// Waits until the agent has found nothing to do.
fn settle(agent: &Agent) {
    wait_until("a device that is right", LIMIT, || {
        let set = &status(agent)["set"];
        Ok((set["revision"] == set["verified_revision"]).then_some(()))
    })
    .unwrap();
    sleep(Duration::from_secs(1));
}

/// Of these the kernel tells.
fn told(one: &Agent, right: &BTreeSet<String>) {
    let net6 = own_prefix(one.host());
    let [v4, v6] = ["address 10.90.", "address fd"].map(|start| {
        let line = right.iter().find(|line| line.starts_with(start)).unwrap();
        line.trim_start_matches("address ")
    });
    let cases = [
        "ip route del 10.90.0.0/16 dev wattle0".to_owned(),
        "ip route del 172.20.0.0/16 dev wattle0".to_owned(),
        "ip route flush table 22343".to_owned(),
        format!("ip -6 route del {net6} dev wattle0"),
        "ip route flush dev wattle0".to_owned(),
        "ip rule del pref 14686".to_owned(),
        "ip rule del pref 14687".to_owned(),
        format!("ip addr del {v4} dev wattle0"),
        format!("ip addr del {v6} dev wattle0"),
        "ip addr add 10.90.200.200/16 dev wattle0".to_owned(),
        "ip link set wattle0 mtu 9000".to_owned(),
        "ip link set wattle0 down".to_owned(),
        "ip addr flush dev wattle0".to_owned(),
        "ip link del wattle0".to_owned(),
    ];
    for case in cases {
        if case.starts_with("ip link del") {
            // So that it is said, and not only counted.
            sleep(Duration::from_secs(10));
        }
        output(one.host(), &case);
        put_right(one, right, TOLD, &case);
    }
}

fn own_prefix(host: &Host) -> String {
    let routes = output(host, "ip -6 route show dev wattle0 proto kernel");
    let line = routes.lines().find(|line| line.starts_with("fd") && !line.starts_with("fd20"));
    line.unwrap().split(' ').next().unwrap().to_owned()
}

/// Of these it doesn't: all at once, so that it is waited for once.
fn looked_for(one: &Agent, right: &BTreeSet<String>) {
    let host = one.host();
    let peer = output(host, "wg show wattle0 peers").trim().to_owned();
    let stranger = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAI=";
    let secret = one.state().join("secret");
    fs::write(&secret, output(host, "wg genpsk")).unwrap();
    let secret = secret.display();
    output(host, &format!("wg set wattle0 listen-port 5182 fwmark 9 private-key {secret}"));
    output(host, &format!("wg set wattle0 peer {stranger} allowed-ips 10.90.0.77/32"));
    output(
        host,
        &format!("wg set wattle0 peer {peer} preshared-key {secret} allowed-ips 10.90.0.78/32"),
    );
    put_right(one, right, LOOKED_FOR, "wg set");
    output(host, &format!("wg set wattle0 peer {peer} remove"));
    put_right(one, right, LOOKED_FOR, "wg set peer remove");
}

/// Somebody's address and route on the agent's own link.
fn with_foreign_objects_on_the_link(one: &Agent, right: &BTreeSet<String>) {
    let host = one.host();
    host.ip("addr add 192.0.2.1/32 dev wattle0").unwrap();
    host.ip("route add 198.51.101.0/24 dev wattle0").unwrap();
    output(host, "ip link set wattle0 mtu 1300");
    let mut expected = right.clone();
    expected.insert("address 192.0.2.1/32".to_owned());
    expected.insert("route -4 198.51.101.0/24 table main".to_owned());
    put_right(one, &expected, TOLD, "an address and a route of somebody's");
    sleep(Duration::from_secs(2));
    assert_eq!(own(host), expected, "they stay");
}

fn put_right(agent: &Agent, right: &BTreeSet<String>, limit: Duration, case: &str) {
    let begun = Instant::now();
    let mut seen = BTreeSet::new();
    let repaired = wait_until(case, limit + GRACE, || {
        seen = own(agent.host());
        Ok((seen == *right).then_some(()))
    });
    let differ: Vec<_> = seen.symmetric_difference(right).collect();
    assert!(repaired.is_ok(), "after {case}: {differ:#?}\n{}", agent.log().unwrap());
    println!("put right in {:4.1} s: {case}", begun.elapsed().as_secs_f32());
}

/// Everything that there is on a host. Links have their numbers, and counters aren't shown.
fn everything(host: &Host) -> Vec<String> {
    [
        "ip -d link",
        "ip addr",
        "ip route show table all",
        "ip -6 route show table all",
        "ip rule",
        "ip -6 rule",
        "nft list ruleset",
        "ip neigh show nud permanent",
    ]
    .map(|command| output(host, command))
    .to_vec()
}

/// Uninstalling takes away what was made on the host, and keeps the identity; leaving takes all.
#[test]
fn leaving_and_uninstalling_leave_nothing_behind() {
    let (cluster, token) = cluster();
    let host = cluster.host("n1").unwrap();
    make_foreign_objects(&host);
    // Until then the kernel checks whether its own addresses are somebody else's, too.
    sleep(Duration::from_secs(4));
    let before = everything(&host);
    let mut one = cluster.agent_on(host, &token).unwrap();
    let two = cluster.agent("n2", &token).unwrap();
    one.wait_peers(&["n2"], LIMIT).unwrap();
    one.kill().unwrap();
    let routed = ["--route", "0.0.0.0/0=n2,::/0=n2,172.20.0.0/16=n2"];
    one.restart_with(&routed).unwrap();
    one.wait_peers(&["n2"], LIMIT).unwrap();
    settle(&one);
    assert_eq!(output(one.host(), "ip rule").matches("proto 87").count(), 2);

    let refused = run(&mut one.command(&["down"]).unwrap()).unwrap_err();
    assert!(refused.to_string().contains("runs"), "{refused}");
    one.kill().unwrap();
    run(&mut one.command(&["down", "--dataplane", "kernel"]).unwrap()).unwrap();
    assert_eq!(everything(one.host()), before, "after uninstalling");
    assert!(one.state().join("identity.json").exists());

    one.restart_with(&routed).unwrap();
    wait_pings(&one, two.addresses().unwrap()[0]);
    run(&mut one.command(&["leave"]).unwrap()).unwrap();
    one.wait_end(LIMIT).unwrap();
    assert_eq!(everything(one.host()), before, "after leaving");
    let left: Vec<_> = fs::read_dir(one.state()).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"]);
    two.wait_peers(&[], LIMIT).unwrap();
}

/// An agent without privileges but CAP_NET_ADMIN does all there is to do; one without that says so.
#[test]
fn one_capability_is_enough_and_its_lack_is_named() {
    let (cluster, token) = cluster();
    let two = cluster.agent("n2", &token).unwrap();
    let host = cluster.host("n1").unwrap();
    let folder = cluster.folder();
    run(std::process::Command::new("chmod").arg("711").arg(folder)).unwrap();
    let state = folder.join("unprivileged");
    fs::create_dir(&state).unwrap();
    chown(&state, Some(65534), Some(65534)).unwrap();
    let token_file = state.join("token");
    fs::write(&token_file, &token).unwrap();
    chown(&token_file, Some(65534), Some(65534)).unwrap();
    let agent = |capabilities: &str| {
        let mut command = host.command("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"])
            .args([format!("--inh-caps={capabilities}"), format!("--ambient-caps={capabilities}")])
            .arg(binary("wattle-agent").unwrap())
            .args(["run", "--dataplane", "kernel", "--name", "n1", "--token-file"])
            .arg(&token_file)
            .arg("--state-dir")
            .arg(&state);
        command
    };
    let refused = run(&mut agent("-all")).unwrap_err().to_string();
    for word in ["lacks CAP_NET_ADMIN", "AmbientCapabilities=CAP_NET_ADMIN", "setcap", "wattle0"] {
        assert!(refused.contains(word), "{word}: {refused}");
    }
    let process = Process::spawn("agent-n1", agent("-all,+net_admin"), folder).unwrap();
    two.wait_peers(&["n1"], LIMIT).unwrap();
    let address = two.addresses().unwrap()[0];
    wait_until("a ping from the agent without privileges", LIMIT, || {
        Ok(ping(&host, address, Duration::from_secs(2))?.then_some(()))
    })
    .unwrap();
    let running = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    assert!(running.contains("CapEff:\t0000000000001000\n"), "{running}");
    assert!(running.contains("Uid:\t65534"), "{running}");
}

/// The tunnel's own packets take the underlay's default route, everybody else's the mesh's. The MTU
/// is the path's, to the byte, and what is laid over the mesh fits it.
#[test]
fn a_default_route_through_the_mesh_spares_the_tunnel_and_the_mtu_is_the_path_s() {
    let (cluster, token) = cluster();
    let mut two = cluster.agent("n2", &token).unwrap();
    let (far, elsewhere) = ("203.0.113.1", "198.51.100.2");
    for (address, link) in [(far, "far0"), (elsewhere, "else0")] {
        two.host().ip(&format!("link add {link} type dummy")).unwrap();
        two.host().ip(&format!("addr add {address}/32 dev {link}")).unwrap();
        two.host().ip(&format!("link set {link} up")).unwrap();
    }
    // Once it has joined.
    two.addresses().unwrap();
    two.kill().unwrap();
    two.restart_with(&["--endpoint", &format!("{elsewhere}:51820")]).unwrap();
    wait_until("the endpoint in the control plane", LIMIT, || {
        let node = cluster.control_plane.json(&["node", "get", "n2"])?;
        Ok(node["endpoints"].to_string().contains(elsewhere).then_some(()))
    })
    .unwrap();

    // A host to which nobody is a neighbour.
    let host = cluster.host("n1").unwrap();
    let (own, gateway) = (host.ipv4, two.host().ipv4);
    for command in [
        format!("addr add {own}/32 dev eth0"),
        format!("addr del {own}/24 dev eth0"),
        "route add 192.168.77.0/24 dev eth0".to_owned(),
        format!("route add default via {gateway}"),
    ] {
        host.ip(&command).unwrap();
    }
    let mut one = cluster.agent_on(host, &token).unwrap();
    one.wait_peers(&["n2"], LIMIT).unwrap();
    one.kill().unwrap();
    one.restart_with(&["--route", "0.0.0.0/0=n2"]).unwrap();
    wait_until("the endpoint that only a default route reaches", LIMIT, || {
        let endpoints = output(one.host(), "wg show wattle0 endpoints");
        Ok(endpoints.contains(elsewhere).then_some(()))
    })
    .unwrap();
    // The underlay leads there, too, until the agent has taken the default route.
    wait_until("a default route through the mesh", LIMIT, || {
        let path = output(one.host(), &format!("ip route get {far}"));
        Ok(path.contains("dev wattle0").then_some(()))
    })
    .unwrap();
    wait_pings(&one, far.parse().unwrap());
    let path = output(one.host(), &format!("ip route get {elsewhere} mark 0x5747"));
    assert!(path.contains("dev eth0"), "{path}");

    // IPv4 and IPv6 in the underlay: 1500 less 80.
    mtu_is(&one, &two, 1420);
    one.host().ip("link set eth0 mtu 1400").unwrap();
    let begun = Instant::now();
    wait_until("an MTU that follows", TOLD + GRACE, || {
        Ok(output(one.host(), "ip -o link show wattle0").contains("mtu 1320 ").then_some(()))
    })
    .unwrap();
    println!("the MTU followed in {:.1} s", begun.elapsed().as_secs_f32());
    assert!(status(&one)["data_plane"]["repairs"].get("mtu").is_none(), "nobody meddled");
    mtu_is(&one, &two, 1320);
    vxlan_inside(&one, &two);
}

/// The network's MTU is given to links that packets flow through, and taken back; what a machine's own
/// administrator says counts more.
#[test]
fn the_network_s_mtu_changes_under_traffic() {
    let (cluster, token) = cluster();
    let mut one = cluster.agent("n1", &token).unwrap();
    let two = cluster.agent("n2", &token).unwrap();
    let [here, there] = [&one, &two].map(|agent| agent.addresses().unwrap());
    wait_pings(&one, there[0]);
    wait_pings(&two, here[1]);
    settle(&one);
    settle(&two);
    let interval = Duration::from_millis(50);
    let flows = [(&one, there[0]), (&two, here[1])]
        .map(|(from, to)| Flow::start(from.host(), to, interval).unwrap());
    let before = [&one, &two].map(link_number);

    for (said, bytes) in [("1380", 1380), ("1280", 1280), ("auto", 1420)] {
        let begun = Instant::now();
        cluster.control_plane.wattle(&["network", "update", "default", "--mtu", said]).unwrap();
        wait_mtu(&one, bytes);
        wait_mtu(&two, bytes);
        println!("an MTU of {said} arrived in {:.1} s", begun.elapsed().as_secs_f32());
        mtu_is(&one, &two, bytes);
    }
    let refused = cluster.control_plane.wattle(&["network", "update", "default", "--mtu", "1279"]);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("1279 bytes are too few where there is IPv6"), "{refused}");
    for flow in flows {
        let seen = flow.stop().unwrap();
        println!("{} of {} packets lost while the MTU changed", seen.lost, seen.sent);
        assert!(seen.sent > 50 && seen.lost == 0, "{seen:?}");
    }
    assert_eq!([&one, &two].map(link_number), before, "the links are the same");

    one.kill().unwrap();
    one.restart_with(&["--mtu", "1350"]).unwrap();
    cluster.control_plane.wattle(&["network", "update", "default", "--mtu", "1400"]).unwrap();
    wait_mtu(&two, 1400);
    settle(&two);
    output(two.host(), "ip link set wattle0 mtu 9000");
    wait_mtu(&two, 1400);
    settle(&one);
    for (agent, mtu, from, repairs) in [(&one, 1350, "flag", 0), (&two, 1400, "network", 1)] {
        wait_mtu(agent, mtu);
        let plane = &status(agent)["data_plane"];
        let repaired = plane["repairs"]["mtu"].as_u64().unwrap_or_default();
        assert_eq!((&plane["mtu_from"], repaired), (&from.into(), repairs), "{plane}");
    }
}

fn link_number(agent: &Agent) -> String {
    let link = output(agent.host(), "ip -o link show wattle0");
    link.split(':').next().unwrap().to_owned()
}

fn wait_mtu(agent: &Agent, bytes: u32) {
    wait_until(&format!("an MTU of {bytes} on {}", agent.name()), LIMIT, || {
        let link = output(agent.host(), "ip -o link show wattle0");
        Ok(link.contains(&format!("mtu {bytes} ")).then_some(()))
    })
    .unwrap();
}

/// Pings that may not be cut pass at this size, and not a byte above.
fn mtu_is(one: &Agent, two: &Agent, mtu: u32) {
    for (address, headers) in two.addresses().unwrap().into_iter().zip([28, 48]) {
        wait_pings(one, address);
        let try_size = |size: u32| {
            let (size, to) = ((size - headers).to_string(), address.to_string());
            let arguments = ["-n", "-q", "-c2", "-W5", "-M", "do", "-s", &size, &to];
            run(one.host().command("ping").args(arguments))
        };
        try_size(mtu).unwrap();
        assert!(try_size(mtu + 1).is_err(), "{address}");
    }
}

fn vxlan_inside(one: &Agent, two: &Agent) {
    let (here, there) = (one.addresses().unwrap()[0], two.addresses().unwrap()[0]);
    for (agent, local, remote, number) in [(one, here, there, 1), (two, there, here, 2)] {
        let host = agent.host();
        host.ip(&format!(
            "link add vx0 type vxlan id 7 local {local} remote {remote} dstport 4789"
        ))
        .unwrap();
        host.ip("link set vx0 mtu 1270").unwrap();
        host.ip(&format!("addr add 172.31.0.{number}/24 dev vx0")).unwrap();
        host.ip("link set vx0 up").unwrap();
    }
    wait_pings(one, "172.31.0.2".parse().unwrap());
    let full = ["-n", "-q", "-c2", "-W5", "-M", "do", "-s", "1242", "172.31.0.2"];
    run(one.host().command("ping").args(full)).unwrap();
}
