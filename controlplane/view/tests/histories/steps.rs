//! Change after change in a network of many nodes: each brings every agent exactly what came into
//! its sight or left it, and a cursor further back the same.

use crate::{
    for_seeds,
    resumes::check,
    world::{Style, World, networks},
};

#[test]
fn a_change_yields_exactly_what_became_visible_or_invisible() {
    for_seeds(6, |seed| {
        let mut world = World::grown(seed, Style::Crowded, 150);
        for _ in 0..8 {
            world.step();
            let further = world.cursor();
            for network in networks() {
                for agent in world.live(&network) {
                    for from in [world.head.0 - 1, further.0, 0] {
                        assert!(check(&world, &network, agent, wattle_model::Revision(from)));
                    }
                }
            }
        }
    });
}
