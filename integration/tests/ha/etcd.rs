//! Members of etcd die and freeze.

use std::time::{Duration, Instant};

use anyhow::ensure;
use wattle_integration::ha::{Fault, HaCluster};

use crate::{assert_good, cluster, trial};

#[test]
fn nothing_is_lost_with_a_member_of_etcd() {
    let mut cluster = cluster();
    let found = trial(Fault::KillLeader, 4).run(&mut cluster).unwrap();
    assert_good(&found);
    let found = trial(Fault::FreezeLeader, 8).run(&mut cluster).unwrap();
    assert_good(&found);
}

/// Nothing can be written; everything else goes on.
#[test]
fn without_a_quorum_writes_are_refused_and_the_rest_goes_on() {
    let mut cluster = cluster();
    let found = trial(Fault::LoseQuorum, 2)
        .run_with(&mut cluster, |cluster| {
            let begin = Instant::now();
            while begin.elapsed() < quorumless() {
                refuses_writes(cluster)?;
                // It can be asked how it is, and says that it can't see its store.
                let status = cluster.replicas[1].json(&["status"])?;
                ensure!(status["stale"] == true, "{status}");
                for agent in &cluster.agents {
                    ensure!(cluster.home(agent).is_some(), "{} lost its stream", agent.name());
                }
            }
            Ok(())
        })
        .unwrap();
    assert_good(&found);
}

/// 15 s, or as long as was asked for.
fn quorumless() -> Duration {
    let asked = std::env::var("WATTLE_QUORUM_SECONDS").ok();
    Duration::from_secs(asked.and_then(|seconds| seconds.parse().ok()).unwrap_or(15))
}

/// With a word that says what is wrong, and soon.
fn refuses_writes(cluster: &HaCluster) -> anyhow::Result<()> {
    let begin = Instant::now();
    let mut command = cluster.replicas[0].command(&["node", "label", "n1", "quorum=lost"])?;
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr).to_string();
    ensure!(!output.status.success(), "a write without a quorum: {output:?}");
    ensure!(said.contains("can't reach its store"), "it says {said}");
    ensure!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
    Ok(())
}
