//! Preshared keys: set where they differ, and nothing else with them.

use std::time::Instant;

use wattle_model::{Generation, NodeId, PeerSpec, PresharedKey, Secrets};
use wattle_plan::{Desired, EndpointMemory, Op, Prefixes, SetPeer, Update, diff};

use crate::simulated::*;

/// A device and what it should be.
struct Bench {
    device: KernelLike,
    memory: EndpointMemory,
    desired: Desired,
}

impl Bench {
    fn with(peers: &[PeerSpec]) -> Self {
        let desired = Desired::new(OWN, crate::simulated::device());
        let mut bench =
            Self { device: KernelLike::default(), memory: EndpointMemory::default(), desired };
        bench.reach(peers);
        bench
    }

    fn reach(&mut self, peers: &[PeerSpec]) -> Vec<Op> {
        self.desired.apply(Update::Reset(peers.to_vec()));
        self.look()
    }

    fn use_secrets(&mut self, secrets: Secrets) -> Vec<Op> {
        self.desired.secrets = secrets;
        self.look()
    }

    fn look(&mut self) -> Vec<Op> {
        let ops = self.plan();
        ops.iter().for_each(|op| self.device.execute(op));
        assert_eq!(self.plan(), [], "nothing is left to do");
        ops
    }

    fn plan(&mut self) -> Vec<Op> {
        diff(&self.desired, &self.device.observe(), &mut self.memory, Instant::now())
    }
}

fn holding(node: u8, generation: u64) -> PeerSpec {
    let secret_generation = Generation(generation);
    PeerSpec { secret_generation, ..peer(node, node, Some(node), None) }
}

fn derived(generation: u64, node: u8) -> PresharedKey {
    secrets(2).known[&Generation(generation)].preshared_key(NodeId::new([node; 16]), OWN)
}

/// Which keys are given another preshared key, if that is all that is done.
fn only_preshared(ops: &[Op]) -> Vec<(u8, PresharedKey)> {
    let one = |op: &Op| match op {
        Op::SetPeer(SetPeer {
            key,
            create: false,
            prefixes: Prefixes::Keep,
            endpoint: None,
            keepalive: None,
            preshared: Some(preshared),
        }) => (key.as_bytes()[0] - 1, preshared.clone()),
        other => panic!("{other:?}"),
    };
    ops.iter().map(one).collect()
}

#[test]
fn a_pair_has_the_newest_that_both_hold_and_none_where_one_holds_none() {
    let mut bench = Bench::with(&[holding(1, 2), holding(2, 1), holding(3, 0)]);
    let on = bench.use_secrets(secrets(2));
    assert_eq!(only_preshared(&on), [(1, derived(2, 1)), (2, derived(1, 2))]);
    let back = bench.use_secrets(secrets(1));
    assert_eq!(only_preshared(&back), [(1, derived(1, 1))]);
    let off = bench.use_secrets(secrets(0));
    assert_eq!(only_preshared(&off), [(1, PresharedKey::NONE), (2, PresharedKey::NONE)]);
}

#[test]
fn a_new_peer_has_its_own_from_the_beginning() {
    let mut bench = Bench::with(&[]);
    bench.use_secrets(secrets(2));
    let ops = bench.reach(&[holding(1, 2)]);
    let [Op::SetPeer(SetPeer { create: true, preshared: Some(preshared), .. })] = &ops[..] else {
        panic!("{ops:?}")
    };
    assert_eq!(*preshared, derived(2, 1));
}

/// Somebody ran `wg set`.
#[test]
fn another_one_is_put_right_and_so_is_one_where_there_should_be_none() {
    let mut bench = Bench::with(&[holding(1, 2), holding(3, 0)]);
    bench.use_secrets(secrets(2));
    for node in [1, 3] {
        bench.device.execute(&Op::SetPeer(SetPeer {
            key: key(node),
            create: false,
            prefixes: Prefixes::Keep,
            endpoint: None,
            keepalive: None,
            preshared: Some(PresharedKey::new([9; 32])),
        }));
    }
    let repaired = bench.look();
    assert_eq!(only_preshared(&repaired), [(1, derived(2, 1)), (3, PresharedKey::NONE)]);
}

/// The key that it will change to is answered with the same: it is the node's.
#[test]
fn a_peer_s_next_key_has_its_preshared_key_and_keeps_it() {
    let mut bench = Bench::with(&[holding(1, 2)]);
    bench.use_secrets(secrets(2));
    let announced = PeerSpec { next_public_key: Some(key(7)), ..holding(1, 2) };
    let ops = bench.reach(&[announced]);
    let [Op::SetPeer(SetPeer { create: true, preshared: Some(preshared), .. })] = &ops[..] else {
        panic!("{ops:?}")
    };
    assert_eq!(*preshared, derived(2, 1));
    let promoted = PeerSpec { public_key: key(7), ..holding(1, 2) };
    let ops = bench.reach(&[promoted]);
    let [Op::SetPeer(SetPeer { preshared: None, .. }), Op::RemovePeer { .. }] = &ops[..] else {
        panic!("{ops:?}")
    };
}
