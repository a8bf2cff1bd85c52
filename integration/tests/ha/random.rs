//! Faults drawn from a seed, one after the other on the same cluster: a few in CI, for long in
//! `make soak`.

use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use wattle_integration::ha::{Fault, HaCluster, REPLICAS, Trial};

use crate::{NAMES, REHOMED_UNTOLD, assert_good, cluster, trial};

#[test]
fn faults_at_random() {
    let minutes = std::env::var("WATTLE_CHAOS_MINUTES").ok();
    let minutes: Option<u64> = minutes.and_then(|minutes| minutes.parse().ok());
    let until = Instant::now() + Duration::from_secs(60 * minutes.unwrap_or(0));
    let mut cluster = cluster();
    let seed = trial(Fault::Compact, 0).seed;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut number = 0;
    while number < 2 || Instant::now() < until {
        let long = minutes.is_some();
        let (fault, seconds) = draw(&mut rng, &cluster, long);
        let trial = Trial { seed: rng.random(), ..trial(fault, seconds) };
        eprintln!("fault {number} of seed {seed}: {fault:?} for {seconds} s");
        let found = trial.run(&mut cluster).unwrap();
        assert_good(&found);
        let slowest = found.rehome_p99_ms.unwrap_or(0.0);
        assert!(slowest <= REHOMED_UNTOLD, "{found:#?}");
        number += 1;
    }
    eprintln!("{number} faults at random");
}

/// Those that take half a minute to be noticed only where there is time.
fn draw(rng: &mut StdRng, cluster: &HaCluster, long: bool) -> (Fault, u64) {
    let replica = rng.random_range(0..REPLICAS);
    let agent = rng.random_range(0..NAMES.len());
    let home = cluster.home(&cluster.agents[agent]).unwrap_or(replica);
    match rng.random_range(0..if long { 15 } else { 11 }) {
        0 => (Fault::KillReplica(replica), rng.random_range(1..4)),
        1 => (Fault::StopReplica(replica), 1),
        2 => (Fault::KillReplicas, 1),
        3 => (Fault::CutFromEtcd(replica), rng.random_range(2..9)),
        4 => (Fault::CutAgent { agent, replica: home, reset: true }, 3),
        5 => (Fault::CutWatches { replica, after: rng.random_range(0..30_000) }, 2),
        6 => (Fault::KillLeader, rng.random_range(1..6)),
        7 => (Fault::Compact, 1),
        8 => (Fault::LoseQuorum, rng.random_range(2..10)),
        9 => (Fault::SlowEtcd(replica), rng.random_range(3..9)),
        10 => (Fault::StallEtcd(replica), rng.random_range(2..9)),
        11 => (Fault::FreezeLeader, rng.random_range(5..15)),
        12 => (Fault::FreezeReplica(replica), 38),
        13 => (Fault::SwallowReplica(replica), 38),
        _ => (Fault::CutAgent { agent, replica: home, reset: false }, 38),
    }
}
