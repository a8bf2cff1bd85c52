//! All agents at once: with what they had, then with nothing.

use anyhow::{Result, ensure};

use super::millis;
use crate::{
    args::Common,
    bench::Bench,
    order::{Order, Who},
    outcome::{Outcome, rounded},
};

/// Options of `reconnect`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,

    /// Only without the state that agents keep, or only with it
    #[arg(long, value_enum)]
    pub(crate) only: Option<With>,
}

/// What the agents come with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum With {
    /// What they had.
    State,
    /// Nothing.
    Nothing,
}

pub(crate) async fn run(args: &Args) -> Result<Vec<Outcome>> {
    let mut bench = super::seeing_all(&args.common).await?;
    bench.assemble().await?;
    let mut outcomes = Vec::new();
    for with in [With::State, With::Nothing] {
        if args.only.is_none_or(|only| only == with) {
            outcomes.push(once(&mut bench, with).await?);
        }
    }
    bench.end().await?;
    Ok(outcomes)
}

async fn once(bench: &mut Bench, with: With) -> Result<Outcome> {
    let agents = bench.agents;
    // What they have is the present: nothing changes while they are away.
    bench.converge(Who::All).await?;
    bench.fleet.all(&Order::Disconnect { who: Who::All }).await?;
    let full_sets = bench.admin.full_sets().await?;
    bench.fleet.census().await?;
    let before = bench.server.usage()?;
    let begin = bench.connect(Who::All, with == With::Nothing, false).await?;
    let end = bench.converge(Who::All).await?.last_at;
    let after = bench.server.usage()?;
    let census = bench.fleet.census().await?;
    let scenario = match with {
        With::State => "reconnect",
        With::Nothing => "reconnect-without-state",
    };
    let mut outcome = bench.outcome(scenario);
    outcome.converged_ms = Some(millis(begin, end));
    outcome.bytes_per_agent = Some((census.bytes / agents as u64) as f64);
    outcome.full_sets = Some(bench.admin.full_sets().await? - full_sets);
    outcome.resumed = Some(census.resumed);
    let cpu = before.zip(after).map(|(before, after)| after.cpu_micros - before.cpu_micros);
    outcome.server_cpu_us_per_agent = cpu.map(|cpu| rounded(cpu as f64 / agents as f64));
    outcome.digests_equal = Some(bench.check(|_| agents).await?);
    outcome.note("entries received", census.entries.to_string());
    for (why, count) in &census.lost {
        outcome.note("came again", format!("{count}: {why}"));
    }
    ensure!(
        with == With::Nothing || census.entries == 0,
        "agents that had everything were sent {} entries",
        census.entries
    );
    Ok(outcome)
}
