//! What replicas watch is cut in the middle, forgotten, and listed anew.

use std::{thread::sleep, time::Duration};

use anyhow::{Result, ensure};
use wattle_integration::{
    ha::{Fault, HaCluster, REPLICAS},
    wait_until,
};
use wattle_proxy::{Fault as Order, Towards};

use crate::{assert_good, cluster, home, trial};

/// More than one response of etcd holds.
const REVISIONS: usize = 1_100;
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn watches_are_cut_forgotten_and_begun_anew() {
    let mut cluster = cluster();
    let replica = home(&cluster);

    // In the middle of more than a thousand revisions, again and again.
    let cut = Fault::CutWatches { replica, after: 40_000 };
    let found = trial(cut, 2)
        .run_with(&mut cluster, |cluster| {
            cluster.order_to_etcd(replica, Order::Swallow);
            write(cluster, replica, REVISIONS)?;
            let before = carried(cluster, replica);
            cluster.order_to_etcd(replica, Order::CutAfter(40_000));
            wait_until("a watch that was cut", LIMIT, || {
                Ok((carried(cluster, replica) > before + 80_000).then_some(()))
            })
        })
        .unwrap();
    assert_good(&found);

    // Forgotten while it was away: it lists.
    let found = trial(Fault::CutFromEtcd(replica), 1)
        .run_with(&mut cluster, |cluster| {
            write(cluster, replica, 50)?;
            cluster.compact()
        })
        .unwrap();
    assert_good(&found);

    // Forgotten while it lists: page by page, slowly.
    let found = trial(Fault::KillReplica(replica), 1)
        .run_with(&mut cluster, |cluster| {
            cluster.order_to_etcd(replica, Order::Throttle(60_000));
            cluster.replicas[replica].spawn()?;
            for _ in 0..8 {
                sleep(Duration::from_millis(400));
                cluster.compact()?;
            }
            cluster.order_to_etcd(replica, Order::Pass);
            cluster.replicas[replica].wait_ready()?;
            cluster.replicas[replica].kill()
        })
        .unwrap();
    assert_good(&found);

    let found = trial(Fault::Compact, 1).run(&mut cluster).unwrap();
    assert_good(&found);
}

fn carried(cluster: &HaCluster, replica: usize) -> u64 {
    cluster.to_etcd(replica).iter().map(|proxy| proxy.carried(Towards::Client)).sum()
}

/// As many revisions as fast as it goes, by way of the other replicas.
fn write(cluster: &HaCluster, except: usize, revisions: usize) -> Result<()> {
    let others: Vec<_> = (0..REPLICAS).filter(|replica| *replica != except).collect();
    let operators = cluster.operators.asking(&others);
    let before = cluster.recorder.revision();
    let nodes = cluster.nodes()?;
    let each = revisions.div_ceil(nodes.len());
    cluster.run(async move {
        let mut writing = tokio::task::JoinSet::new();
        // One hand for each, so that none waits for another.
        for node in nodes {
            let operators = operators.clone();
            writing.spawn(async move {
                for number in 0..each {
                    operators.label(node, "number", Some(&format!("w{before}-{number}"))).await;
                }
            });
        }
        writing.join_all().await;
    })?;
    let written = cluster.recorder.revision() - before;
    ensure!(written as usize >= revisions, "{written} revisions instead of {revisions}");
    Ok(())
}
