//! A replica dies, stops, freezes, loses its store or one of its agents.

use std::time::{Duration, Instant};

use wattle_integration::{ha::Fault, wait_until};

use crate::{REHOMED, REHOMED_UNTOLD, assert_good, assert_rehomed, cluster, home, trial};

/// A replica without its store is asked how it is.
const ANSWERED: Duration = Duration::from_secs(5);

#[test]
fn agents_move_when_their_replica_dies() {
    let mut cluster = cluster();
    let found = trial(Fault::KillReplica(home(&cluster)), 4).run(&mut cluster).unwrap();
    assert_rehomed(&found, REHOMED);

    let replica = home(&cluster);
    let reset = Fault::CutAgent { agent: 0, replica, reset: true };
    let found = trial(reset, 4).run(&mut cluster).unwrap();
    assert_rehomed(&found, REHOMED);

    let found = trial(Fault::StopReplica(home(&cluster)), 1).run(&mut cluster).unwrap();
    assert_rehomed(&found, REHOMED);

    let found = trial(Fault::KillReplicas, 2).run(&mut cluster).unwrap();
    assert_good(&found);
}

#[test]
fn agents_move_when_their_replica_freezes() {
    let mut cluster = cluster();
    let found = trial(Fault::FreezeReplica(home(&cluster)), 38).run(&mut cluster).unwrap();
    assert_rehomed(&found, REHOMED_UNTOLD);
}

/// What is said to it is lost, and nobody is told.
#[test]
fn agents_move_when_their_replica_is_black_holed() {
    let mut cluster = cluster();
    let found = trial(Fault::SwallowReplica(home(&cluster)), 38).run(&mut cluster).unwrap();
    assert_rehomed(&found, REHOMED_UNTOLD);
}

#[test]
fn an_agent_moves_when_it_alone_is_cut_off_in_silence() {
    let mut cluster = cluster();
    let replica = home(&cluster);
    let cut = Fault::CutAgent { agent: 0, replica, reset: false };
    let found = trial(cut, 38).run(&mut cluster).unwrap();
    assert_rehomed(&found, REHOMED_UNTOLD);
}

/// It says so, and keeps its streams.
#[test]
fn a_replica_without_its_store_keeps_its_agents() {
    let mut cluster = cluster();
    let replica = home(&cluster);
    let found = trial(Fault::CutFromEtcd(replica), 2)
        .run_with(&mut cluster, |cluster| {
            wait_until("a replica that says it is stale", Duration::from_secs(30), || {
                Ok((cluster.metric(replica, "wattle_stale")? == 1.0).then_some(()))
            })?;
            assert_eq!(cluster.home(&cluster.agents[0]), Some(replica));
            let begin = Instant::now();
            let status = cluster.replicas[replica].json(&["status"])?;
            assert_eq!(status["stale"], true, "{status}");
            assert!(begin.elapsed() < ANSWERED, "it took {:?}", begin.elapsed());
            Ok(())
        })
        .unwrap();
    assert_good(&found);
}

/// Etcd answers it too late, and does all the same what it asked: no other etcd, and no new epoch.
#[test]
fn a_replica_whose_store_is_slow_takes_it_for_no_other() {
    let mut cluster = cluster();
    let replica = home(&cluster);
    for (fault, seconds) in [(Fault::SlowEtcd(replica), 8), (Fault::StallEtcd(replica), 4)] {
        let found = trial(fault, seconds).run(&mut cluster).unwrap();
        assert_good(&found);
    }
}
