//! Batches of many pages, cut anywhere, while the store moves on and replicas change.

use std::collections::BTreeSet;

use bytes::Bytes;
use wattle_model::{
    History, Mode, NetworkName, NodeId, Policy, PolicyName, Revision, Selector, Traits,
};
use wattle_view::{Change, Index, Page, Position, Transaction};

use crate::{
    for_seeds,
    truth::{Held, apply, digest, node_of},
    world::{Style, World, networks},
};

/// An agent: what it has applied, and what it has staged since.
struct Agent {
    network: NetworkName,
    id: NodeId,
    from: Revision,
    applied: Held,
    staged: Held,
    position: Position,
    began: Revision,
}

impl Agent {
    /// One that comes with what it saw at `from`.
    fn at(world: &World, network: &NetworkName, id: NodeId, from: Revision) -> Self {
        let applied = world.truth.at(network, from).view(id);
        let (network, position) = (network.clone(), Position::START);
        let staged = applied.clone();
        Self { network, id, from, applied, staged, position, began: from }
    }

    /// Takes a page; says whether it ended the batch.
    fn take(&mut self, world: &World, page: &Page) -> bool {
        if self.position.is_start() {
            self.began = world.head;
        }
        self.check_sight(world, page);
        let entries = page.entries.iter().map(node_of);
        let nodes: Vec<NodeId> = entries.chain(page.removed.iter().copied()).collect();
        let once: BTreeSet<_> = nodes.iter().collect();
        assert_eq!(once.len(), nodes.len(), "a page speaks of a node once");
        assert!(!nodes.is_empty() || page.commit.is_some(), "a page gets the batch on");
        apply(&mut self.staged, page);
        self.position = page.position;
        let Some(commit) = page.commit else { return false };
        let want = world.truth.at(&self.network, commit.revision).view(self.id);
        assert_eq!(self.staged, want, "state of {} at the commit of {}", self.id, commit.revision);
        assert_eq!(commit.digest, digest(&want));
        assert!(commit.revision >= self.from, "a revision never goes back");
        (self.applied, self.from) = (self.staged.clone(), commit.revision);
        true
    }

    /// No byte about a peer outside its sight: entries are of peers that it sees now, removals of
    /// peers that it saw since its cursor.
    fn check_sight(&self, world: &World, page: &Page) {
        let now = world.truth.at(&self.network, world.head);
        for entry in &page.entries {
            let node = node_of(entry);
            assert!(now.sees(self.id, node), "{} was sent {node}", self.id);
            assert_eq!(now.entries[&node].0, entry);
        }
        let since = if self.from == Revision::ZERO { self.began } else { self.from };
        for node in &page.removed {
            let saw = || world.truth.ever_sees(&self.network, self.id, *node, (since, world.head));
            assert!(!world.remembers(&self.network, since) || saw(), "{node} was never seen");
        }
    }
}

fn pull(index: &Index, agent: &Agent, max_bytes: usize) -> Option<Page> {
    let key = index.pull_key(&agent.network, agent.id, agent.from, agent.position)?;
    assert_eq!((key.from(), key.head()), (agent.from, index.head()));
    Some(index.pull(&key, max_bytes))
}

/// Some agent of the world, at a cursor at which it may come.
fn some_agent(world: &mut World) -> Agent {
    let network = world.rng.pick(&networks()).clone();
    let live = world.live(&network);
    let id = *world.rng.pick(&live);
    let from = if world.rng.percent(25) { Revision::ZERO } else { world.cursor() };
    Agent::at(world, &network, id, from)
}

/// Batches for one agent while the store moves between pages, `batches` times in a row. Ends early
/// when the agent is deleted, or when its cursor is overtaken by the horizon.
fn run(world: &mut World, batches: usize) -> usize {
    let mut agent = some_agent(world);
    for done in 0..batches {
        let mut moves = world.rng.below(12);
        loop {
            let max_bytes = usize::try_from(world.rng.below(120)).unwrap();
            // Another replica, which has just listed, goes on where the first one stopped.
            let listed = world.rng.percent(20).then(|| world.listed());
            let page = pull(listed.as_ref().unwrap_or(&world.watched), &agent, max_bytes);
            let Some(page) = page else { return done };
            if agent.take(world, &page) {
                break;
            }
            if moves > 0 && world.rng.percent(60) {
                world.step();
                moves -= 1;
            }
            if agent.from != Revision::ZERO && !world.watched.resumable(agent.from) {
                return done;
            }
        }
        (0..world.rng.below(6)).for_each(|_| world.step());
        if !world.watched.resumable(agent.from) {
            return done;
        }
    }
    batches
}

#[test]
fn a_batch_cut_anywhere_ends_at_a_sight() {
    for_seeds(1500, |seed| {
        let mut world = World::grown(seed, Style::Remembering, 50);
        run(&mut world, 5);
    });
}

#[test]
fn a_batch_cut_anywhere_ends_at_a_sight_over_horizons_and_trims() {
    for_seeds(1500, |seed| {
        let mut world = World::grown(seed, Style::Forgetting, 60);
        run(&mut world, 5);
    });
}

#[test]
fn a_batch_cut_anywhere_ends_at_a_sight_over_records_that_forget() {
    for_seeds(60, |seed| {
        let mut world = World::grown(seed, Style::Churning, 300);
        run(&mut world, 12);
    });
}

/// While the store stands still, many pages say what one would.
#[test]
fn a_batch_in_pages_is_as_exact_as_in_one() {
    for_seeds(400, |seed| {
        let mut world = World::grown(seed, Style::Remembering, 60);
        let mut agent = some_agent(&mut world);
        let (entries, removed) =
            world.truth.exact(&agent.network, agent.id, agent.from, world.head);
        let (mut sent, mut gone) = (Vec::new(), Vec::new());
        loop {
            let page = pull(&world.watched, &agent, 60).unwrap();
            sent.extend(page.entries.iter().cloned());
            gone.extend(page.removed.iter().copied());
            if agent.take(&world, &page) {
                break;
            }
        }
        assert_eq!((sent.len(), gone.len()), (entries.len(), removed.len()));
        assert_eq!(sent.into_iter().collect::<BTreeSet<_>>(), entries);
        assert_eq!(gone.into_iter().collect::<BTreeSet<_>>(), removed);
    });
}

/// A change between any two pages doesn't keep a batch from ending, if a page holds two items.
#[test]
fn a_batch_ends_under_constant_change() {
    for_seeds(50, |seed| {
        let mut world = World::grown(seed, Style::Remembering, 80);
        let network = world.rng.pick(&networks()).clone();
        let live = world.live(&network);
        let id = *world.rng.pick(&live);
        let mut agent = Agent::at(&world, &network, id, Revision::ZERO);
        let mut pages = 0;
        loop {
            let page = pull(&world.watched, &agent, 60).unwrap();
            if agent.take(&world, &page) {
                break;
            }
            pages += 1;
            assert!(pages <= live.len(), "no end after {pages} pages for {} nodes", live.len());
            let node = *world.rng.pick(&live);
            world.touch(&network, node);
        }
    });
}

/// A batch that lasts so long that a change of sight within it is forgotten: whatever was sent
/// before is taken back all the same.
#[test]
fn a_batch_that_the_horizon_overtakes_takes_back_what_it_sent() {
    let network = networks()[0].clone();
    let ids = [NodeId::new([1; 16]), NodeId::new([2; 16])];
    let policy: PolicyName = "p".parse().unwrap();
    let all = Policy { from: Selector::default(), to: Selector::default() };
    let at = |n| History::first(Revision(n), Traits::default());
    let mut index = Index::default();
    let commit = |index: &mut Index, revision, changes| {
        index.apply(Transaction { revision: Revision(revision), changes });
    };
    let open = History::first(Revision(1), all);
    let mut changes = vec![
        Change::Network {
            network: network.clone(),
            history: History::first(Revision(1), Mode::Closed),
        },
        Change::Policy { network: network.clone(), policy: policy.clone(), history: open.clone() },
    ];
    for node in ids {
        let entry = Some(Bytes::copy_from_slice(node.as_bytes()));
        changes.push(Change::Node { network: network.clone(), node, history: at(1) });
        changes.push(Change::Entry { network: network.clone(), node, entry });
    }
    commit(&mut index, 1, changes);

    let key = index.pull_key(&network, ids[0], Revision::ZERO, Position::START).unwrap();
    let first = index.pull(&key, 1);
    assert_eq!((first.entries.len(), first.commit), (1, None));

    let history = open.changed(Revision(2), None);
    let closed = Change::Policy { network: network.clone(), policy: policy.clone(), history };
    commit(&mut index, 2, vec![closed]);
    commit(&mut index, 3, vec![Change::Horizon(Revision(2))]);
    commit(&mut index, 4, vec![Change::PolicyGone { network: network.clone(), policy }]);
    let key = index.pull_key(&network, ids[0], Revision::ZERO, first.position).unwrap();
    let last = index.pull(&key, usize::MAX);
    assert!(last.removed.contains(&node_of(&first.entries[0])));
    assert!(last.entries.is_empty() && last.commit.is_some());
}
