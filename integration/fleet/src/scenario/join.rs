//! A mesh from nothing: every machine enrols and opens its stream at once, until all hold all.

use anyhow::Result;

use super::millis;
use crate::{
    args::Common,
    order::Who,
    outcome::{Outcome, rounded},
};

/// Options of `join`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
}

pub(crate) async fn run(args: &Args) -> Result<Outcome> {
    let agents = args.common.agents;
    let mut bench = super::seeing_all(&args.common).await?;
    let full_sets = bench.admin.full_sets().await?;
    let before = bench.server.usage()?;
    let (begin, enrolled) = bench.enrol(true).await?;
    let held = bench.converge(Who::All).await?;
    let after = bench.server.usage()?;
    let census = bench.fleet.census().await?;
    let mut outcome = bench.outcome("join");
    outcome.converged_ms = Some(millis(begin, held.last_at));
    outcome.enrol_per_s = Some(rounded(agents as f64 * 1e3 / millis(begin, enrolled)));
    outcome.full_sets = Some(bench.admin.full_sets().await? - full_sets);
    outcome.resumed = Some(census.resumed);
    let cpu = before.zip(after).map(|(before, after)| after.cpu_micros - before.cpu_micros);
    outcome.server_cpu_us_per_agent = cpu.map(|cpu| rounded(cpu as f64 / agents as f64));
    outcome.digests_equal = Some(bench.check(|_| agents).await?);
    let each = census.commits as f64 / agents as f64;
    outcome.note("commits per agent", format!("{each:.1}"));
    outcome.note("entries received", format!("{}", census.entries));
    bench.end().await?;
    Ok(outcome)
}
