//! A tenth of the agents stops reading in the middle of what it is sent. What that costs the
//! others, and whether all is well once they read again.

use anyhow::{Result, ensure};

use super::one_change::{one, quantile};
use crate::{
    args::Common,
    bench::Bench,
    order::{Order, Who},
    outcome::{Outcome, median, rounded},
};

/// Options of `slow-readers`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,

    /// Runs with frozen readers, and as many without, by turns
    #[arg(long, default_value_t = 5)]
    pub(crate) runs: usize,

    /// Changes in each run
    #[arg(long, default_value_t = 10)]
    pub(crate) changes: usize,
}

pub(crate) async fn run(args: &Args) -> Result<Outcome> {
    ensure!(args.common.agents >= 10, "--agents {}: at least 10 here", args.common.agents);
    ensure!(args.runs > 0 && args.changes > 0, "--runs and --changes: at least 1");
    let agents = args.common.agents;
    let mut bench = super::seeing_all(&args.common).await?;
    bench.assemble().await?;
    let full_sets = bench.admin.full_sets().await?;
    let before = bench.server.usage()?;
    let (mut with, mut without, mut most) = (Vec::new(), Vec::new(), before);
    let (mut slowest, mut thawed) = (0.0_f64, Vec::new());
    for _ in 0..args.runs {
        bench.fleet.all(&Order::Disconnect { who: Who::Tenth }).await?;
        without.push(p99(&mut bench, args.changes).await?);
        // They come with nothing and stop in the middle of a full set.
        bench.connect(Who::Tenth, true, true).await?;
        online(&mut bench).await?;
        let run = p99(&mut bench, args.changes).await?;
        slowest = slowest.max(run);
        with.push(run);
        let now = bench.server.usage()?;
        most = most.zip(now).map(|(most, now)| if now.rss_kb > most.rss_kb { now } else { most });
        let begin = crate::worker::now();
        bench.fleet.all(&Order::Thaw { who: Who::Tenth }).await?;
        thawed.push(super::millis(begin, bench.converge(Who::All).await?.last_at));
    }
    let mut outcome = bench.outcome("slow-readers");
    outcome.applied_p99_ms = median(with).map(rounded);
    let alone = median(without).map(rounded);
    outcome.applied_max_ms = Some(slowest);
    outcome.converged_ms = Some(thawed.into_iter().fold(0.0, f64::max));
    outcome.full_sets = Some(bench.admin.full_sets().await? - full_sets);
    outcome.digests_equal = Some(bench.check(|_| agents).await?);
    if let Some((ours, alone)) = outcome.applied_p99_ms.zip(alone) {
        outcome.note("p99 without frozen readers", format!("{alone:.1} ms"));
        outcome.beside.frozen_ratio = Some(rounded(ours / alone));
    }
    if let Some((before, most)) = before.zip(most) {
        let frozen = Who::Tenth.of(agents) as f64;
        let kb = most.rss_kb.saturating_sub(before.rss_kb) as f64 / frozen;
        outcome.note("server memory, more per frozen reader", format!("at most {kb:.0} KB"));
    }
    bench.end().await?;
    Ok(outcome)
}

/// The median over some changes of the others' p99.
async fn p99(bench: &mut Bench, changes: usize) -> Result<f64> {
    bench.progress.count("changing", changes);
    let mut watcher = bench.admin.watch().await?;
    let mut all = Vec::new();
    for _ in 0..changes {
        let seen = one(bench, &mut watcher, Who::Others).await?;
        all.push(quantile(&seen.latencies, 0.99));
        bench.progress.advance(1);
    }
    Ok(median(all).unwrap_or_default())
}

/// Waits until all streams are accepted.
async fn online(bench: &mut Bench) -> Result<()> {
    for _ in 0..600 {
        if bench.fleet.census().await?.online == bench.agents {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    anyhow::bail!("some agents weren't accepted within a minute")
}
