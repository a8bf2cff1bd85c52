//! What the index weighs and what a change allocates, counted by the allocator: neither may grow
//! with the number of classes, and a change's allocations not with that of nodes either.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "all of this is test code")]

use allocation_counter::{AllocationInfo, measure};
use bytes::Bytes;
use wattle_model::{History, Labels, Mode, NetworkName, NodeId, Policy, Revision};
use wattle_view::{Change, Index, Page, Position, Transaction};

/// About what a peer's entry has.
const ENTRY: usize = 140;

fn network() -> NetworkName {
    "default".parse().unwrap()
}

fn id(n: u64) -> NodeId {
    // As far from each other as random ones are.
    NodeId::new(
        (u128::from(n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).to_be_bytes(),
    )
}

fn entry(n: u64, version: u8) -> Change {
    let mut bytes = vec![version; ENTRY];
    bytes[..NodeId::LEN].copy_from_slice(id(n).as_bytes());
    Change::Entry { network: network(), node: id(n), entry: Some(bytes.into()) }
}

fn policy(name: &str, from: &str, to: &str) -> (Revision, Change) {
    let policy = Policy { from: from.parse().unwrap(), to: to.parse().unwrap() };
    let (name, history) = (name.parse().unwrap(), History::first(Revision(1), policy));
    (Revision(1), Change::Policy { network: network(), policy: name, history })
}

/// A closed network: a policy lets all see all, and one for each group its nodes each other.
fn listing(nodes: u64, groups: u64) -> impl Iterator<Item = (Revision, Change)> {
    let first = Revision(1);
    let mode = Change::Network { network: network(), history: History::first(first, Mode::Closed) };
    let of_group = |group| {
        let side = format!("group=g{group}");
        policy(&format!("within-g{group}"), &side, &side)
    };
    let policies = [policy("all", "role=node", "role=node")].into_iter();
    let nodes = (0..nodes).flat_map(move |n| {
        let labels = ["role=node".to_owned(), format!("group=g{}", n % groups)];
        let traits = Labels::from_texts(labels).unwrap().into();
        let history = History::first(Revision(n + 2), traits);
        let node = Change::Node { network: network(), node: id(n), history };
        [(Revision(n + 2), node), (Revision(n + 2), entry(n, 1))]
    });
    [(first, mode)].into_iter().chain(policies.chain((0..groups).map(of_group))).chain(nodes)
}

fn index(nodes: u64, groups: u64) -> Index {
    Index::from_list(Revision(nodes + 1), listing(nodes, groups))
}

fn pull(index: &Index, agent: u64, from: Revision) -> Page {
    let key = index.pull_key(&network(), id(agent), from, Position::START).unwrap();
    index.pull(&key, usize::MAX)
}

/// What an index of so many nodes weighs, once each has been told of all and of one change more.
fn weight(nodes: u64, groups: u64) -> i64 {
    let mut kept = None;
    let said = measure(|| {
        let mut index = index(nodes, groups);
        for from in [Revision::ZERO, index.head()] {
            let revision = index.head().next();
            index.apply(Transaction { revision, changes: vec![entry(0, 2)] });
            for agent in 0..nodes {
                assert!(pull(&index, agent, from).commit.is_some());
            }
        }
        kept = Some(index);
    });
    drop(kept);
    said.bytes_current
}

#[test]
fn two_thousand_classes_weigh_at_most_twice_as_much_as_one() {
    let (one, many) = (weight(2_000, 1), weight(2_000, 2_000));
    println!("2,000 nodes in one class: {one} bytes, in 2,000 classes: {many} bytes");
    assert!(many <= 2 * one, "{many} bytes, {one} in one class");
}

/// What it allocates that one entry changes, and that one agent, which was told of all before, is
/// told of it.
fn allocations(nodes: u64, groups: u64) -> AllocationInfo {
    let mut index = index(nodes, groups);
    let (network, agent, from) = (network(), id(1), index.head());
    index.digest(&network, agent);
    let change = Transaction { revision: from.next(), changes: vec![entry(0, 2)] };
    let mut page = None;
    let said = measure(|| {
        index.apply(change);
        assert!(index.concerns(&network, agent, from, from.next()));
        page = Some(pull(&index, 1, from));
        index.digest(&network, agent);
    });
    let Page { entries, removed, .. } = page.unwrap();
    let expected: Bytes = vec![2; ENTRY - NodeId::LEN].into();
    assert_eq!((entries.len(), removed.len()), (1, 0));
    assert_eq!(entries[0].slice(NodeId::LEN..), expected);
    said
}

#[test]
fn a_change_allocates_the_same_in_a_large_network_and_among_many_classes() {
    let small = allocations(200, 1);
    for (nodes, groups) in [(4_000, 1), (4_000, 2_000), (200, 200)] {
        let large = allocations(nodes, groups);
        // A tree that is rebalanced, a table that grows by one: by chance, and never many.
        assert!(large.count_total <= small.count_total + 4, "{groups}: {large:?}, {small:?}");
        assert!(large.bytes_total <= small.bytes_total + 2048, "{groups}: {large:?}, {small:?}");
    }
    println!("{small:?}");
    assert!(small.count_total <= 40, "{small:?}");
}

/// Of node `n`, which has the labels `k0` to `k11` that the bits of `bits` say.
fn relabelled(n: u64, bits: u64, at: Revision) -> Change {
    let labels = (0..12).filter(|bit| bits >> bit & 1 == 1).map(|bit| format!("k{bit}=x"));
    let history = History::first(at, Labels::from_texts(labels).unwrap().into());
    Change::Node { network: network(), node: id(n), history }
}

/// What an index of 40 nodes weighs after so many changes: each gives a node labels, and so a
/// class, that none had before, and replaces a policy by one with a selector that is new.
fn weight_after(changes: u64) -> i64 {
    let mut kept = None;
    let said = measure(|| {
        let mut index = index(40, 4);
        let named = (0..12).map(|bit| policy(&format!("k{bit}"), &format!("k{bit}"), "a").1);
        index.apply(Transaction { revision: index.head().next(), changes: named.collect() });
        for n in 0..changes {
            let (revision, node) = (index.head().next(), n % 40);
            let (_, replaced) = policy("replaced", &format!("k0,!z{n}"), "k1");
            let changes = vec![relabelled(node, n, revision), replaced, entry(node, n as u8)];
            index.apply(Transaction { revision, changes });
            index.digest(&network(), id(node));
        }
        kept = Some(index);
    });
    drop(kept);
    said.bytes_current
}

#[test]
fn what_is_gone_weighs_nothing() {
    let (some, more) = (weight_after(1_900), weight_after(3_900));
    println!("after 1,900 changes: {some} bytes, after 3,900: {more} bytes");
    assert!(more <= some + some / 8, "{more} bytes, {some} after fewer changes");
}
