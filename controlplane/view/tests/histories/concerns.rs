//! Whom a change concerns: never one agent too few, and none too many where it can be known.

use bytes::Bytes;
use wattle_model::{History, Mode, NetworkName, NodeId, Policy, Revision, Selector, Traits};
use wattle_view::{Change, Index};

use crate::{
    for_seeds,
    world::{Style, World, networks},
};

/// Whether what the agent sees differs between a revision and the one before.
fn changed_at(world: &World, network: &NetworkName, agent: NodeId, revision: Revision) -> bool {
    let before = world.truth.at(network, Revision(revision.0 - 1)).view(agent);
    before != world.truth.at(network, revision).view(agent)
}

/// Histories, and how many revisions to go on at a time through the long ones.
const HISTORIES: [(Style, u64, usize); 3] =
    [(Style::Remembering, 55, 1), (Style::Forgetting, 75, 1), (Style::Churning, 300, 13)];

#[test]
fn nobody_whom_a_change_concerns_is_left_out() {
    for_seeds(40, |seed| {
        for (style, length, stride) in HISTORIES {
            let world = World::grown(seed, style, length);
            let known = (world.horizon.0.max(1)..=world.head.0).rev().map(Revision);
            known.step_by(stride).for_each(|revision| check_revision(&world, revision));
        }
    });
}

fn check_revision(world: &World, revision: Revision) {
    let concerned = world.watched.concerned(revision);
    for network in networks() {
        // The newest change can't have been overwritten yet.
        let exact = revision == world.head && world.remembers(&network, Revision(revision.0 - 1));
        for agent in world.live(&network) {
            let named = concerned.contains(&(network.clone(), agent));
            let truth = changed_at(world, &network, agent, revision);
            assert!(named || !truth, "{agent} at {revision}");
            assert!(!exact || named == truth, "{agent} at head {revision}");
        }
    }
}

#[test]
fn nothing_that_lies_ahead_of_an_agent_is_overlooked() {
    for_seeds(20, |seed| {
        for (style, length, stride) in HISTORIES {
            let world = World::grown(seed, style, length);
            for network in networks() {
                for agent in world.live(&network) {
                    check_spans(&world, &network, agent, stride);
                }
            }
        }
    });
}

fn check_spans(world: &World, network: &NetworkName, agent: NodeId, stride: usize) {
    for after in (world.horizon.0..=world.head.0).step_by(stride).map(Revision) {
        let mut truth = false;
        for upto in (after.0 + 1..=world.head.0).map(Revision) {
            truth |= changed_at(world, network, agent, upto);
            let says = world.watched.concerns(network, agent, after, upto);
            assert!(says || !truth, "{agent} in ({after}, {upto}]");
            let exact = upto == world.head && world.remembers(network, after);
            assert!(!exact || says == truth, "{agent} in ({after}, {upto}]");
        }
    }
}

/// A policy came and went so often that it has forgotten when, and nothing else ever changed.
#[test]
fn what_a_policy_has_forgotten_may_have_concerned_anybody() {
    let (network, node) = (networks()[0].clone(), NodeId::new([1; 16]));
    let all = Policy { from: Selector::default(), to: Selector::default() };
    let mut policy = History::first(Revision(1), all.clone());
    for n in 2..=60 {
        policy = policy.changed(Revision(n), (n % 2 == 1).then(|| all.clone()));
    }
    let first = Revision(1);
    let (mode, life) =
        (History::first(first, Mode::Closed), History::first(first, Traits::default()));
    let entry = Some(Bytes::from_static(b"entry"));
    let items = [
        Change::Network { network: network.clone(), history: mode },
        Change::Node { network: network.clone(), node, history: life },
        Change::Entry { network: network.clone(), node, entry },
        Change::Policy { network: network.clone(), policy: "p".parse().unwrap(), history: policy },
    ];
    let index = Index::from_list(Revision(60), items.map(|change| (first, change)));
    assert!(index.concerns(&network, node, Revision(5), Revision(6)));
    assert_eq!(index.concerned(Revision(6)), [(network, node)]);
}
