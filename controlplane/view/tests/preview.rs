//! What a proposal is said to mean, against a count of all pairs one by one: random labels, names,
//! policies, modes and proposals.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "histories/rng.rs"]
mod rng;

use std::{collections::BTreeMap, sync::Arc};

use rng::Rng;
use wattle_model::{History, Labels, Mode, NodeId, Policy, Revision, Traits};
use wattle_view::{Change, Effect, Index, NodeEffect, Proposal, Shape, Sights};

const SELECTORS: [&str; 12] = [
    "",
    "a",
    "a=1",
    "a=2",
    "a!=1",
    "b in (1,2)",
    "b notin (2,3)",
    "!b",
    "a=1,b=2",
    "name=n3",
    "name!=n4",
    "id=00000000000000000000000000000002",
];

fn id(n: u64) -> NodeId {
    NodeId::new(u128::from(n).to_be_bytes())
}

fn traits(rng: &mut Rng, n: u64) -> Traits {
    let mut pairs = BTreeMap::new();
    for key in ["a", "b"] {
        if rng.percent(70) {
            pairs.insert(key, *rng.pick(&["1", "2", "3"]));
        }
    }
    let fixed_name = rng.percent(50).then(|| format!("n{n}").parse().unwrap());
    Traits { labels: Labels::from_pairs(pairs).unwrap(), fixed_name }
}

fn policy(rng: &mut Rng) -> Policy {
    let from = rng.pick(&SELECTORS).parse().unwrap();
    Policy { from, to: rng.pick(&SELECTORS).parse().unwrap() }
}

fn mode(rng: &mut Rng) -> Mode {
    if rng.percent(25) { Mode::Mesh } else { Mode::Closed }
}

fn shape(rng: &mut Rng) -> Shape {
    let policies = (0..rng.below(5)).map(|n| (format!("p{n}").parse().unwrap(), policy(rng)));
    let policies = policies.collect();
    let nodes = (0..rng.below(12)).map(|n| (id(n), Arc::new(traits(rng, n)))).collect();
    Shape { mode: mode(rng), policies, nodes }
}

fn proposal(rng: &mut Rng) -> Proposal {
    let mut proposal = Proposal::default();
    if rng.percent(30) {
        proposal.mode = Some(mode(rng));
    }
    for _ in 0..rng.below(3) {
        let name = format!("p{}", rng.below(6)).parse().unwrap();
        let policy = rng.percent(60).then(|| policy(rng));
        proposal.policies.insert(name, policy);
    }
    for _ in 0..rng.below(4) {
        let n = rng.below(13);
        let traits = traits(rng, n);
        proposal.traits.insert(id(n), traits);
    }
    proposal
}

/// By the book: the mode, or any policy, either way round.
fn sees(shape: &Shape, a: NodeId, b: NodeId) -> bool {
    let lets = |from: NodeId, to: NodeId| {
        shape.policies.values().any(|policy| {
            policy.from.matches(from, &shape.nodes[&from])
                && policy.to.matches(to, &shape.nodes[&to])
        })
    };
    shape.mode == Mode::Mesh || lets(a, b) || lets(b, a)
}

fn counted(before: &Shape, after: &Shape, most: usize) -> Effect {
    let mut effect = Effect::default();
    for &node in before.nodes.keys() {
        let (mut gained, mut lost) = (0, 0);
        for &other in before.nodes.keys().filter(|other| **other != node) {
            match (sees(before, node, other), sees(after, node, other)) {
                (false, true) => gained += 1,
                (true, false) => lost += 1,
                _ => {}
            }
        }
        effect.pairs_gained += gained;
        effect.pairs_lost += lost;
        if gained + lost > 0 {
            effect.nodes.push(NodeEffect { node, gained, lost });
        }
    }
    effect.pairs_gained /= 2;
    effect.pairs_lost /= 2;
    effect.nodes_changed = effect.nodes.len();
    effect.nodes.sort_by_key(|n| (u64::MAX - n.gained - n.lost, n.node));
    effect.nodes.truncate(most);
    effect
}

#[test]
fn what_is_foretold_is_what_all_pairs_say() {
    let (mut gains, mut losses) = (0, 0);
    for seed in 0..2000 {
        let rng = &mut Rng::new(seed);
        let before = shape(rng);
        let proposal = proposal(rng);
        let after = before.clone().proposed(proposal.clone());
        assert!(after.nodes.keys().eq(before.nodes.keys()), "a proposal makes no node");
        let (was, is) = (Sights::new(&before), Sights::new(&after));
        let most = usize::try_from(rng.below(6)).unwrap();
        let effect = was.effect(&is, most);
        assert_eq!(effect, counted(&before, &after, most), "seed {seed}: {before:?} {proposal:?}");
        for (&a, &b) in after.nodes.keys().flat_map(|a| after.nodes.keys().map(move |b| (a, b))) {
            assert_eq!(is.sees(a, b), sees(&after, a, b), "seed {seed}: {a} {b}");
            let lets = !after.policies_between(a, b).is_empty();
            assert!(after.mode == Mode::Mesh || lets == is.sees(a, b), "seed {seed}: {a} {b}");
        }
        gains += effect.pairs_gained;
        losses += effect.pairs_lost;
    }
    assert!(gains > 1000 && losses > 1000, "too little happens: {gains} {losses}");
}

/// A shape taken from an index that has lived is the one that was put there last.
#[test]
fn a_shape_is_what_the_index_has_now() {
    for seed in 0..200 {
        let rng = &mut Rng::new(seed);
        let (old, new) = (shape(rng), shape(rng));
        let network = || "default".parse().unwrap();
        let [first, last] = [Revision(3), Revision(7)];
        let mut changes = vec![Change::Network {
            network: network(),
            history: History::first(first, old.mode).changed(last, Some(new.mode)),
        }];
        let policies = old.policies.keys().chain(new.policies.keys());
        for policy in policies.collect::<std::collections::BTreeSet<_>>() {
            let history = match (old.policies.get(policy), new.policies.get(policy).cloned()) {
                (Some(old), new) => History::first(first, old.clone()).changed(last, new),
                (None, new) => History::first(last, new.unwrap()),
            };
            changes.push(Change::Policy { network: network(), policy: policy.clone(), history });
        }
        for n in 0..13 {
            let of = |shape: &Shape| shape.nodes.get(&id(n)).map(|traits| traits.as_ref().clone());
            let history = match (of(&old), of(&new)) {
                (Some(old), new) => History::first(first, old).changed(last, new),
                (None, Some(new)) => History::first(last, new),
                (None, None) => continue,
            };
            changes.push(Change::Node { network: network(), node: id(n), history });
        }
        let changes = changes.into_iter().map(|change| (last, change));
        let index = Index::from_list(last, changes);
        assert_eq!(index.shape(&network()), Some(new), "seed {seed}");
    }
    assert_eq!(Index::default().shape(&"default".parse().unwrap()), None);
}
