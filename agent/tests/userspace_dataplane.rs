//! The device inside the agent, on real TUN links in network namespaces. Needs root and /dev/net/tun.

mod dataplane;

use dataplane::{
    netns::{Lan, Netns},
    node::{INTERFACE, Node, Plane, private_key, spec},
    scenes,
};
use wattle_agent::kernel::{DataPlaneChoice::Userspace, Host, KernelError};

#[test]
fn two_nodes_exchange_packets() {
    scenes::two_nodes_exchange_packets(Userspace);
}

#[test]
fn addresses_move_and_none_is_stolen_back() {
    scenes::addresses_move_and_none_is_stolen_back(Userspace);
}

#[test]
fn a_preshared_key_is_taken_by_the_next_handshake() {
    scenes::a_preshared_key_is_taken_by_the_next_handshake(Userspace);
}

#[test]
fn a_new_node_takes_over_a_deleted_ones_addresses() {
    scenes::a_new_node_takes_over_a_deleted_ones_addresses(Userspace);
}

#[test]
fn an_update_resurrects_nobody() {
    scenes::an_update_resurrects_nobody(Userspace);
}

#[test]
fn a_thousand_peers_and_a_large_one() {
    scenes::a_thousand_peers_and_a_large_one(Userspace);
}

#[test]
fn removal_leaves_nothing() {
    scenes::removal_leaves_nothing(Userspace);
}

#[test]
fn a_link_taken_away_comes_back() {
    scenes::a_link_taken_away_comes_back(Userspace);
}

#[test]
fn a_port_in_use_is_refused() {
    scenes::a_port_in_use_is_refused(Userspace);
}

#[test]
fn somebody_elses_link_is_refused() {
    scenes::somebody_elses_link_is_refused(Userspace);
}

/// Two agents can't share a link; once the first is gone, so is its link, and the second finds the
/// way free.
#[test]
fn the_link_goes_with_its_agent() {
    let lan = Lan::new(1);
    let mut node = Node::open(&lan.hosts[0], Userspace, 1);
    node.reach(&[spec(1, 1), spec(2, 2)]);
    let second = Plane::open(&lan.hosts[0], Userspace, &private_key(1));
    assert!(matches!(second, Err(KernelError::NotOurs { .. })));
    drop(node);
    assert!(!lan.hosts[0].ip("link show").contains("wattle0"));
    Node::open(&lan.hosts[0], Userspace, 1).reach(&[spec(1, 1), spec(2, 2)]);
}

/// What the host says of itself, the agent's own interface left out.
#[test]
fn the_host_tells_its_addresses_and_what_the_overlay_would_shadow() {
    let lan = Lan::new(1);
    let host = &lan.hosts[0];
    let mut node = Node::open(host, Userspace, 1);
    node.reach(&[spec(1, 1), spec(2, 2)]);
    host.ip("address add 2001:db8:77::1/64 dev eth0 nodad");
    host.ip("link add docker0 up type bridge");
    host.ip("address add 172.17.0.1/16 dev docker0");
    host.ip("link add br0 type bridge");
    host.ip("address add 203.0.113.1/24 dev br0");
    host.ip("route add 10.64.0.0/10 via 192.168.77.254");
    host.ip("route add default via 192.168.77.254");

    let read = read_inside(host);
    let shown: Vec<String> = read.candidates().iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["192.168.77.1", "2001:db8:77::1"], "up, and reached from outside");
    let attached: Vec<String> = read.attached().iter().map(ToString::to_string).collect();
    assert_eq!(attached, ["192.168.77.0/24", "2001:db8:77::/64"]);
    assert!(read.has("203.0.113.1".parse().expect("an address")));
    assert!(!read.has("10.90.0.1".parse().expect("an address")), "that is the overlay's");

    let overlaps = |range: &str| {
        let range = range.parse().expect("a range");
        read.check_overlap(&[range]).err().map(|overlap| (overlap.what, overlap.interface))
    };
    assert_eq!(overlaps("10.90.0.0/16"), Some(("route", "eth0".to_owned())));
    assert_eq!(overlaps("172.17.0.0/24"), Some(("address", "docker0".to_owned())));
    assert_eq!(overlaps("203.0.113.0/28"), Some(("address", "br0".to_owned())));
    assert_eq!(overlaps("2001:db8:77::/48"), Some(("address", "eth0".to_owned())));
    assert_eq!(overlaps("fd5a:90::/64"), None, "only our own interface has it");
    assert_eq!(overlaps("10.200.0.0/16"), None);
}

fn read_inside(host: &Netns) -> Host {
    let inside = host.handle();
    let read = std::thread::spawn(move || {
        inside.enter();
        inside.forget();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime starts").block_on(Host::read(INTERFACE))
    });
    read.join().expect("the thread ends").expect("the host is read")
}
