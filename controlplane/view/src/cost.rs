//! Counts the nodes that an operation looks at, in tests only: the promise that one change costs
//! the same in a large network as in a small one is held by counting, not by a clock.

#[cfg(test)]
thread_local! {
    static NODES: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// One node was looked at.
#[inline]
pub(crate) fn node() {
    #[cfg(test)]
    NODES.with(|nodes| nodes.set(nodes.get() + 1));
}

/// How many nodes `operation` looks at.
#[cfg(test)]
pub(crate) fn of(operation: impl FnOnce()) -> usize {
    NODES.with(|nodes| nodes.set(0));
    operation();
    NODES.with(std::cell::Cell::get)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use wattle_model::{History, Labels, Mode, NetworkName, NodeId, Policy, Revision};

    use super::of;
    use crate::{Change, Index, Page, Position, Transaction};

    fn network() -> NetworkName {
        "default".parse().unwrap()
    }

    fn id(n: u64) -> NodeId {
        NodeId::new((u128::from(n) + 1).to_be_bytes())
    }

    fn entry(n: u64, bytes: &'static [u8]) -> Change {
        Change::Entry { network: network(), node: id(n), entry: Some(Bytes::from_static(bytes)) }
    }

    /// `nodes` live nodes, made one a revision; every tenth is a hub, seen by all in closed mode.
    fn index(mode: Mode, nodes: u64) -> Index {
        let first = Revision(1);
        let policy = Policy { from: "role=hub".parse().unwrap(), to: "role".parse().unwrap() };
        let changes = (0..nodes).flat_map(|n| {
            let labels = Labels::from_texts([if n % 10 == 0 { "role=hub" } else { "role=leaf" }]);
            let history = History::first(Revision(n + 2), labels.unwrap().into());
            let node = Change::Node { network: network(), node: id(n), history };
            [(Revision(n + 2), node), (Revision(n + 2), entry(n, b"first"))]
        });
        let shape = [
            Change::Network { network: network(), history: History::first(first, mode) },
            Change::Policy {
                network: network(),
                policy: "hubs".parse().unwrap(),
                history: History::first(first, policy),
            },
        ];
        Index::from_list(
            Revision(nodes + 1),
            shape.into_iter().map(|change| (first, change)).chain(changes),
        )
    }

    /// How many nodes are looked at when one entry changes and one agent is told.
    fn cost_of_a_change(mode: Mode, nodes: u64) -> usize {
        let mut index = index(mode, nodes);
        let from = index.head();
        let before = index.digest(&network(), id(1));
        let mut pulled = None;
        let cost = of(|| {
            index.apply(Transaction { revision: from.next(), changes: vec![entry(0, b"second")] });
            let key = index.pull_key(&network(), id(1), from, Position::START).unwrap();
            pulled = Some(index.pull(&key, 1 << 16));
            assert!(index.concerns(&network(), id(1), from, from.next()));
        });
        let Page { entries, removed, commit, .. } = pulled.unwrap();
        assert_eq!((entries, removed), (vec![Bytes::from_static(b"second")], vec![]));
        assert_ne!(commit.unwrap().digest, before);
        cost
    }

    #[test]
    fn a_change_costs_the_same_in_a_large_network() {
        for mode in [Mode::Mesh, Mode::Closed] {
            let (small, large) = (cost_of_a_change(mode, 100), cost_of_a_change(mode, 5_000));
            assert_eq!(small, large, "{mode:?}");
            assert!(small <= 4, "{mode:?}: {small}");
        }
    }
}
