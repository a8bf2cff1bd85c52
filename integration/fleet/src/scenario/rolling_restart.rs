//! Every replica is stopped and started again, one after the other, as an upgrade does, while nodes,
//! policies and labels change: nobody is sent what it has, and nobody is without a stream for long.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use super::one_change::quantile;
use crate::{
    admin::{Admin, GROUP},
    args::Common,
    bench::{Bench, PATIENCE},
    order::{Census, Who},
    outcome::{Outcome, rounded},
};

/// Changes while a replica is away, and as many while it comes back.
const CHANGES: usize = 10;
/// Between two replicas.
const REST: Duration = Duration::from_secs(2);
/// Between two looks at how many agents are connected.
const LOOK: Duration = Duration::from_millis(200);

/// Options of `rolling-restart`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
}

pub(crate) async fn run(args: &Args) -> Result<Outcome> {
    let mut common = args.common.clone();
    common.replicas = common.replicas.or(Some(3));
    let mut bench = super::seeing_all(&common).await?;
    let replicas = bench.server.several()?.len();
    ensure!(replicas > 1, "--replicas 1: somebody has to stay");
    bench.assemble().await?;
    bench.fleet.census().await?;
    bench.fleet.gaps().await?;
    let (before, begin) = (bench.server.usage()?, Instant::now());
    let mut seen = Census::default();
    for number in 0..replicas {
        bench.progress.begin(&format!("restarting replica {} of {replicas}", number + 1));
        bench.server.several()?.stop(number).await?;
        changes(&mut bench, number).await?;
        bench.server.several()?.start_again(number).await?;
        changes(&mut bench, number + replicas).await?;
        all_online(&mut bench, &mut seen).await?;
        sleep(REST).await;
    }
    let took = begin.elapsed();
    bench.admin = anew(&bench).await?;
    bench.converge(Who::All).await?;
    let (after, gaps) = (bench.server.usage()?, bench.fleet.gaps().await?);
    let agents = args.common.agents;
    count(&mut seen, bench.fleet.census().await?);
    let mut outcome = bench.outcome("rolling-restart");
    outcome.full_sets = Some(seen.full_sets);
    outcome.resumed = Some(seen.resumed);
    outcome.gap_p99_ms = Some(quantile(&gaps, 0.99));
    outcome.gap_max_ms = Some(quantile(&gaps, 1.0));
    let accepted = (seen.full_sets + seen.resumed) as f64;
    outcome.handshakes_per_agent = Some(rounded(accepted / agents as f64));
    let cpu = before.zip(after).map(|(before, after)| after.cpu_micros - before.cpu_micros);
    outcome.server_cpu_us_per_agent = cpu.map(|cpu| rounded(cpu as f64 / agents as f64));
    outcome.digests_equal = Some(bench.check(|_| agents).await?);
    outcome.note("replicas", format!("{replicas}, restarted in {:.1} s", took.as_secs_f64()));
    outcome.note("moves", gaps.len().to_string());
    for (why, count) in &seen.lost {
        outcome.note("came again", format!("{count}: {why}"));
    }
    bench.end().await?;
    Ok(outcome)
}

/// Nodes move, a policy comes, and another one goes: whatever shapes what agents see.
async fn changes(bench: &mut Bench, round: usize) -> Result<()> {
    bench.admin = anew(bench).await?;
    for _ in 0..CHANGES {
        bench.change(Who::All).await?;
    }
    let some = format!("{GROUP}=0");
    bench.admin.put_policies(&[(format!("round-{round}"), some.clone(), some)]).await?;
    if let Some(last) = round.checked_sub(1) {
        bench.admin.delete_policy(&format!("round-{last}")).await?;
    }
    Ok(())
}

/// The connection that there was led to a replica that has gone.
async fn anew(bench: &Bench) -> Result<Admin> {
    Admin::connect(bench.server.credential(), bench.admin.network.clone()).await
}

async fn all_online(bench: &mut Bench, seen: &mut Census) -> Result<()> {
    let begin = Instant::now();
    loop {
        let census = bench.fleet.census().await?;
        let online = census.online;
        count(seen, census);
        if online == bench.agents {
            return Ok(());
        }
        ensure!(begin.elapsed() < PATIENCE, "only {online} of {} agents came back", bench.agents);
        sleep(LOOK).await;
    }
}

/// Adds what has happened since the last census.
fn count(seen: &mut Census, census: Census) {
    seen.full_sets += census.full_sets;
    seen.resumed += census.resumed;
    for (why, count) in census.lost {
        *seen.lost.entry(why).or_default() += count;
    }
}
