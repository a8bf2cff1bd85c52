//! The device inside the agent, on real TUN links in network namespaces. Needs root and /dev/net/tun.

mod dataplane;

use dataplane::{
    netns::Lan,
    node::{Node, Plane, private_key, spec},
    scenes,
};
use wattle_agent::kernel::{DataPlaneChoice::Userspace, KernelError};

#[test]
fn two_nodes_exchange_packets() {
    scenes::two_nodes_exchange_packets(Userspace);
}

#[test]
fn addresses_move_and_none_is_stolen_back() {
    scenes::addresses_move_and_none_is_stolen_back(Userspace);
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
