//! A replica dies, and at the same moment every agent of the fleet opens a stream to one of those
//! that are left.

use anyhow::{Result, ensure};

use super::millis;
use crate::{
    args::Common,
    order::{Order, Who},
    outcome::{Outcome, rounded},
};

/// Options of `storm`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
}

pub(crate) async fn run(args: &Args) -> Result<Outcome> {
    let mut common = args.common.clone();
    common.replicas = common.replicas.or(Some(3));
    let mut bench = super::seeing_all(&common).await?;
    ensure!(bench.server.several()?.len() > 1, "--replicas 1: somebody has to be left");
    bench.assemble().await?;
    // What they have is the present: nothing changes while they are away.
    bench.converge(Who::All).await?;
    // The last one: the operator's connection leads to the first.
    let dying = bench.server.several()?.len() - 1;
    bench.server.several()?.kill(dying).await?;
    bench.fleet.all(&Order::Disconnect { who: Who::All }).await?;
    bench.fleet.census().await?;
    let before = bench.server.usage()?;
    let begin = bench.connect(Who::All, false, false).await?;
    let end = bench.converge(Who::All).await?.last_at;
    let (after, census) = (bench.server.usage()?, bench.fleet.census().await?);
    let agents = args.common.agents;
    let mut outcome = bench.outcome("storm");
    outcome.converged_ms = Some(millis(begin, end));
    outcome.full_sets = Some(census.full_sets);
    outcome.resumed = Some(census.resumed);
    let accepted = (census.full_sets + census.resumed) as f64;
    outcome.handshakes_per_agent = Some(rounded(accepted / agents as f64));
    outcome.bytes_per_agent = Some((census.bytes / agents as u64) as f64);
    let cpu = before.zip(after).map(|(before, after)| after.cpu_micros - before.cpu_micros);
    outcome.server_cpu_us_per_agent = cpu.map(|cpu| rounded(cpu as f64 / agents as f64));
    outcome.digests_equal = Some(bench.check(|_| agents).await?);
    for (why, count) in &census.lost {
        outcome.note("came again", format!("{count}: {why}"));
    }
    bench.end().await?;
    Ok(outcome)
}
