//! Changes at a steady rate: for each change and each agent, how long until the first commit that
//! holds it.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::{
    select,
    time::{Instant, MissedTickBehavior, interval},
};

use super::one_change::quantile;
use crate::{
    admin::{Seen, Watcher},
    args::Common,
    bench::{Bench, Moved, PATIENCE},
    order::{Change, Order, Who},
    outcome::{Outcome, rounded},
};

/// How often the agents' processes are told what was committed.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Options of `churn`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,

    /// Changes a second
    #[arg(long, default_value_t = 100)]
    pub(crate) rate: u32,

    /// For how long, such as 60s
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
}

impl Args {
    fn check(&self) -> Result<()> {
        ensure!(self.rate > 0, "--rate 0: at least 1");
        ensure!(!self.duration.is_zero(), "--duration: longer than nothing");
        // An agent's reports are written at most once a second, so each must rest between two.
        ensure!(
            self.rate as usize * 2 <= self.common.agents,
            "--rate {}: an agent may change every other second, so {} agents make at most {} \
             changes a second",
            self.rate,
            self.common.agents,
            self.common.agents / 2
        );
        Ok(())
    }
}

pub(crate) async fn run(args: &Args) -> Result<Outcome> {
    args.check()?;
    let mut bench = super::seeing_all(&args.common).await?;
    bench.assemble().await?;
    let mut watcher = bench.admin.watch().await?;
    let full_sets = bench.admin.full_sets().await?;
    bench.fleet.census().await?;
    bench.fleet.all(&Order::Record { on: true }).await?;
    let (before, fleet_before) = (bench.server.usage()?, bench.fleet.cpu_micros()?);
    let begin = Instant::now();
    let (made, last) = changes(&mut bench, &mut watcher, args).await?;
    let elapsed = begin.elapsed();
    bench.hold(Who::All, last).await?;
    // Commits may lead to later revisions: none of those is one of these changes.
    bench.fleet.all(&Order::Changes { changes: Vec::new(), upto: u64::MAX }).await?;
    let (after, fleet_after) = (bench.server.usage()?, bench.fleet.cpu_micros()?);
    let (latencies, census) = (bench.fleet.latencies().await?, bench.fleet.census().await?);
    let (agents, pairs) = (args.common.agents, (made * args.common.agents) as f64);
    ensure!(
        latencies.len() == (made * agents) as u64,
        "{made} changes came to {} (change, agent) pairs of {pairs}",
        latencies.len()
    );
    let mut outcome = bench.outcome("churn");
    outcome.applied_p50_ms = Some(quantile(&latencies, 0.5));
    outcome.applied_p99_ms = Some(quantile(&latencies, 0.99));
    outcome.applied_max_ms = Some(quantile(&latencies, 1.0));
    outcome.bytes_per_agent = Some(rounded(census.bytes as f64 / pairs));
    let cpu = before.zip(after).map(|(before, after)| after.cpu_micros - before.cpu_micros);
    outcome.server_cpu_us_per_agent = cpu.map(|cpu| rounded(cpu as f64 / pairs));
    outcome.beside.fleet_cpu_us_per_agent =
        Some(rounded((fleet_after - fleet_before) as f64 / pairs));
    outcome.full_sets = Some(bench.admin.full_sets().await? - full_sets);
    outcome.digests_equal = Some(bench.check(|_| agents).await?);
    let rate = made as f64 / elapsed.as_secs_f64();
    outcome.note("changes", format!("{made}, {rate:.1} a second"));
    let each = census.commits as f64 / agents as f64;
    outcome.note("commits per agent", format!("{each:.0}, {:.1} changes each", made as f64 / each));
    bench.end().await?;
    Ok(outcome)
}

/// Makes them; how many, and the last one's revision.
async fn changes(bench: &mut Bench, watcher: &mut Watcher, args: &Args) -> Result<(usize, u64)> {
    let wanted = (f64::from(args.rate) * args.duration.as_secs_f64()).ceil() as usize;
    bench.progress.count("changing", wanted);
    let mut next = interval(Duration::from_secs(1) / args.rate);
    next.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (mut moves, mut told, mut committed) = (Vec::<Moved>::new(), Instant::now(), Vec::new());
    let (mut seen, mut last, mut asked) = (0, 0, 0);
    let deadline = Instant::now() + args.duration + PATIENCE;
    while seen < wanted {
        select! {
            _ = next.tick(), if asked < wanted => {
                moves.push(bench.change(Who::All).await?);
                asked += 1;
            }
            change = watcher.next() => {
                let change = change?;
                let Some(at) = ours(&change, &mut moves) else { continue };
                committed.push(Change { revision: change.revision, committed_at: at });
                (seen, last) = (seen + 1, change.revision);
                bench.progress.advance(1);
            }
            () = tokio::time::sleep_until(deadline) => {
                anyhow::bail!("only {seen} of {wanted} changes are in the store");
            }
        }
        if told.elapsed() >= TELL_EVERY || seen == wanted {
            let changes = std::mem::take(&mut committed);
            if let Some(upto) = changes.last().map(|change| change.revision) {
                bench.fleet.all(&Order::Changes { changes, upto }).await?;
            }
            told = Instant::now();
        }
    }
    Ok((seen, last))
}

/// When a change of ours was committed; `None` where it is somebody else's.
fn ours(seen: &Seen, moves: &mut Vec<Moved>) -> Option<u64> {
    let place = moves.iter().position(|moved| seen.endpoints.contains(&moved.endpoint))?;
    let moved = moves.swap_remove(place);
    Some(seen.committed_at.unwrap_or(moved.told_at))
}
