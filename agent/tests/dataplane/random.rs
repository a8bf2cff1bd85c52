//! Random changes of what a device should be, and random meddling with what it is. After each, what
//! `wg` and `ip` show is compared with a model that knows nothing of the plan.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ipnet::IpNet;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use wattle_agent::kernel::DataPlaneChoice;
use wattle_model::{Generation, NetworkSecret, NodeName, PeerSpec, Secrets};

use super::{
    netns::{Lan, Netns},
    node::{INTERFACE, Node, public_key, spec},
    scenes::endpoint,
};

/// Peers, addresses and keys there may be: few, so that they move between peers often.
const PEERS: u8 = 12;
const ROUTES: [&str; 5] =
    ["172.20.0.0/16", "172.21.4.0/24", "2001:db8:5::/48", "0.0.0.0/0", "::/0"];

/// `steps` changes, the same ones for the same seed.
pub(crate) fn run(seed: u64, steps: u32) {
    let mut random = StdRng::seed_from_u64(seed);
    let lan = Lan::new(1);
    let host = &lan.hosts[0];
    host.ip("link add other0 up type dummy");
    host.ip("route add 203.0.113.0/24 dev other0");
    let mut node = Node::open(host, DataPlaneChoice::Kernel, 1);
    let mut world = World::new();
    for step in 0..steps {
        let what = if random.random_bool(0.3) {
            meddle(host, &world, &mut random)
        } else {
            world.change(&mut random)
        };
        node.send_through(world.via.clone());
        node.share(world.secrets.clone());
        node.reach(&world.peers);
        assert_eq!(shown(host), world.expected(), "seed {seed}, step {step}: {what}");
        assert!(host.ip("route show dev other0").contains("203.0.113.0/24"), "seed {seed}");
    }
}

struct World {
    /// The node itself first.
    peers: Vec<PeerSpec>,
    via: BTreeMap<IpNet, NodeName>,
    /// Keys that peers changed to.
    keys: u8,
    /// What preshared keys are derived of.
    secrets: Secrets,
}

impl World {
    fn new() -> Self {
        let known = [1, 2].map(|n| (Generation(n), NetworkSecret::new([n as u8; 32]))).into();
        let secrets = Secrets { used: Generation::NONE, known };
        Self { peers: vec![spec(1, 1)], via: BTreeMap::new(), keys: 0, secrets }
    }

    fn change(&mut self, random: &mut StdRng) -> String {
        match random.random_range(0..11) {
            9 | 10 => self.rekey(random),
            0 | 1 => self.join(random),
            2 => self.leave(random),
            3 => self.swap(random),
            4 => self.move_away(random),
            5 | 6 => self.rotate(random),
            _ => self.route(random),
        }
    }

    fn join(&mut self, random: &mut StdRng) -> String {
        let index = random.random_range(2..2 + PEERS);
        let free: Vec<u8> =
            (2..250).filter(|host| self.peers.iter().all(|p| !has(p, *host))).collect();
        let host = *free[..20].choose(random).expect("addresses are free");
        let node = spec(index, host).node;
        self.peers.retain(|peer| peer.node != node);
        self.peers.push(spec(index, host));
        format!("{index} comes, at {host}")
    }

    fn leave(&mut self, random: &mut StdRng) -> String {
        let at = random.random_range(0..self.peers.len());
        if at > 0 {
            self.peers.remove(at);
        }
        format!("number {at} goes")
    }

    /// Some peers' addresses in a cycle.
    fn swap(&mut self, random: &mut StdRng) -> String {
        let count = self.peers.len().min(1 + random.random_range(2..5));
        let mut addresses: Vec<_> = self.peers[1..count].iter().map(|p| (p.ipv4, p.ipv6)).collect();
        if !addresses.is_empty() {
            addresses.rotate_left(1);
        }
        for (peer, (v4, v6)) in self.peers[1..count].iter_mut().zip(addresses) {
            (peer.ipv4, peer.ipv6) = (v4, v6);
        }
        format!("{} swap addresses", count - 1)
    }

    fn move_away(&mut self, random: &mut StdRng) -> String {
        let at = random.random_range(0..self.peers.len());
        let to = format!("192.168.77.{}:{}", random.random_range(100..250), 51820);
        self.peers[at].endpoints = vec![endpoint(&to)];
        format!("number {at} moves to {to}")
    }

    /// A peer's next key is announced, or comes into use.
    fn rotate(&mut self, random: &mut StdRng) -> String {
        let at = random.random_range(0..self.peers.len());
        let peer = &mut self.peers[at];
        match peer.next_public_key.take() {
            Some(next) => peer.public_key = next,
            None if at > 0 => {
                self.keys = (self.keys + 1) % 100;
                peer.next_public_key = Some(public_key(100 + self.keys));
            }
            None => {}
        }
        format!("number {at} changes its key")
    }

    /// The node, or a peer, comes to hold another secret, or none.
    fn rekey(&mut self, random: &mut StdRng) -> String {
        let (at, held) = (random.random_range(0..self.peers.len()), random.random_range(0..3));
        match at {
            0 => self.secrets.used = Generation(held),
            _ => self.peers[at].secret_generation = Generation(held),
        }
        format!("number {at} holds secret {held}")
    }

    /// A peer's preshared key, as `wg` shows it.
    fn preshared(&self, peer: &PeerSpec) -> String {
        let held = self.secrets.used.min(peer.secret_generation);
        let secret = self.secrets.known.get(&held);
        let key = secret.map(|secret| secret.preshared_key(peer.node, self.peers[0].node));
        key.map_or_else(|| "(none)".to_owned(), |key| STANDARD.encode(key.expose_bytes()))
    }

    fn route(&mut self, random: &mut StdRng) -> String {
        let prefix: IpNet = ROUTES.choose(random).expect("some").parse().expect("a prefix");
        let through = self.peers[1..].choose(random).map(|peer| peer.name.clone());
        match through {
            Some(name) if random.random_bool(0.7) => {
                let what = format!("{prefix} goes through {name}");
                self.via.insert(prefix, name);
                what
            }
            _ => {
                self.via.remove(&prefix);
                format!("{prefix} goes nowhere")
            }
        }
    }

    /// What `wg` and `ip` should show.
    fn expected(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::from([
            "address 10.90.0.1/16".to_owned(),
            "address fd5a:90::1/64".to_owned(),
            "route 10.90.0.0/16 main".to_owned(),
            "route fd5a:90::/64 main".to_owned(),
        ]);
        for peer in &self.peers[1..] {
            let v4 = peer.ipv4.map(|a| format!("{a}/32"));
            let v6 = peer.ipv6.map(|a| format!("{a}/128"));
            let via = self.via.iter().filter(|(_, name)| **name == peer.name);
            let routed: Vec<IpNet> = via.map(|(prefix, _)| *prefix).collect();
            let mut allowed: BTreeSet<String> = v4.into_iter().chain(v6).collect();
            allowed.extend(routed.iter().map(ToString::to_string));
            let (key, at) = (peer.public_key, peer.endpoints[0].socket_addr());
            let preshared = self.preshared(peer);
            all.insert(format!("peer {key} at {at}, {preshared}: {allowed:?}"));
            // Known, and not used yet.
            let next = peer.next_public_key;
            all.extend(next.map(|next| format!("peer {next} at {at}, {preshared}: {{}}")));
            for prefix in routed {
                let default = prefix.prefix_len() == 0;
                let to = if default { "default".to_owned() } else { prefix.to_string() };
                let version = if prefix.addr().is_ipv4() { 4 } else { 6 };
                all.insert(format!("route {to} {}", if default { "22343" } else { "main" }));
                if default {
                    all.insert(format!("rules {version}"));
                }
            }
        }
        all
    }
}

fn has(peer: &PeerSpec, host: u8) -> bool {
    peer.ipv4 == Some([10, 90, 0, host].into())
}

/// What somebody may do to the link.
fn meddle(host: &Netns, world: &World, random: &mut StdRng) -> String {
    let peer = world.peers[1..].choose(random).map(|peer| peer.public_key.to_string());
    let peer = peer.unwrap_or_else(|| public_key(99).to_string());
    let commands = [
        format!("wg set {INTERFACE} peer {peer} remove"),
        format!(
            "wg set {INTERFACE} peer {} allowed-ips 10.90.0.2/32,fd5a:90::3/128",
            public_key(98)
        ),
        format!("wg set {INTERFACE} peer {peer} allowed-ips 10.90.0.3/32"),
        format!("wg set {INTERFACE} peer {peer} persistent-keepalive 7"),
        format!("wg set {INTERFACE} fwmark 1 listen-port 7"),
        format!("ip link set {INTERFACE} down"),
        format!("ip link set {INTERFACE} mtu 1300"),
        format!("ip link del {INTERFACE}"),
        format!("ip addr flush dev {INTERFACE}"),
        format!("ip route flush dev {INTERFACE}"),
        "ip route flush table 22343".to_owned(),
        format!("ip addr add 10.90.7.7/16 dev {INTERFACE}"),
    ];
    let command = commands.choose(random).expect("some").clone();
    // Some of these find nothing to do, which `ip` calls an error.
    let _ = host.try_run(&command);
    command
}

fn shown(host: &Netns) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let dump = host.try_run(&format!("wg show {INTERFACE} dump")).expect("wg runs");
    for line in dump.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [key, secret, at, allowed, _, _, _, keepalive] = fields[..] else {
            panic!("wg: {line}")
        };
        assert_eq!(keepalive, "off", "{line}");
        let allowed: BTreeSet<String> =
            allowed.split(',').filter(|net| *net != "(none)").map(str::to_owned).collect();
        all.insert(format!("peer {key} at {at}, {secret}: {allowed:?}"));
    }
    for line in host.ip(&format!("-o addr show dev {INTERFACE}")).lines() {
        let net = line.split_whitespace().nth(3).expect("an address");
        if !net.starts_with("fe80") {
            all.insert(format!("address {net}"));
        }
    }
    for (version, family) in [(4, "-4"), (6, "-6")] {
        for line in host.ip(&format!("{family} route show table all dev {INTERFACE}")).lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let table = words.iter().position(|word| *word == "table").map(|at| words[at + 1]);
            let special = ["local", "broadcast", "multicast", "anycast", "fe80::/64"];
            if !special.contains(&words[0]) {
                all.insert(format!("route {} {}", words[0], table.unwrap_or("main")));
            }
        }
        match host.ip(&format!("{family} rule")).matches("proto 87").count() {
            0 => {}
            2 => drop(all.insert(format!("rules {version}"))),
            other => panic!("{other} rules of family {version}"),
        }
    }
    all
}
