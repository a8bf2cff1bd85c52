//! Agents at the same cursor share pages: what their keys have in common and what not.

use std::collections::{BTreeSet, HashMap, HashSet};

use wattle_model::{Mode, Revision};
use wattle_view::{Index, Position};

use crate::{
    for_seeds,
    world::{Style, World, networks},
};

/// Agents with the same traits at their cursor and now share their key, unless a policy names one
/// of them by id; and in a mesh all do.
#[test]
fn agents_of_a_class_have_equal_keys() {
    for_seeds(150, |seed| {
        let world = World::grown(seed, Style::Remembering, 60);
        for network in networks() {
            for from in (1..=world.head.0).map(Revision) {
                let (then, now) =
                    (world.truth.at(&network, from), world.truth.at(&network, world.head));
                let by_id = |s: &crate::truth::State| {
                    s.policies.values().any(|p| format!("{} {}", p.from, p.to).contains("id"))
                };
                if by_id(then) || by_id(now) {
                    continue;
                }
                let mut keys: HashMap<_, HashSet<_>> = HashMap::new();
                for agent in world.live(&network) {
                    let key = world.watched.pull_key(&network, agent, from, Position::START);
                    let mesh = then.mode == Some(Mode::Mesh) && now.mode == then.mode;
                    let labels = (then.nodes.get(&agent), now.nodes.get(&agent));
                    let class = (labels.0.is_some(), (!mesh).then_some(labels));
                    keys.entry(class).or_default().insert(key.unwrap());
                }
                assert!(keys.values().all(|keys| keys.len() == 1), "from {from}");
            }
        }
    });
}

/// Equal keys, equal pages, of whichever agent they were made for; and the page is right for each,
/// so a key lacks nothing that decides bytes.
#[test]
fn agents_with_equal_keys_need_equal_pages() {
    for_seeds(100, |seed| {
        let world = World::grown(seed, Style::Remembering, 60);
        for network in networks() {
            for from in (0..=world.head.0).map(Revision) {
                let mut needs: HashMap<_, BTreeSet<_>> = HashMap::new();
                for agent in world.live(&network) {
                    let key = world.watched.pull_key(&network, agent, from, Position::START);
                    let exact = world.truth.exact(&network, agent, from, world.head);
                    needs.entry(key.unwrap()).or_default().insert(exact);
                }
                assert!(needs.values().all(|needs| needs.len() == 1), "from {from}");
            }
        }
    });
}

/// A key made before head moved on gives nothing, rather than a page under another key's name.
#[test]
fn a_stale_key_gives_nothing() {
    let mut world = World::grown(3, Style::Remembering, 40);
    let network = networks()[0].clone();
    let agent = world.live(&network)[0];
    let key = world.watched.pull_key(&network, agent, Revision::ZERO, Position::START).unwrap();
    world.touch(&network, agent);
    let page = world.watched.pull(&key, usize::MAX);
    assert!(page.entries.is_empty() && page.removed.is_empty() && page.commit.is_none());
    assert_eq!(page.position, Position::START);
}

/// A replica that lists anew numbers selectors as they come: what it was asked before is not what
/// it is asked now, even at the same head.
#[test]
fn a_key_means_nothing_to_another_index() {
    let world = World::grown(3, Style::Remembering, 40);
    let (network, listed) = (networks()[0].clone(), world.listed());
    let agent = world.live(&network)[0];
    let key = |index: &Index| index.pull_key(&network, agent, Revision::ZERO, Position::START);
    assert_ne!(key(&world.watched), key(&listed));
    let page = listed.pull(&key(&world.watched).unwrap(), usize::MAX);
    assert!(page.entries.is_empty() && page.commit.is_none());
}
