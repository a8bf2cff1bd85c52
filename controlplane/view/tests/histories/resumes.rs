//! One page from any cursor: exactly what changed, and the state at head.

use std::collections::BTreeSet;

use bytes::Bytes;
use wattle_model::{
    Digest, History, Labels, Mode, NetworkName, NodeId, Policy, Revision, Selector,
};
use wattle_view::{Change, Index, Page, Position, Transaction};

use crate::{
    for_seeds,
    truth::{apply, digest},
    world::{Style, World, networks},
};

pub(crate) fn whole(index: &Index, network: &NetworkName, agent: NodeId, from: Revision) -> Page {
    let key = index.pull_key(network, agent, from, Position::START).unwrap();
    let page = index.pull(&key, usize::MAX);
    assert!(page.position.is_start(), "a page without bound ends the batch");
    page
}

/// The page leads from `from` to head, and holds nothing that isn't needed for it.
pub(crate) fn check(world: &World, network: &NetworkName, agent: NodeId, from: Revision) -> bool {
    let page = whole(&world.watched, network, agent, from);
    let mut held = world.truth.at(network, from).view(agent);
    apply(&mut held, &page);
    let want = world.truth.at(network, world.head).view(agent);
    assert_eq!(held, want, "state of {agent} from {from} to {}", world.head);
    let commit = page.commit.unwrap();
    assert_eq!((commit.revision, commit.digest), (world.head, digest(&want)));
    assert_eq!(world.watched.digest(network, agent), commit.digest);

    if from != Revision::ZERO && !world.remembers(network, from) {
        return false;
    }
    let (entries, removed) = world.truth.exact(network, agent, from, world.head);
    let sent: BTreeSet<_> = page.entries.iter().cloned().collect();
    assert_eq!((sent.len(), &sent), (page.entries.len(), &entries), "entries from {from}");
    let gone: BTreeSet<_> = page.removed.iter().copied().collect();
    assert_eq!((gone.len(), &gone), (page.removed.len(), &removed), "removals from {from}");
    true
}

/// How many resumes were checked for exactness.
fn check_every_cursor(world: &World) -> usize {
    let mut exact = 0;
    for network in networks() {
        for agent in world.live(&network) {
            let cursors = world.horizon.0.max(1)..=world.head.0;
            for from in std::iter::once(0).chain(cursors) {
                exact += usize::from(check(world, &network, agent, Revision(from)));
            }
        }
    }
    exact
}

#[test]
fn every_resume_is_exact_where_nothing_is_forgotten() {
    for_seeds(150, |seed| {
        let world = World::grown(seed, Style::Remembering, 70);
        let agents: usize = networks().iter().map(|n| world.live(n).len()).sum();
        assert_eq!(check_every_cursor(&world), agents * usize::try_from(world.head.0 + 1).unwrap());
    });
}

#[test]
fn every_resume_converges_over_horizons_and_trims() {
    for_seeds(150, |seed| {
        check_every_cursor(&World::grown(seed, Style::Forgetting, 90));
    });
}

/// What is kept to share work doesn't outlive what it was made from: an index that was asked
/// everything at every revision answers as if it never had been.
#[test]
fn questions_between_changes_leave_no_trace() {
    for_seeds(25, |seed| {
        let mut world = World::grown(seed, Style::Forgetting, 10);
        for _ in 0..60 {
            world.step();
            let before = world.cursor();
            for network in networks() {
                for agent in world.live(&network) {
                    check(&world, &network, agent, before);
                    check(&world, &network, agent, Revision::ZERO);
                }
            }
        }
    });
}

/// The selectors of a policy that is gone leave room for another's, which mean other nodes.
#[test]
fn a_digest_outlives_no_policy() {
    let network = networks()[0].clone();
    let within = |label: &str| {
        let side: Selector = label.parse().unwrap();
        Policy { from: side.clone(), to: side }
    };
    let policy = |history| Change::Policy {
        network: network.clone(),
        policy: "p".parse().unwrap(),
        history,
    };
    let nodes = [(NodeId::new([1; 16]), "a=x"), (NodeId::new([2; 16]), "a=y")];
    let mut changes = vec![Change::Network {
        network: network.clone(),
        history: History::first(Revision(1), Mode::Closed),
    }];
    for (node, label) in nodes {
        let history = History::first(Revision(1), Labels::from_texts([label]).unwrap().into());
        let entry = Some(Bytes::copy_from_slice(node.as_bytes()));
        changes.push(Change::Node { network: network.clone(), node, history });
        changes.push(Change::Entry { network: network.clone(), node, entry });
    }
    let first = History::first(Revision(1), within("a=x"));
    changes.push(policy(first.clone()));
    let gone = Change::PolicyGone { network: network.clone(), policy: "p".parse().unwrap() };
    let mut index = Index::default();
    let mut commit = |changes| {
        index.apply(Transaction { revision: index.head().next(), changes });
        nodes.map(|(node, _)| index.digest(&network, node))
    };
    let alone = nodes.map(|(node, _)| Digest::of(node, node.as_bytes()));
    assert_eq!(commit(changes), [alone[0], Digest::EMPTY]);
    assert_eq!(commit(vec![policy(first.changed(Revision(2), None))]), [Digest::EMPTY; 2]);
    commit(vec![Change::Horizon(Revision(2)), gone]);
    let second = policy(History::first(Revision(4), within("a=y")));
    assert_eq!(commit(vec![second]), [Digest::EMPTY, alone[1]]);
}

/// More than 32 bodies of one record: below its floor nobody knows who saw whom.
#[test]
fn every_resume_converges_over_records_that_forget() {
    for_seeds(20, |seed| {
        let world = World::grown(seed, Style::Churning, 500);
        let forgot = networks().iter().any(|network| !world.remembers(network, Revision(1)));
        assert!(forgot, "the history is too short to prove anything");
        check_every_cursor(&world);
    });
}

/// From below the horizon a resume may miss a death whose record is gone, and nothing else: that is
/// why such an agent is given a full set.
#[test]
fn below_the_horizon_only_forgotten_deaths_are_missed() {
    for_seeds(150, |seed| {
        let world = World::grown(seed, Style::Forgetting, 90);
        for network in networks() {
            for agent in world.live(&network) {
                for from in (1..world.horizon.0).map(Revision) {
                    assert!(!world.watched.resumable(from));
                    let mut held = world.truth.at(&network, from).view(agent);
                    apply(&mut held, &whole(&world.watched, &network, agent, from));
                    held.retain(|node, _| world.knows(&network, *node));
                    let want = world.truth.at(&network, world.head).view(agent);
                    assert_eq!(held, want, "state of {agent} from {from}");
                }
            }
        }
    });
}

/// A deleted agent isn't served; an agent of another network doesn't exist in this one.
#[test]
fn only_the_living_have_keys() {
    for_seeds(20, |seed| {
        let world = World::grown(seed, Style::Remembering, 70);
        let [one, two] = networks();
        let key = |network, agent| {
            world.watched.pull_key(network, agent, Revision::ZERO, Position::START)
        };
        for agent in world.live(&one) {
            assert!(key(&one, agent).is_some() && key(&two, agent).is_none());
        }
        let ever: BTreeSet<NodeId> = world
            .truth
            .states
            .iter()
            .flat_map(|s| s.get(&one))
            .flat_map(|s| s.nodes.keys().copied())
            .collect();
        for dead in ever.into_iter().filter(|id| !world.live(&one).contains(id)) {
            assert!(key(&one, dead).is_none());
            assert_eq!(world.watched.life(&one, dead), wattle_view::Life::Deleted);
        }
    });
}
