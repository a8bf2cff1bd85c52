//! A replica that has just listed answers as one that watched from the beginning, whatever it is
//! asked.

use wattle_model::{NetworkName, NodeId, Revision};
use wattle_view::{Index, Page, Position};

use crate::{
    for_seeds,
    world::{Style, World, networks},
};

/// All pages of one batch.
fn pages(
    index: &Index,
    network: &NetworkName,
    agent: NodeId,
    from: Revision,
    mut position: Position,
) -> Vec<Page> {
    let mut pages: Vec<Page> = Vec::new();
    while pages.last().is_none_or(|page| page.commit.is_none()) {
        let key = index.pull_key(network, agent, from, position).unwrap();
        pages.push(index.pull(&key, 70));
        position = pages.last().unwrap().position;
    }
    pages
}

fn compare(world: &mut World) {
    let listed = world.listed();
    for network in networks() {
        for agent in world.live(&network) {
            assert_eq!(world.watched.digest(&network, agent), listed.digest(&network, agent));
            for from in (world.horizon.0..=world.head.0).chain([0]).map(Revision) {
                let watched = pages(&world.watched, &network, agent, from, Position::START);
                let new = pages(&listed, &network, agent, from, Position::START);
                assert_eq!(watched, new, "{agent} from {from}");
                let upto = world.cursor();
                assert_eq!(
                    world.watched.concerns(&network, agent, from, upto),
                    listed.concerns(&network, agent, from, upto),
                    "{agent} from {from} to {upto}"
                );
            }
        }
    }
    for revision in (world.horizon.0..=world.head.0).map(Revision) {
        assert_eq!(world.watched.concerned(revision), listed.concerned(revision), "{revision}");
    }
}

#[test]
fn a_listed_index_answers_as_a_watched_one() {
    for_seeds(60, |seed| {
        for (style, length) in
            [(Style::Remembering, 50), (Style::Forgetting, 80), (Style::Churning, 150)]
        {
            compare(&mut World::grown(seed, style, length));
        }
    });
}

/// A batch that another replica began while the store was elsewhere goes on alike on both.
#[test]
fn a_batch_goes_on_alike_on_both() {
    for_seeds(400, |seed| {
        let mut world = World::grown(seed, Style::Forgetting, 70);
        let network = world.rng.pick(&networks()).clone();
        let live = world.live(&network);
        let (agent, from) = (*world.rng.pick(&live), world.cursor());
        let key = world.watched.pull_key(&network, agent, from, Position::START).unwrap();
        let position = world.watched.pull(&key, 60).position;
        (0..8).for_each(|_| world.step());
        if world.live(&network).contains(&agent) {
            let watched = pages(&world.watched, &network, agent, from, position);
            assert_eq!(watched, pages(&world.listed(), &network, agent, from, position));
        }
    });
}

/// A transaction that comes twice changes nothing the second time.
#[test]
fn a_transaction_is_taken_in_once() {
    let mut world = World::grown(1, Style::Remembering, 20);
    let head = world.head;
    let stale = wattle_view::Change::Horizon(Revision(99));
    world.watched.apply(wattle_view::Transaction { revision: head, changes: vec![stale] });
    assert_eq!(world.watched.horizon(), Revision::ZERO);
}
