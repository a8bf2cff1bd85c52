//! Records that have forgotten what they said at an agent's cursor: whatever it may have seen then,
//! and doesn't see now, is taken back.

use bytes::Bytes;
use wattle_model::{
    History, Labels, Mode, NetworkName, NodeId, Policy, Revision, Selector, Traits,
};
use wattle_view::{Change, Index, Position};

use crate::{resumes::whole, truth::node_of, world::networks};

fn id(n: u8) -> NodeId {
    NodeId::new([n; NodeId::LEN])
}

fn within(label: &str) -> Policy {
    let side: Selector = label.parse().unwrap();
    Policy { from: side.clone(), to: side }
}

fn policy(history: History<Policy>) -> Change {
    Change::Policy { network: networks()[0].clone(), policy: "p".parse().unwrap(), history }
}

/// A closed network at revision 1, in which nodes with these labels live.
fn index(nodes: &[(u8, &str)], first: Policy) -> Index {
    let (network, at) = (networks()[0].clone(), Revision(1));
    let mut index = Index::default();
    let mode = History::first(at, Mode::Closed);
    let mut changes = vec![Change::Network { network: network.clone(), history: mode }];
    changes.push(policy(History::first(at, first)));
    for (node, label) in nodes {
        changes.push(relabelled(&network, *node, History::first(at, traits(label))));
        changes.push(entry(&network, *node));
    }
    apply(&mut index, changes);
    index
}

fn traits(label: &str) -> Traits {
    Labels::from_texts([label]).unwrap().into()
}

fn relabelled(network: &NetworkName, node: u8, history: History<Traits>) -> Change {
    Change::Node { network: network.clone(), node: id(node), history }
}

fn entry(network: &NetworkName, node: u8) -> Change {
    let entry = Some(Bytes::copy_from_slice(id(node).as_bytes()));
    Change::Entry { network: network.clone(), node: id(node), entry }
}

fn apply(index: &mut Index, changes: Vec<Change>) {
    index.apply(wattle_view::Transaction { revision: index.head().next(), changes });
}

/// A policy once let two nodes see each other; all that it remembers is about others.
#[test]
fn a_policy_that_has_forgotten_a_selector_is_doubted_by_all() {
    let network = networks()[0].clone();
    let mut index = index(&[(1, "a=x"), (2, "a=x"), (3, "b=x")], within("a=x"));
    let mut history = History::first(Revision(1), within("a=x"));
    for n in 2..=60 {
        history = history.changed(Revision(n), Some(within(if n % 2 == 0 { "b" } else { "b=x" })));
        apply(&mut index, vec![policy(history.clone())]);
    }
    let page = whole(&index, &network, id(1), Revision(1));
    assert!(page.entries.is_empty() && page.removed.contains(&id(2)));
    assert!(index.concerns(&network, id(1), Revision(1), index.head()));
}

/// The same while a batch is under way that began when the policy still let them.
#[test]
fn a_policy_that_forgets_during_a_batch_takes_back_what_the_batch_sent() {
    let network = networks()[0].clone();
    let mut index = index(&[(1, "a=x"), (2, "a=x"), (3, "a=x")], within("a=x"));
    let key = |index: &Index, position| {
        index.pull_key(&network, id(1), Revision::ZERO, position).unwrap()
    };
    let mut sent = Vec::new();
    let mut position = Position::START;
    for _ in 0..2 {
        let page = index.pull(&key(&index, position), 1);
        sent.extend(page.entries.iter().map(node_of));
        position = page.position;
    }
    assert_eq!(sent, [id(1), id(2)]);
    let mut history = History::first(Revision(1), within("a=x"));
    for n in 2..=60 {
        history = history.changed(Revision(n), Some(within(if n % 2 == 0 { "b" } else { "b=x" })));
        apply(&mut index, vec![policy(history.clone())]);
    }
    let last = index.pull(&key(&index, position), usize::MAX);
    assert!(sent.iter().all(|node| last.removed.contains(node)));
    assert!(last.entries.is_empty() && last.commit.is_some());
}

/// A node was once of an agent's group; all labels that it remembers are others, and so many nodes
/// changed since that nobody looks at each.
#[test]
fn a_node_that_has_forgotten_a_group_is_taken_back_from_it() {
    let network = networks()[0].clone();
    let others: Vec<(u8, &str)> = (10..100).map(|n| (n, "b=x")).collect();
    let nodes = [&[(1, "a=x"), (2, "a=x")], others.as_slice()].concat();
    let mut index = index(&nodes, within("a=x"));
    let mut history = History::first(Revision(1), traits("a=x"));
    for n in 2..=60 {
        history =
            history.changed(Revision(n), Some(traits(if n % 2 == 0 { "c=x" } else { "c=y" })));
        apply(&mut index, vec![relabelled(&network, 2, history.clone())]);
    }
    apply(&mut index, others.iter().map(|(node, _)| entry(&network, *node)).collect());
    let page = whole(&index, &network, id(1), Revision(1));
    assert_eq!((page.entries.len(), page.removed), (0, vec![id(2)]));
    assert!(index.concerns(&network, id(1), Revision(1), index.head()));
}
