//! Judges what was recorded while something was broken: every transaction of the store, every
//! message that agents heard, every call that operators made. It knows none of the product's code
//! but the protocol's bytes, and reads who sees whom by brute force.
//!
//! The guarantees are those that etcd's robustness tests ask of a watch, with an agent's commits in
//! the place of events: *ordered* (revisions never go back), *unique* (nothing comes twice), *atomic*
//! (whole transactions only), *reliable* (nothing is left out), *resumable* (a cut changes none of
//! this, and costs no full set); and of calls: *durable*, *linearizable*, and *without effect* where
//! they were refused.

mod agents;
mod calls;
mod recording;
mod store;
mod violation;
mod world;

pub use self::{
    agents::FULL_SETS_ALLOWED,
    recording::{Agent, Call, Heard, Operation, Outcome, Recording, StoreLog, Transaction, What},
    violation::{Guarantee, Violation},
    world::World,
};

/// All that is wrong with a recording; nothing, if all guarantees held.
pub fn check(recording: &Recording) -> Vec<Violation> {
    let mut violations = Vec::new();
    for log in recording.stores.values() {
        store::check(log, &mut violations);
        calls::check(log, &mut violations);
    }
    for agent in &recording.agents {
        agents::check(agent, &recording.stores, &mut violations);
    }
    violations
}
