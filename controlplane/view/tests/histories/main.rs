//! The view against a brute-force twin: random histories of nodes, labels, policies, modes, entries,
//! horizons and trims; random cursors; batches cut anywhere while the store moves on.
//!
//! `world` writes the histories, `truth` knows what every agent sees at every revision without any
//! history, and the other modules compare. A failure names its seed: `WATTLE_SEED=n` replays it,
//! `WATTLE_SEEDS=n` runs more of them.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "all of this is test code")]

mod batches;
mod concerns;
mod forgetting;
mod listing;
mod resumes;
mod rng;
mod sharing;
mod steps;
mod truth;
mod world;

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

/// Runs a property on many seeds, and says on which it failed.
fn for_seeds(default: u64, property: impl Fn(u64)) {
    let number = |name| std::env::var(name).ok().map(|n: String| n.parse::<u64>().unwrap());
    let seeds: Range<u64> = match number("WATTLE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WATTLE_SEEDS").unwrap_or(default),
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| property(seed))) {
            eprintln!("failed on seed {seed}: replay with WATTLE_SEED={seed}");
            resume_unwind(panic);
        }
    }
}
