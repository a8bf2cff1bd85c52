//! What a change touches, planned without looking, is what looking at everything would plan.

use std::time::Instant;

use proptest::{prelude::*, test_runner::FileFailurePersistence};
use wattle_model::{Generation, NodeId, PeerSpec};
use wattle_plan::{Desired, EndpointMemory, Update, diff, diff_touched};

use crate::simulated::*;

/// A change: nodes that go, and nodes that come or change. Few nodes, keys and addresses, so that
/// some changes claim what others have.
fn changes() -> impl Strategy<Value = Vec<(Vec<u8>, Vec<PeerSpec>)>> {
    let (some, next) = (proptest::option::of(0..10_u8), proptest::option::weighted(0.3, 0..10_u8));
    let generation = 0..3_u64;
    let spec = (0..10_u8, 0..10_u8, 0..10_u8, some, next, generation).prop_map(
        |(node, of, v4, v6, next, generation)| PeerSpec {
            next_public_key: next.map(key),
            secret_generation: Generation(generation),
            ..peer(node, of, Some(v4), v6)
        },
    );
    let change = (prop::collection::vec(0..10_u8, 0..3), prop::collection::vec(spec, 0..3));
    prop::collection::vec(change, 1..20)
}

/// Plans each change from what it touches where that is possible, and demands that nothing is left
/// to do; how often it was.
fn run(changes: Vec<(Vec<u8>, Vec<PeerSpec>)>) -> usize {
    let (mut device, mut memory) = (KernelLike::default(), EndpointMemory::default());
    let mut desired = Desired::new(OWN, crate::simulated::device());
    desired.apply(Update::Reset(vec![]));
    desired.secrets = secrets(2);
    let look = |desired: &Desired, device: &mut KernelLike, memory: &mut EndpointMemory| {
        let ops = diff(desired, &device.observe(), memory, Instant::now());
        ops.iter().for_each(|op| device.execute(op));
        ops
    };
    look(&desired, &mut device, &mut memory);
    let mut short = 0;
    for (removed, upserts) in changes {
        let removed = removed.into_iter().map(|n| NodeId::new([n; 16])).collect();
        let touched = desired.apply(Update::Delta { upserts, removed });
        let now = Instant::now();
        match touched.and_then(|t| diff_touched(&desired, &t, key(100), &mut memory, now)) {
            Some(ops) => {
                ops.iter().for_each(|op| device.execute(op));
                short += 1;
            }
            None => drop(look(&desired, &mut device, &mut memory)),
        }
        assert_eq!(look(&desired, &mut device, &mut memory), [], "nothing is left to do");
    }
    short
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 600,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/plan/touched.regressions",
        ))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_change_needs_no_look_at_the_others(changes in changes()) {
        run(changes);
    }
}

/// All hear of it at once: who changes and its peers should be done in the same moment.
#[test]
fn the_change_to_a_next_key_is_planned_from_what_it_touches() {
    let rotated = |of, next| vec![PeerSpec { next_public_key: next, ..peer(1, of, Some(1), None) }];
    let changes = vec![
        (vec![], vec![peer(1, 1, Some(1), None), peer(2, 2, Some(2), None)]),
        (vec![], rotated(1, Some(key(5)))),
        (vec![], rotated(5, None)),
    ];
    assert_eq!(run(changes), 2, "only to learn of the key, where the peer is has to be looked up");
}

/// A machine that has just joined tells of its endpoints one by one, and all others hear of each.
#[test]
fn endpoints_that_come_beside_the_one_in_use_are_planned_from_what_they_touch() {
    let at = |texts: &[&str]| {
        let endpoints = texts.iter().map(|text| endpoint(text)).collect();
        let peer = PeerSpec { endpoints, ..peer(1, 1, Some(1), None) };
        (vec![], vec![peer])
    };
    let [one, two] = ["192.0.2.1:51820", "198.51.100.1:51820"];
    let changes = vec![at(&[one]), at(&[one, two]), at(&[two, one]), at(&[one])];
    assert_eq!(run(changes), 4);
    assert_eq!(run(vec![at(&[one, two]), at(&[two])]), 1, "where it went has to be looked up");
    assert_eq!(run(vec![at(&[]), at(&[one])]), 1, "it may have been heard from already");
}

/// The short way is the usual one.
#[test]
fn joins_leaves_and_new_addresses_are_planned_from_what_they_touch() {
    let join = |n: u8| (vec![], vec![peer(n, n, Some(n), Some(n))]);
    let mut changes: Vec<_> = (0..50).map(join).collect();
    changes.extend((0..25).map(|n| (vec![n], vec![peer(n + 100, n + 60, Some(n), Some(n))])));
    changes.extend((25..50).map(|n| (vec![], vec![peer(n, n, Some(n + 100), None)])));
    let count = changes.len();
    assert_eq!(run(changes), count);
}
