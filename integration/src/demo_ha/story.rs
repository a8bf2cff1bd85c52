//! The demo's steps.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use wattle_integration::{
    Settings, binary,
    ha::{Fault, Found, HaCluster, Pause, Rate, Trial},
};

use crate::say::{chapter, line};

const MACHINES: [&str; 6] = ["berlin", "tokyo", "oregon", "sydney", "lagos", "lima"];

/// Tells it all. Whether everything held.
pub(crate) fn tell() -> Result<bool> {
    chapter("Three members of etcd, three replicas, six machines");
    let begun = Instant::now();
    let settings = Settings { dataplane: "auto".to_owned(), ..Settings::default() };
    let mut cluster = HaCluster::start(&settings, &MACHINES)?;
    line(&format!("up after {:.1} s", begun.elapsed().as_secs_f64()));
    cluster.wait_balanced()?;
    for (replica, machines) in homes(&cluster) {
        line(&format!("{replica:<9} holds the streams of {}", machines.join(", ")));
    }
    line(
        "from now on every pair exchanges 20 packets a second, and labels, policies and machines change",
    );

    let victim = most(&cluster)?;
    let mut all = Vec::new();
    chapter(&format!("kill -9 of replica{}", victim + 1));
    all.push(breaks(&mut cluster, Fault::KillReplica(victim), 6)?);
    let leader = cluster.leader()?;
    chapter(&format!("kill -9 of {}, which leads etcd", cluster.members[leader].name()));
    all.push(breaks(&mut cluster, Fault::KillLeader, 6)?);
    chapter("kill -9 of all three replicas");
    all.push(breaks(&mut cluster, Fault::KillReplicas, 5)?);

    chapter("wattle replica list");
    cluster.replicas[0].wattle(&["replica", "list"])?.lines().for_each(line);

    let target = binary("wattle-demo-ha")?;
    let path = target.ancestors().nth(2).context("no target folder")?.join("demo-ha.json");
    std::fs::write(&path, serde_json::to_string_pretty(&all)? + "\n")?;
    chapter("Cleaned up");
    line(&format!("figures: {}", path.display()));
    Ok(all.iter().all(Found::is_good))
}

/// Which machines are connected to which replica.
fn homes(cluster: &HaCluster) -> BTreeMap<String, Vec<&str>> {
    let mut homes: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for agent in &cluster.agents {
        if let Some(home) = cluster.home(agent) {
            homes.entry(format!("replica{}", home + 1)).or_default().push(agent.name());
        }
    }
    homes
}

/// The replica with the most streams.
fn most(cluster: &HaCluster) -> Result<usize> {
    let homes = cluster.agents.iter().filter_map(|agent| cluster.home(agent));
    let mut counts = BTreeMap::new();
    homes.for_each(|home| *counts.entry(home).or_insert(0) += 1);
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    most.map(|(replica, _)| replica).context("nobody is connected")
}

fn breaks(cluster: &mut HaCluster, fault: Fault, seconds: u64) -> Result<Found> {
    let before = cluster.recorder.revision();
    let trial = Trial {
        fault,
        pause: Pause {
            before: Duration::from_secs(2),
            broken: Duration::from_secs(seconds),
            after: Duration::from_secs(3),
        },
        seed: rand::random(),
        rate: Rate::default(),
    };
    let found = trial.run(cluster)?;
    say(&found, before);
    Ok(found)
}

fn say(found: &Found, before: u64) {
    let arrived = found.packets - found.packets_lost;
    line(&format!("packets    {arrived} of {} answered", found.packets));
    match found.rehome_p99_ms {
        Some(ms) => line(&format!(
            "streams    {} moved to another replica, the slowest after {ms:.0} ms; {} full sets sent",
            found.rehomed, found.full_sets
        )),
        None => line(&format!(
            "streams    all stayed where they were; {} full sets sent",
            found.full_sets
        )),
    }
    let [done, refused, unknown] = found.calls;
    line(&format!(
        "revisions  {before} to {}: {done} calls answered, {refused} refused, {unknown} given up; \
         {} changes lost",
        found.revision, found.changes_lost
    ));
    let digests =
        if found.digests_equal { "all agents hold what the store says" } else { "DIGESTS DIFFER" };
    line(&format!("digests    {digests}"));
    for violation in &found.violations {
        line(&format!("BROKEN     {violation}"));
    }
}
