//! The kernel's WireGuard, for real. Needs root and a kernel that has it: `integration/kernel-tests.sh`
//! boots one. Not among the tests that `cargo test` runs unasked.

mod dataplane;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use dataplane::{
    netns::{Lan, Netns},
    node::{Node, Plane, private_key, public_key, spec},
    random, scenes,
};
use wattle_agent::kernel::{
    DataPlaneChoice::{Auto, Kernel},
    KernelError,
};

#[test]
fn two_nodes_exchange_packets() {
    scenes::two_nodes_exchange_packets(Kernel);
}

#[test]
fn addresses_move_and_none_is_stolen_back() {
    scenes::addresses_move_and_none_is_stolen_back(Kernel);
}

#[test]
fn a_preshared_key_is_taken_by_the_next_handshake() {
    scenes::a_preshared_key_is_taken_by_the_next_handshake(Kernel);
}

#[test]
fn a_new_node_takes_over_a_deleted_ones_addresses() {
    scenes::a_new_node_takes_over_a_deleted_ones_addresses(Kernel);
}

#[test]
fn an_update_resurrects_nobody() {
    scenes::an_update_resurrects_nobody(Kernel);
}

#[test]
fn a_thousand_peers_and_a_large_one() {
    scenes::a_thousand_peers_and_a_large_one(Kernel);
}

#[test]
fn removal_leaves_nothing() {
    scenes::removal_leaves_nothing(Kernel);
}

#[test]
fn a_link_taken_away_comes_back() {
    scenes::a_link_taken_away_comes_back(Kernel);
}

#[test]
fn a_port_in_use_is_refused() {
    scenes::a_port_in_use_is_refused(Kernel);
}

#[test]
fn somebody_elses_link_is_refused() {
    scenes::somebody_elses_link_is_refused(Kernel);
}

#[test]
fn auto_takes_the_kernels_where_there_is_one() {
    let lan = Lan::new(1);
    let _node = Node::open(&lan.hosts[0], Auto, 1);
    assert!(lan.hosts[0].ip("-d link show wattle0").contains("wireguard"));
}

/// While no agent runs, packets pass; the next one finds everything right and does nothing.
#[test]
fn a_restarted_agent_adopts_what_is_there() {
    let lan = Lan::new(2);
    let all = [spec(1, 1), spec(2, 2)];
    for (host, index) in lan.hosts.iter().zip(1..) {
        Node::open(host, Kernel, index).reach(&all);
    }
    let index = lan.hosts[0].ip("link show wattle0");
    assert!(lan.hosts[0].pings("10.90.0.2") && lan.hosts[1].pings("fd5a:90::1"));
    let mut again = Node::open(&lan.hosts[0], Kernel, 1);
    assert_eq!(again.reach(&all), [], "nothing to do");
    let peer = &again.plane.observe().peers[&public_key(2)];
    assert!(peer.last_handshake.is_some(), "the session was kept: {peer:?}");
    assert_eq!(lan.hosts[0].ip("link show wattle0"), index, "it is the same link");
}

/// A WireGuard link with another key is another's, and stays as it is.
#[test]
fn a_link_with_another_key_is_refused() {
    let host = Netns::new();
    drop(Plane::open(&host, Kernel, &private_key(1)).map_err(|error| panic!("{error}")));
    let Err(error) = Plane::open(&host, Kernel, &private_key(2)) else { panic!("taken over") };
    assert!(matches!(error, KernelError::NotOurs { .. }), "{error}");
    assert!(error.to_string().contains("another private key"), "{error}");
    Plane::open(&host, Kernel, &private_key(1)).map_err(|error| panic!("{error}")).ok();
}

/// A link whose making was cut short before it had a key is taken for ours.
#[test]
fn a_link_without_a_key_is_finished() {
    let lan = Lan::new(1);
    lan.hosts[0].ip("link add wattle0 type wireguard");
    Node::open(&lan.hosts[0], Kernel, 1).reach(&[spec(1, 1), spec(2, 2)]);
}

/// A thousand joins, leaves, changed labels and new endpoints elsewhere cost an existing session no
/// packet.
#[test]
fn a_thousand_changes_elsewhere_cost_no_packet() {
    let lan = Lan::new(2);
    let all = [spec(1, 1), spec(2, 2)];
    let mut nodes: Vec<Node> =
        lan.hosts.iter().zip(1..).map(|(host, index)| Node::open(host, Kernel, index)).collect();
    nodes.iter_mut().for_each(|node| drop(node.reach(&all)));
    assert!(lan.hosts[0].pings("10.90.0.2"));
    let (done, counted) = (AtomicBool::new(false), AtomicU32::new(0));
    let lost = std::thread::scope(|scope| {
        let (host, done, counted) = (&lan.hosts[0], &done, &counted);
        let pings = scope.spawn(move || {
            let mut lost = 0;
            while !done.load(Ordering::Relaxed) {
                lost += host.lost("10.90.0.2", 100);
                counted.fetch_add(100, Ordering::Relaxed);
            }
            lost
        });
        // Whatever happens here, the pings end.
        let ended = Ended(done);
        for change in 0..1000_u32 {
            let index = 10 + u8::try_from(change / 4 % 100).expect("it is below 100");
            let (mut peer, gone) = (spec(index, index), vec![spec(index, index).node]);
            for node in &mut nodes {
                match change % 4 {
                    0 => node.change(vec![peer.clone()], vec![]),
                    1 => {
                        peer.name = "renamed".parse().expect("a name");
                        node.change(vec![peer.clone()], vec![]);
                    }
                    2 => {
                        peer.endpoints = vec![scenes::endpoint("192.168.77.250:1")];
                        node.change(vec![peer.clone()], vec![]);
                    }
                    _ => node.change(vec![], gone.clone()),
                }
            }
        }
        drop(ended);
        pings.join().expect("ping ends")
    });
    println!("{} packets while 1000 things changed, {lost} lost", counted.into_inner());
    assert_eq!(lost, 0);
    assert!(nodes.iter_mut().all(|node| node.plan().is_empty()));
}

/// A peer with thousands of prefixes is given, read back, changed and taken away.
#[test]
fn a_peer_with_thousands_of_prefixes() {
    scenes::a_peer_with_thousands_of_prefixes(Kernel);
}

#[test]
fn random_changes_and_meddling_end_as_the_model_says() {
    let seeds = std::env::var("WATTLE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    for seed in 0..seeds {
        random::run(seed, 50);
    }
}

/// Says so when dropped.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
