//! Everything that can break between three replicas, three members of etcd and agents, each under
//! packets and changes that never stop; the checker judges what was recorded.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::print_stderr, reason = "seeds are for people")]

mod etcd;
mod keeping;
mod random;
mod replicas;
mod watches;

use std::time::Duration;

use wattle_integration::{
    Settings,
    ha::{Fault, Found, HaCluster, Pause, Rate, Trial},
};

/// An agent is connected to another replica within this once its own is dead.
const REHOMED: f64 = 5_000.0;
/// And within this where nobody tells it.
const REHOMED_UNTOLD: f64 = 35_000.0;
const NAMES: [&str; 4] = ["n1", "n2", "n3", "n4"];

fn cluster() -> HaCluster {
    HaCluster::start(&Settings::default(), &NAMES).unwrap()
}

/// One that breaks for so long.
fn trial(fault: Fault, seconds: u64) -> Trial {
    let seed = std::env::var("WATTLE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random);
    eprintln!("{}: WATTLE_SEED={seed}", fault.name());
    Trial {
        fault,
        pause: Pause {
            before: Duration::from_secs(1),
            broken: Duration::from_secs(seconds),
            after: Duration::from_secs(2),
        },
        seed,
        rate: Rate::default(),
    }
}

/// Nothing was lost, and something was there to lose.
fn assert_good(found: &Found) {
    let slowest = found.rehome_p99_ms.unwrap_or(0.0);
    eprintln!(
        "found {}: {} of {} packets lost, {} agents re-homed within {slowest:.0} ms, {} full sets, {} changes lost",
        found.fault,
        found.packets_lost,
        found.packets,
        found.rehomed,
        found.full_sets,
        found.changes_lost,
    );
    assert!(found.is_good(), "{found:#?}");
    assert!(found.packets > 100 && found.calls[0] > 5, "{found:#?}");
}

/// The agents of the replica moved within a limit.
fn assert_rehomed(found: &Found, limit: f64) {
    assert_good(found);
    assert!(found.rehomed > 0, "nobody was there: {found:#?}");
    assert!(found.rehome_p99_ms.unwrap() <= limit, "{found:#?}");
}

/// The replica that the first agent is connected to, and stays so if nothing breaks.
fn home(cluster: &HaCluster) -> usize {
    cluster.wait_balanced().unwrap();
    cluster.home(&cluster.agents[0]).unwrap()
}
