//! Random transitions between desired sets, executed on simulated devices.

use std::time::Instant;

use proptest::{prelude::*, test_runner::FileFailurePersistence};
use wattle_model::{NodeId, PeerSpec};
use wattle_plan::{Desired, EndpointMemory, Op, Prefixes, SetPeer, Update, diff};

use crate::simulated::*;

/// Up to six peers out of eight nodes, eight keys and six addresses of each family, no two alike:
/// few enough that most transitions move addresses around in chains and cycles. The keys that are left
/// may be those that the first two will change to.
fn peers() -> impl Strategy<Value = Vec<PeerSpec>> {
    let index = |n: u8| Just((0..n).collect::<Vec<u8>>()).prop_shuffle();
    (index(8), index(8), index(6), index(6), 0_usize..=6, any::<u8>()).prop_map(
        |(nodes, keys, v4, v6, count, families)| {
            (0..count)
                .map(|i| {
                    let both = families >> i & 1 == 0;
                    let next = (i < 2 && families >> (6 + i) & 1 == 0).then(|| key(keys[6 + i]));
                    let peer = peer(nodes[i], keys[i], Some(v4[i]), both.then_some(v6[i]));
                    PeerSpec { next_public_key: next, ..peer }
                })
                .collect()
        },
    )
}

/// Applies a full set the way an agent does, and checks every state on the way.
fn reach<D: Device>(
    device: &mut D,
    desired: &mut Desired,
    memory: &mut EndpointMemory,
    peers: &[PeerSpec],
) {
    desired.apply(Update::Reset(peers.to_vec()));
    let (before, wanted) = (device.owners(), wanted_owners(peers));
    let ops = diff(desired, &device.observe(), memory, Instant::now());
    let mut arrived = before.clone();
    arrived.retain(|prefix, owner| wanted.get(prefix) == Some(owner));
    for op in &ops {
        device.execute(op);
        let owners = device.owners();
        for (prefix, owner) in &owners {
            let old = before.get(prefix) == Some(owner);
            let last = wanted.get(prefix) == Some(owner);
            assert!(old || last, "{op:?} gave {prefix} to a third party");
            if last {
                arrived.insert(*prefix, *owner);
            }
        }
        for prefix in arrived.keys() {
            assert!(owners.get(prefix) == wanted.get(prefix), "{op:?} took {prefix} back");
        }
        for prefix in before.keys().filter(|prefix| wanted.contains_key(prefix)) {
            assert!(owners.contains_key(prefix), "{op:?} left {prefix} to nobody");
        }
    }
    check(device, desired, memory, peers);
}

/// The device is what is desired, and the plan sees it.
fn check<D: Device>(
    device: &D,
    desired: &Desired,
    memory: &mut EndpointMemory,
    peers: &[PeerSpec],
) {
    let observed = device.observe();
    assert_eq!(device.owners(), wanted_owners(peers));
    let next = peers.iter().filter_map(|peer| Some((peer, peer.next_public_key?)));
    assert_eq!(observed.peers.len(), peers.len() + next.clone().count());
    for (peer, next) in next {
        let heir = &observed.peers[&next];
        assert_eq!((heir.allowed_ips.len(), heir.keepalive), (0, None), "it isn't used yet");
        assert_eq!(heir.endpoint, observed.peers[&peer.public_key].endpoint);
    }
    for peer in peers {
        let seen = &observed.peers[&peer.public_key];
        let addresses = usize::from(peer.ipv4.is_some()) + usize::from(peer.ipv6.is_some());
        assert_eq!(seen.allowed_ips.len(), addresses);
        assert_eq!(seen.endpoint, Some(peer.endpoints[0].socket_addr()));
        assert_eq!(seen.keepalive, desired.keepalive);
    }
    assert_eq!(diff(desired, &observed, memory, Instant::now()), []);
}

fn transitions<D: Device>(sets: &[Vec<PeerSpec>], keepalives: &[Option<u16>]) {
    let (mut device, mut memory) = (D::default(), EndpointMemory::default());
    let mut desired = Desired::new(OWN, crate::simulated::device());
    for (peers, keepalive) in sets.iter().zip(keepalives.iter().cycle()) {
        desired.keepalive = *keepalive;
        reach(&mut device, &mut desired, &mut memory, peers);
    }
}

/// Some operations fail; looking again puts it right.
fn transitions_with_failures<D: Device>(sets: &[Vec<PeerSpec>], fails: &[bool]) {
    let (mut device, mut memory) = (D::default(), EndpointMemory::default());
    let mut desired = Desired::new(OWN, crate::simulated::device());
    let mut fails = fails.iter();
    for peers in sets {
        desired.apply(Update::Reset(peers.clone()));
        for round in 0.. {
            assert!(round < 200, "never gets there");
            let ops = diff(&desired, &device.observe(), &mut memory, Instant::now());
            if ops.is_empty() {
                break;
            }
            for op in &ops {
                if !fails.next().unwrap_or(&false) {
                    device.execute(op);
                }
            }
        }
        check(&device, &desired, &mut memory, peers);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 600,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/plan/moves.regressions",
        ))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_transition_is_clean_on_a_kernel(
        sets in prop::collection::vec(peers(), 1..6),
        keepalives in prop::collection::vec(prop_oneof![Just(None), Just(Some(25))], 1..4),
    ) {
        transitions::<KernelLike>(&sets, &keepalives);
    }

    #[test]
    fn every_transition_is_clean_on_gotatun(
        sets in prop::collection::vec(peers(), 1..6),
        keepalives in prop::collection::vec(prop_oneof![Just(None), Just(Some(25))], 1..4),
    ) {
        transitions::<GotatunLike>(&sets, &keepalives);
    }

    #[test]
    fn failed_operations_are_made_good(
        sets in prop::collection::vec(peers(), 1..6),
        fails in prop::collection::vec(prop::bool::weighted(0.3), 0..60),
    ) {
        transitions_with_failures::<KernelLike>(&sets, &fails);
        transitions_with_failures::<GotatunLike>(&sets, &fails);
    }

    /// Whatever peers are on the device: until a full set is known none is removed, and what the
    /// known ones claim is theirs alone.
    #[test]
    fn unknown_peers_stay_until_the_set_is_complete(old in peers(), new in peers()) {
        let mut device = GotatunLike::default();
        reach(&mut device, &mut Desired::new(OWN, crate::simulated::device()), &mut EndpointMemory::default(), &old);
        let mut memory = EndpointMemory::default();
        let mut desired = Desired::new(OWN, crate::simulated::device());
        desired.apply(Update::Delta { upserts: new.clone(), removed: vec![] });
        let ops = diff(&desired, &device.observe(), &mut memory, Instant::now());
        ops.iter().for_each(|op| device.execute(op));

        let mut owners = wanted_owners(&old);
        // A key that isn't used yet has no prefix, whatever it had.
        let known = |peer: &PeerSpec, key| peer.public_key == key || peer.next_public_key == Some(key);
        owners.retain(|_, key| !new.iter().any(|peer| known(peer, *key)));
        owners.extend(wanted_owners(&new));
        prop_assert_eq!(device.owners(), owners);
        prop_assert_eq!(diff(&desired, &device.observe(), &mut memory, Instant::now()), []);

        reach(&mut device, &mut desired, &mut memory, &new);
    }
}

/// From one set to the next on both devices; the operations of the second step.
fn step(from: &[PeerSpec], to: &[PeerSpec]) -> Vec<Op> {
    fn on<D: Device>(from: &[PeerSpec], to: &[PeerSpec]) -> Vec<Op> {
        let (mut device, mut memory) = (D::default(), EndpointMemory::default());
        let mut desired = Desired::new(OWN, crate::simulated::device());
        reach(&mut device, &mut desired, &mut memory, from);
        desired.apply(Update::Reset(to.to_vec()));
        let ops = diff(&desired, &device.observe(), &mut memory, Instant::now());
        // The memory has seen the new candidates now; a restarted agent's hasn't.
        reach(&mut device, &mut desired, &mut EndpointMemory::default(), to);
        ops
    }
    let ops = on::<KernelLike>(from, to);
    assert_eq!(ops, on::<GotatunLike>(from, to));
    ops
}

fn ring(addresses: &[u8]) -> Vec<PeerSpec> {
    let hosts = addresses.iter().zip(0..);
    hosts.map(|(host, node)| peer(node, node, Some(*host), None)).collect()
}

#[test]
fn one_change_is_one_operation() {
    let three = ring(&[1, 2, 3]);
    assert_eq!(step(&three, &three), []);
    assert_eq!(step(&three[..2], &three).len(), 1, "a peer more");
    assert_eq!(step(&three, &three[..2]), [Op::RemovePeer { key: key(2) }], "a peer less");
    assert_eq!(step(&three, &ring(&[1, 2, 4])).len(), 1, "an address that nobody had");
    assert_eq!(
        step(&three, &[ring(&[1, 2]), vec![peer(2, 2, Some(3), Some(3))]].concat()).len(),
        1
    );
}

#[test]
fn a_cycle_costs_one_operation_more_than_it_has_peers() {
    assert_eq!(step(&ring(&[1, 2]), &ring(&[2, 1])).len(), 3, "a swap");
    assert_eq!(step(&ring(&[1, 2, 3]), &ring(&[2, 3, 1])).len(), 4);
    assert_eq!(step(&ring(&[1, 2, 3, 4]), &ring(&[2, 1, 4, 3])).len(), 6, "two swaps");
    assert_eq!(step(&ring(&[1, 2, 3]), &ring(&[2, 3, 4])).len(), 3, "a chain is no cycle");
}

#[test]
fn delete_and_reuse_in_one_batch_sets_before_it_removes() {
    let ops = step(&ring(&[1, 2]), &[ring(&[1]), vec![peer(9, 9, Some(2), None)]].concat());
    let [Op::SetPeer(SetPeer { create: true, prefixes: Prefixes::Add(_), .. }), remove] = &ops[..]
    else {
        panic!("{ops:?}")
    };
    assert_eq!(remove, &Op::RemovePeer { key: key(1) });
}

#[test]
fn a_new_key_is_made_before_the_old_one_is_removed() {
    let ops = step(&ring(&[1]), &[peer(0, 7, Some(1), None)]);
    assert!(
        matches!(&ops[..], [Op::SetPeer(SetPeer { create: true, .. }), Op::RemovePeer { .. }]),
        "{ops:?}"
    );
}

/// Known first, then in use: the prefixes move to it in one step, and what it was known under goes.
#[test]
fn a_key_that_was_announced_takes_over_in_two_operations() {
    let next =
        |key_index, next| PeerSpec { next_public_key: next, ..peer(0, key_index, Some(1), None) };
    let ops = step(&ring(&[1]), &[next(0, Some(key(7)))]);
    let [Op::SetPeer(SetPeer { create: true, prefixes: Prefixes::Keep, endpoint, .. })] = &ops[..]
    else {
        panic!("{ops:?}")
    };
    assert!(endpoint.is_some(), "where the present key is");
    let ops = step(&[next(0, Some(key(7)))], &[next(7, None)]);
    let [
        Op::SetPeer(SetPeer { create: false, prefixes: Prefixes::Add(_), endpoint: None, .. }),
        Op::RemovePeer { key: old },
    ] = &ops[..]
    else {
        panic!("{ops:?}")
    };
    assert_eq!(*old, key(0));
    assert_eq!(step(&[next(0, Some(key(7)))], &[next(0, None)]), [Op::RemovePeer { key: key(7) }]);
}

/// Keys in use come first, whoever announces one of them.
#[test]
fn a_next_key_that_is_somebodys_is_passed_over() {
    let (mut device, mut memory) = (KernelLike::default(), EndpointMemory::default());
    let mut desired = Desired::new(OWN, crate::simulated::device());
    reach(&mut device, &mut desired, &mut memory, &ring(&[1, 2]));
    let mut peers = ring(&[1, 2]);
    peers[0].next_public_key = Some(key(1));
    desired.apply(Update::Reset(peers));
    assert_eq!(diff(&desired, &device.observe(), &mut memory, Instant::now()), []);
}

/// What a userspace device is left with when a former owner's rewrite failed and somebody updated
/// it since: both list the prefix, and its packets are the wrong one's.
#[test]
fn a_prefix_that_two_peers_list_is_set_again_on_its_owner() {
    let (mut device, mut memory) = (GotatunLike::default(), EndpointMemory::default());
    let mut desired = Desired::new(OWN, crate::simulated::device());
    reach(&mut device, &mut desired, &mut memory, &ring(&[1, 2]));
    let give = |index, prefixes| {
        let (endpoint, keepalive) = (None, None);
        Op::SetPeer(SetPeer {
            key: key(index),
            create: false,
            prefixes,
            endpoint,
            keepalive,
            preshared: None,
        })
    };
    device.execute(&give(1, Prefixes::Replace(vec!["10.90.0.1/32".parse().unwrap()])));
    device.execute(&give(0, Prefixes::Keep));
    reach(&mut device, &mut desired, &mut memory, &[peer(1, 1, Some(1), None)]);
}

#[test]
fn this_node_is_left_out_by_its_id() {
    let mut own = peer(1, 1, Some(1), None);
    own.node = OWN;
    let mut desired = Desired::new(OWN, device());
    desired.apply(Update::Reset(vec![own.clone()]));
    desired.apply(Update::Delta { upserts: vec![own], removed: vec![] });
    assert_eq!(desired.peers().len(), 0);
}

#[test]
fn claims_that_cannot_both_hold_are_rejected_and_the_rest_is_applied() {
    let (mut device, mut memory) = (KernelLike::default(), EndpointMemory::default());
    let mut desired = Desired::new(OWN, crate::simulated::device());
    desired.apply(Update::Reset(vec![
        peer(1, 1, Some(1), None),
        peer(2, 1, Some(2), None),
        peer(3, 3, Some(1), Some(3)),
        peer(4, 4, Some(200), Some(4)),
    ]));
    let reasons: Vec<_> =
        desired.rejected(None).into_iter().map(|r| (r.node, r.reason.to_string())).collect();
    let first = NodeId::new([1; 16]);
    assert_eq!(
        reasons,
        [
            (NodeId::new([2; 16]), format!("public_key already belongs to node {first}")),
            (NodeId::new([3; 16]), format!("address 10.90.0.1 already belongs to node {first}")),
            (NodeId::new([4; 16]), "address 10.90.0.200 is this node's own".to_owned()),
        ]
    );
    let ops = diff(&desired, &device.observe(), &mut memory, Instant::now());
    ops.iter().for_each(|op| device.execute(op));
    assert_eq!(device.observe().peers.len(), 3);
    assert_eq!(diff(&desired, &device.observe(), &mut memory, Instant::now()), []);
}

#[test]
fn a_peer_with_the_devices_own_key_is_rejected() {
    let mut desired = Desired::new(OWN, device());
    desired.apply(Update::Reset(vec![peer(1, 1, Some(1), None)]));
    assert_eq!(desired.rejected(Some(key(1))).len(), 1);
    assert_eq!(desired.rejected(Some(key(2))), []);
}

#[test]
fn the_link_is_brought_to_its_spec_and_then_left_alone() {
    let (mut device, mut memory) = (KernelLike::default(), EndpointMemory::default());
    let mut desired = Desired::new(OWN, crate::simulated::device());
    let ops = diff(&desired, &device.observe(), &mut memory, Instant::now());
    assert_eq!(ops.len(), 6, "mtu, port, mark, two addresses, up: {ops:?}");
    ops.iter().for_each(|op| device.execute(op));
    desired.device.addresses[0] = "10.90.0.201/16".parse().unwrap();
    let ops = diff(&desired, &device.observe(), &mut memory, Instant::now());
    assert_eq!(
        ops,
        [
            Op::RemoveAddress("10.90.0.200/16".parse().unwrap()),
            Op::AddAddress("10.90.0.201/16".parse().unwrap())
        ]
    );
}
