//! How many machines can become nodes in a second, each on a connection of its own.

use anyhow::Result;

use super::millis;
use crate::{
    args::Common,
    outcome::{Outcome, rounded},
};

/// Options of `enrol`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,
}

pub(crate) async fn run(args: &Args) -> Result<Outcome> {
    let agents = args.common.agents;
    let mut bench = super::seeing_all(&args.common).await?;
    let before = bench.server.usage()?;
    let (begin, end) = bench.enrol(false).await?;
    let after = bench.server.usage()?;
    let mut outcome = bench.outcome("enrol");
    outcome.enrol_per_s = Some(rounded(agents as f64 * 1e3 / millis(begin, end)));
    outcome.converged_ms = Some(millis(begin, end));
    let cpu = before.zip(after).map(|(before, after)| after.cpu_micros - before.cpu_micros);
    outcome.server_cpu_us_per_agent = cpu.map(|cpu| rounded(cpu as f64 / agents as f64));
    bench.end().await?;
    Ok(outcome)
}
