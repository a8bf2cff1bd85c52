//! One change costs the same whatever the network's size and however many classes it has.

use bytes::Bytes;
use wattle_model::{Digest, History, Labels, Mode, NetworkName, NodeId, Policy, Revision};

use super::{Cost, of};
use crate::{Change, Index, Page, Position, Transaction};

/// How a network looks.
#[derive(Debug, Clone, Copy)]
struct Shape {
    mode: Mode,
    nodes: u64,
    groups: u64,
    /// Whether a policy lets all see all, beside those that let each group see itself.
    all: bool,
}

/// A closed network.
const fn closed(nodes: u64, groups: u64, all: bool) -> Shape {
    Shape { mode: Mode::Closed, nodes, groups, all }
}

fn network() -> NetworkName {
    "default".parse().unwrap()
}

fn id(n: u64) -> NodeId {
    NodeId::new((u128::from(n) + 1).to_be_bytes())
}

fn entry(n: u64, bytes: &'static [u8]) -> Change {
    Change::Entry { network: network(), node: id(n), entry: Some(Bytes::from_static(bytes)) }
}

fn labels(group: u64) -> Labels {
    Labels::from_texts(["role=node".to_owned(), format!("group={group}")]).unwrap()
}

fn policy(name: &str, from: &str, to: &str, history: impl Fn(Policy) -> History<Policy>) -> Change {
    let policy = Policy { from: from.parse().unwrap(), to: to.parse().unwrap() };
    Change::Policy { network: network(), policy: name.parse().unwrap(), history: history(policy) }
}

fn index(shape: Shape) -> Index {
    let first = Revision(1);
    let at_first = |policy| History::first(first, policy);
    let mode = Change::Network { network: network(), history: History::first(first, shape.mode) };
    let groups = (0..shape.groups).map(|group| {
        let side = format!("group={group}");
        policy(&format!("g{group}"), &side, &side, at_first)
    });
    let all = shape.all.then(|| policy("all", "role=node", "role", at_first));
    let nodes = (0..shape.nodes).flat_map(|n| {
        let at = Revision(n + 2);
        let history = History::first(at, labels(n % shape.groups).into());
        let node = Change::Node { network: network(), node: id(n), history };
        [(at, node), (at, entry(n, b"first"))]
    });
    let shape_changes = [mode].into_iter().chain(groups).chain(all);
    let shape_changes = shape_changes.map(|change| (first, change));
    Index::from_list(Revision(shape.nodes + 1), shape_changes.chain(nodes))
}

/// The first page of node `agent` from one revision before head.
fn page(index: &Index, agent: u64) -> Page {
    let from = Revision(index.head().0 - 1);
    let key = index.pull_key(&network(), id(agent), from, Position::START).unwrap();
    index.pull(&key, 1 << 20)
}

/// The same, for an agent that was woken for it.
fn told(index: &Index, agent: u64) -> Page {
    let (from, page) = (Revision(index.head().0 - 1), page(index, agent));
    let concerned = index.concerns(&network(), id(agent), from, index.head());
    assert!(concerned || page.entries.len() + page.removed.len() == 0);
    page
}

/// What it costs that one entry changes and one agent, which was told of all before, is told.
fn cost_of_a_change(shape: Shape) -> Cost {
    let mut index = index(shape);
    let (network, agent, from) = (network(), shape.groups, index.head());
    let before = index.digest(&network, id(agent));
    let (cost, page) = of(|| {
        index.apply(Transaction { revision: from.next(), changes: vec![entry(0, b"second")] });
        assert!(index.concerns(&network, id(agent), from, from.next()));
        let page = page(&index, agent);
        assert_eq!(index.digest(&network, id(agent)), page.commit.unwrap().digest);
        page
    });
    assert_eq!((page.entries, page.removed), (vec![Bytes::from_static(b"second")], vec![]));
    assert_ne!(page.commit.unwrap().digest, before);
    cost
}

#[test]
fn a_change_costs_the_same_in_a_large_network_and_among_many_classes() {
    for (shapes, most) in [
        ([(200, 1), (4_000, 1), (4_000, 2_000)].map(|(n, g)| closed(n, g, true)), (5, 50, 5)),
        ([(200, 1), (4_000, 1), (4_000, 2_000)].map(|(n, g)| closed(n, g, false)), (4, 30, 4)),
        (
            [(200, 1), (4_000, 1), (4_000, 2_000)]
                .map(|(n, g)| Shape { mode: Mode::Mesh, ..closed(n, g, true) }),
            (4, 30, 0),
        ),
    ] {
        let costs = shapes.map(cost_of_a_change);
        assert_eq!([costs[1], costs[2]], [costs[0]; 2], "{shapes:?}");
        let Cost { nodes, slots, policies } = costs[0];
        assert!(nodes <= most.0 && slots <= most.1 && policies <= most.2, "{:?}", costs[0]);
    }
}

/// A node moves from one group of ten to another: its former and new partners, and itself, see one
/// change each, and it sees twenty.
#[test]
fn a_label_change_costs_as_much_as_comes_and_goes() {
    let cost = |nodes| {
        let mut index = index(closed(nodes, nodes / 10, false));
        let first = History::first(Revision(2), labels(0).into());
        let from = index.head();
        let moved = first.changed(from.next(), Some(labels(1).into()));
        let moved = Change::Node { network: network(), node: id(0), history: moved };
        let changes = vec![moved];
        let (apply, ()) = of(|| index.apply(Transaction { revision: from.next(), changes }));
        let groups = nodes / 10;
        // Itself, one whom it left, one whom it joined, and a stranger.
        let agents = [0, groups, 1, 2];
        let pulls = agents.map(|agent| of(|| told(&index, agent)));
        let seen = pulls.each_ref().map(|(_, page)| (page.entries.len(), page.removed.len()));
        assert_eq!(seen, [(10, 9), (0, 1), (1, 0), (0, 0)]);
        (apply, pulls.map(|(cost, _)| cost))
    };
    let (small, large) = (cost(200), cost(4_000));
    assert_eq!(small, large);
    let nodes = large.1.map(|cost| cost.nodes);
    assert!(nodes[0] <= 50 && nodes[1..].iter().all(|nodes| *nodes <= 4), "{large:?}");
}

/// A policy that opens one group of ten to another: twenty nodes are touched, however many others
/// there are.
#[test]
fn a_policy_costs_as_much_as_comes_into_sight() {
    let cost = |nodes| {
        let mut index = index(closed(nodes, nodes / 10, false));
        // The last ones: whoever looks at all nodes comes upon them late.
        let (one, other) = (nodes / 10 - 2, nodes / 10 - 1);
        let sides = [one, other].map(|group| format!("group={group}"));
        let mut apply = |change| {
            let revision = index.head().next();
            let transaction = Transaction { revision, changes: vec![change] };
            let (applied, ()) = of(|| index.apply(transaction));
            let pulled = [one, other, 0].map(|agent| of(|| told(&index, agent)));
            let seen = pulled.each_ref().map(|(_, page)| page.entries.len() + page.removed.len());
            (applied, pulled.map(|(cost, _)| cost), seen)
        };
        let opened = Revision(nodes + 2);
        let open = |policy| History::first(opened, policy);
        let shut = |policy| History::first(opened, policy).changed(opened.next(), None);
        let opens = apply(policy("new", &sides[0], &sides[1], open));
        let shuts = apply(policy("new", &sides[0], &sides[1], shut));
        assert_eq!((opens.2, shuts.2), ([10, 10, 0], [10, 10, 0]));
        [(opens.0, opens.1), (shuts.0, shuts.1)]
    };
    let (small, large) = (cost(200), cost(4_000));
    assert_eq!(small, large);
    let nodes = large.map(|(apply, pulls)| (apply.nodes, pulls.map(|cost| cost.nodes)));
    assert!(nodes.iter().all(|(apply, pulls)| *apply == 0 && pulls.iter().all(|n| *n <= 40)));
}

/// A sum that nobody asked for while more changed than is kept of changes is as right as one that
/// was brought forward every time.
#[test]
fn a_sum_left_behind_is_made_anew() {
    let mut index = index(closed(40, 4, true));
    let asked = |index: &Index, agent| index.digest(&network(), id(agent));
    let first = [0, 1].map(|agent| asked(&index, agent));
    assert_eq!(first[0], first[1]);
    for n in 0..3_000 {
        let bytes: &'static [u8] = [b"second".as_slice(), b"third", b"fourth"][n % 3];
        let revision = index.head().next();
        index.apply(Transaction { revision, changes: vec![entry(n as u64 % 7, bytes)] });
        // One is asked every time, the other never.
        asked(&index, 0);
    }
    let held = page(&index, 2).commit.unwrap().digest;
    let network = network();
    let all = index.nodes(&network).filter_map(|node| Some(Digest::of(node.id, node.entry?)));
    let all = all.fold(Digest::EMPTY, |mut sum, digest| {
        sum += digest;
        sum
    });
    assert_ne!(all, first[0]);
    assert_eq!([0, 1].map(|agent| asked(&index, agent)), [all; 2]);
    assert_eq!(held, all);
}
