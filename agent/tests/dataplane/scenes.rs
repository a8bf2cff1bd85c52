//! What happens to a data plane, told once for both kinds.

use std::collections::BTreeSet;

use wattle_agent::kernel::{DataPlaneChoice, KernelError};
use wattle_model::{Endpoint, Generation, NetworkSecret, PeerSpec, Secrets};
use wattle_plan::{Op, Prefixes, SetPeer};

use super::{
    netns::{Lan, Netns},
    node::{INTERFACE, Node, PORT, Plane, private_key, public_key, spec},
};

/// A switch with a node on each of its hosts.
struct Mesh {
    nodes: Vec<Node>,
    lan: Lan,
    peers: Vec<PeerSpec>,
}

impl Mesh {
    fn new(choice: DataPlaneChoice, count: u8) -> Self {
        let lan = Lan::new(count.into());
        let nodes: Vec<Node> = lan
            .hosts
            .iter()
            .zip(1..)
            .map(|(host, index)| Node::open(host, choice, index))
            .collect();
        let mut mesh = Self { nodes, lan, peers: (1..=count).map(|i| spec(i, i)).collect() };
        mesh.reach();
        mesh
    }

    fn reach(&mut self) {
        for node in &mut self.nodes {
            node.reach(&self.peers);
        }
    }

    /// A node goes by this one of two secrets, or by none.
    fn hold(&mut self, at: usize, generation: u64) {
        let known = [1, 2].map(|n| (Generation(n), NetworkSecret::new([n as u8; 32]))).into();
        self.nodes[at].share(Secrets { used: Generation(generation), known });
        self.nodes[at].reach(&self.peers);
    }

    /// Ends the session of the two nodes: they begin another one.
    fn part(&mut self) {
        for (node, other) in self.nodes.iter().zip([2, 1]) {
            assert_eq!(node.plane.apply(&[Op::RemovePeer { key: public_key(other) }]), []);
        }
        self.reach();
    }

    /// Gives the nodes these addresses, in one batch.
    fn readdress(&mut self, hosts: &[u8]) {
        for ((peer, index), host) in self.peers.iter_mut().zip(1..).zip(hosts) {
            *peer = spec(index, *host);
        }
        self.reach();
    }

    /// Each pair, once: an answer needs both ends to know whose address is whose.
    fn assert_all_reached(&self) {
        for (at, (host, from)) in self.lan.hosts.iter().zip(&self.peers).enumerate() {
            for to in &self.peers[at + 1..] {
                let addresses = [to.ipv4.map(|a| a.to_string()), to.ipv6.map(|a| a.to_string())];
                for address in addresses.into_iter().flatten() {
                    assert!(host.pings(&address), "{} reaches {} at {address}", from.name, to.name);
                }
            }
        }
    }
}

/// Packets in both families; and what is observed afterwards needs nothing done.
pub(crate) fn two_nodes_exchange_packets(choice: DataPlaneChoice) {
    let mut mesh = Mesh::new(choice, 2);
    mesh.assert_all_reached();
    let observed = mesh.nodes[0].plane.observe();
    let peer = &observed.peers[&public_key(2)];
    assert!(peer.last_handshake.is_some_and(|age| age.as_secs() < 60), "{peer:?}");
    assert!(peer.rx_bytes > 0 && peer.tx_bytes > 0, "{peer:?}");
    assert_eq!(peer.endpoint, Some(([192, 168, 77, 2], PORT).into()));
    assert_eq!((observed.listen_port, observed.mtu, observed.up), (PORT, 1420, true));
    assert_eq!(observed.public_key, Some(public_key(1)));
    for node in &mut mesh.nodes {
        assert_eq!(node.plan(), []);
    }
}

/// Addresses change owners, then a former owner's endpoint changes: nobody's packets go astray.
pub(crate) fn addresses_move_and_none_is_stolen_back(choice: DataPlaneChoice) {
    let mut mesh = Mesh::new(choice, 4);
    mesh.assert_all_reached();
    mesh.readdress(&[1, 3, 2, 4]);
    mesh.assert_all_reached();
    mesh.readdress(&[1, 2, 4, 3]);
    mesh.assert_all_reached();
    mesh.readdress(&[1, 4, 3, 2]);

    mesh.lan.hosts[1].ip("address del 192.168.77.2/24 dev eth0");
    mesh.lan.hosts[1].ip("address add 192.168.77.22/24 dev eth0");
    mesh.peers[1].endpoints = vec![endpoint("192.168.77.22:51820")];
    mesh.reach();
    mesh.assert_all_reached();
    let observed = mesh.nodes[0].plane.observe();
    assert_eq!(observed.peers[&public_key(2)].endpoint, Some(([192, 168, 77, 22], PORT).into()));
}

/// A session goes on through every change of the preshared key, at one end and then at the other; the next
/// handshake takes what is there, and comes to nothing where the two ends differ.
pub(crate) fn a_preshared_key_is_taken_by_the_next_handshake(choice: DataPlaneChoice) {
    let mut mesh = Mesh::new(choice, 2);
    mesh.assert_all_reached();
    mesh.peers.iter_mut().for_each(|peer| peer.secret_generation = Generation(2));
    mesh.reach();
    for held in [1, 2, 0, 2] {
        for at in 0..2 {
            mesh.hold(at, held);
            assert_eq!(mesh.lan.hosts[0].lost("10.90.0.2", 20), 0, "{held} at {at}");
        }
    }
    mesh.part();
    mesh.assert_all_reached();
    mesh.hold(1, 1);
    mesh.part();
    assert!(!mesh.lan.hosts[0].pings("10.90.0.2"), "one end has another preshared key");
    mesh.hold(0, 1);
    // Until the handshake is repeated.
    assert!((0..5).any(|_| mesh.lan.hosts[0].pings("10.90.0.2")));
}

/// One batch deletes a node and gives its addresses to a new one.
pub(crate) fn a_new_node_takes_over_a_deleted_ones_addresses(choice: DataPlaneChoice) {
    let mut mesh = Mesh::new(choice, 3);
    mesh.peers.pop();
    mesh.nodes.truncate(2);
    mesh.reach();
    let before = mesh.peers.clone();
    mesh.peers[1] = PeerSpec { public_key: public_key(9), ..spec(9, 2) };
    let ops = mesh.nodes[0].reach(&mesh.peers);
    assert_eq!(ops.len(), 2, "{ops:?}");
    assert_eq!(
        mesh.nodes[0].plane.observe().peers.into_keys().collect::<Vec<_>>(),
        [public_key(9)]
    );
    mesh.nodes[0].reach(&before);
    mesh.peers = before;
    mesh.lan.hosts.truncate(2);
    mesh.assert_all_reached();
}

/// An update of a peer that was removed meanwhile doesn't bring it back.
pub(crate) fn an_update_resurrects_nobody(choice: DataPlaneChoice) {
    let lan = Lan::new(1);
    let mut node = Node::open(&lan.hosts[0], choice, 1);
    node.reach(&[spec(1, 1), spec(2, 2), spec(3, 3)]);
    let update = |prefixes| {
        let endpoint = Some(([192, 168, 77, 9], PORT).into());
        Op::SetPeer(SetPeer {
            key: public_key(2),
            create: false,
            prefixes,
            endpoint,
            keepalive: Some(5),
            preshared: None,
        })
    };
    let all = Prefixes::Replace(vec!["10.90.0.2/32".parse().expect("a prefix")]);
    node.plane.apply(&[Op::RemovePeer { key: public_key(2) }, update(Prefixes::Keep), update(all)]);
    let left: Vec<_> = node.plane.observe().peers.into_keys().collect();
    assert_eq!(left, [public_key(3)]);
}

/// More peers, and more prefixes on one, than a netlink message holds.
pub(crate) fn a_thousand_peers_and_a_large_one(choice: DataPlaneChoice) {
    let lan = Lan::new(1);
    let node = Node::open(&lan.hosts[0], choice, 1);
    let key = |seed: u16| {
        let [high, low] = seed.to_be_bytes();
        let mut bytes = [7; 32];
        (bytes[0], bytes[1]) = (high, low);
        wattle_model::PublicKey::new(bytes).expect("no key is zero")
    };
    let set = |seed, prefixes| {
        let endpoint = Some(([192, 168, 77, 9], PORT).into());
        Op::SetPeer(SetPeer {
            key: key(seed),
            create: true,
            prefixes,
            endpoint,
            keepalive: None,
            preshared: None,
        })
    };
    let net = |text: String| text.parse().expect("a prefix");
    let mut ops: Vec<Op> = (0..1000_u16)
        .map(|i| {
            let both =
                [net(format!("10.91.{}.{}/32", i / 250, i % 250)), net(format!("fd5b::{i:x}/128"))];
            set(i, Prefixes::Add(both.to_vec()))
        })
        .collect();
    let many: BTreeSet<_> = (0..900).map(|i| net(format!("fd5c::{i:x}/128"))).collect();
    ops.push(set(1000, Prefixes::Replace(many.iter().copied().collect())));
    assert_eq!(node.plane.apply(&ops), []);

    let observed = node.plane.observe();
    assert_eq!(observed.peers.len(), 1001);
    assert_eq!(observed.peers[&key(1000)].allowed_ips, many);
    assert!((0..1000).all(|i| observed.peers[&key(i)].allowed_ips.len() == 2));
    assert_eq!(observed.peers[&key(999)].endpoint, Some(([192, 168, 77, 9], PORT).into()));

    let gone: Vec<Op> = (0..1000).map(|i| Op::RemovePeer { key: key(i) }).collect();
    assert_eq!(node.plane.apply(&gone), []);
    assert_eq!(node.plane.observe().peers.into_keys().collect::<Vec<_>>(), [key(1000)]);
}

/// Removing takes the link, its addresses and routes, and nothing else; twice is no error.
pub(crate) fn removal_leaves_nothing(choice: DataPlaneChoice) {
    let host = &Netns::new();
    let before = (host.ip("address show"), host.ip("route show table all"));
    let mut node = Node::open(host, choice, 1);
    node.reach(&[spec(1, 1), spec(2, 2)]);
    assert!(host.ip("route show").contains("10.90.0.0/16 dev wattle0"));
    assert!(host.ip("-6 route show").contains("fd5a:90::/64 dev wattle0"));
    node.plane.remove();
    node.plane.remove();
    assert_eq!((host.ip("address show"), host.ip("route show table all")), before);
}

/// A link that somebody took away is made again, by observing, and filled by the next difference.
pub(crate) fn a_link_taken_away_comes_back(choice: DataPlaneChoice) {
    let mut mesh = Mesh::new(choice, 2);
    mesh.assert_all_reached();
    mesh.lan.hosts[0].ip("link del wattle0");
    mesh.reach();
    mesh.assert_all_reached();
}

/// A port in use is refused by name, and the one before stays in use.
pub(crate) fn a_port_in_use_is_refused(choice: DataPlaneChoice) {
    let mut mesh = Mesh::new(choice, 2);
    let taken = listener_in(&mesh.lan.hosts[0]);
    let port = taken.local_addr().expect("it is bound").port();
    let failed = mesh.nodes[0].plane.apply(&[Op::SetListenPort(port)]);
    assert_eq!(failed.len(), 1);
    assert!(failed[0].reason.contains("in use"), "{failed:?}");
    mesh.reach();
    mesh.assert_all_reached();
}

fn listener_in(host: &Netns) -> std::net::UdpSocket {
    let inside = host.handle();
    let bound = std::thread::spawn(move || {
        inside.enter();
        inside.forget();
        std::net::UdpSocket::bind("[::]:0").expect("some port is free")
    });
    bound.join().expect("the thread ends")
}

/// A link of that name that isn't ours is left alone.
pub(crate) fn somebody_elses_link_is_refused(choice: DataPlaneChoice) {
    let lan = Lan::new(1);
    let host = &lan.hosts[0];
    host.ip(&format!("link add {INTERFACE} type bridge"));
    let Err(error) = Plane::open(host, choice, &private_key(1)) else {
        panic!("it was taken over")
    };
    assert!(matches!(error, KernelError::NotOurs { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains(INTERFACE) && text.contains("bridge") && text.contains("--interface"),
        "{text}"
    );
    assert!(host.ip("link show").contains(INTERFACE));
}

pub(crate) fn endpoint(text: &str) -> Endpoint {
    Endpoint::new(text.parse().expect("an address and a port")).expect("an endpoint")
}

/// More prefixes on one peer than any message holds, and half of them gone again.
#[allow(dead_code, reason = "used by the kernel's tests alone")]
pub(crate) fn a_peer_with_thousands_of_prefixes(choice: DataPlaneChoice) {
    let lan = Lan::new(1);
    let mut node = Node::open(&lan.hosts[0], choice, 1);
    let name = spec(2, 2).name;
    let via = |count: u32| -> std::collections::BTreeMap<ipnet::IpNet, _> {
        let net = |n: u32| format!("10.90.{}.{}/32", 128 + n / 250, n % 250);
        (0..count).map(|n| (net(n).parse().expect("a prefix"), name.clone())).collect()
    };
    for count in [5000, 2500, 0] {
        node.send_through(via(count));
        node.reach(&[spec(1, 1), spec(2, 2)]);
        let observed = node.plane.observe();
        assert_eq!(observed.peers[&public_key(2)].allowed_ips.len(), count as usize + 2);
    }
}
