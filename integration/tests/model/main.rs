//! The whole path against a brute-force reading of the store: one real control plane, real agents,
//! real TLS between them; only the kernel is a fake. A seed draws what happens: machines join,
//! leave, are deleted and labelled, policies and modes change, connections are cut and fall silent,
//! programs are killed and come back, clocks jump, devices are meddled with. Whenever it is quiet
//! again, every device must hold what the store says (invariant 1), and nothing accepted is lost.
//!
//! Each machine is a thread with a clock of its own (`machine`), each program the whole product
//! (`host`, `control_plane`), the network between them a proxy (`wire`). `script` draws what
//! happens, `world` and its `operator` do it, `check` compares with `truth`.
//!
//! A seed fixes the script, not the interleaving: a failure shows both. `WATTLE_SEED=n` replays a
//! seed, `WATTLE_SEEDS=n` runs so many random ones.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "all of this is test code")]

mod check;
mod control_plane;
mod host;
mod machine;
mod operator;
#[path = "../../../controlplane/view/tests/histories/rng.rs"]
mod rng;
mod script;
mod truth;
mod wire;
mod world;

use std::{panic::resume_unwind, thread, time::Duration};

use crate::{rng::Rng, script::Script, world::World};

/// Nothing that is waited for takes longer, except on a machine that is out of order.
const PATIENCE: Duration = Duration::from_secs(90);

/// Seeds that once found something, and run every time.
const KEPT: [u64; 4] = [1, 3, 5, 11];
/// New ones each time.
const RANDOM: u64 = 2;
/// Worlds at the same time: they wait more than they work.
const AT_ONCE: usize = 6;

#[test]
fn once_quiet_every_device_is_what_the_store_says() {
    let number = |name| std::env::var(name).ok().map(|n: String| n.parse::<u64>().unwrap());
    let random = |count: u64| (0..count).map(|_| u64::from(rand::random::<u32>()));
    let seeds: Vec<u64> = match (number("WATTLE_SEED"), number("WATTLE_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(count)) => random(count).collect(),
        (None, None) => KEPT.into_iter().chain(random(RANDOM)).collect(),
    };
    if std::env::var_os("WATTLE_LOG").is_some() {
        let _ = wattle_runtime::telemetry::init("model", Default::default());
    }
    for seeds in seeds.chunks(AT_ONCE) {
        let worlds = seeds.iter().map(|&seed| (seed, thread::spawn(move || live(seed))));
        // All of them begin before any is waited for.
        for (seed, world) in worlds.collect::<Vec<_>>() {
            if let Err(panic) = world.join() {
                eprintln!(
                    "failed on seed {seed}: replay with WATTLE_SEED={seed} cargo test -p \
                     wattle-integration --test model"
                );
                resume_unwind(panic);
            }
        }
    }
}

/// One world, from its first start to its last quiet moment.
fn live(seed: u64) {
    let script = Script::draw(&mut Rng::new(seed));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(seed).await;
        for (round, acts) in script.rounds.iter().enumerate() {
            let last = round + 1 == script.rounds.len();
            world.round(round, acts, last).await;
        }
    });
}
