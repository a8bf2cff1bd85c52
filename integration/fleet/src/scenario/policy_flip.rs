//! A policy that lets two halves of a fleet see each other, and its end.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::sleep;
use wattle_proto::admin::Mode;

use super::millis;
use crate::{
    admin::GROUP,
    args::Common,
    bench::Bench,
    order::Who,
    outcome::{Outcome, rounded},
    worker::now,
};

const BETWEEN: &str = "between";

/// Options of `policy-flip`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,

    /// How long to wait before the server's memory is compared with what it was
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub(crate) rest: Duration,
}

pub(crate) async fn run(args: &Args) -> Result<Outcome> {
    ensure!(
        args.common.groups == 1,
        "--groups {}: here there are always two halves",
        args.common.groups
    );
    let common = Common { groups: 2, ..args.common.clone() };
    let agents = common.agents;
    let half = |group: usize| agents / 2 + usize::from(group == 0 && agents % 2 == 1);
    let mut bench = Bench::start(&common, Mode::Closed).await?;
    let group = |group: usize| format!("{GROUP}={group}");
    let within = [0, 1].map(|n| (format!("within-{n}"), group(n), group(n)));
    bench.admin.put_policies(&within).await?;
    bench.assemble().await?;
    let mut equal = bench.check(half).await?;
    let (full_sets, before) = (bench.admin.full_sets().await?, bench.server.usage()?);
    bench.fleet.census().await?;

    bench.progress.begin("letting them see each other");
    let begin = now();
    let between = [(BETWEEN.to_owned(), group(0), group(1))];
    let revision = bench.admin.put_policies(&between).await?;
    let visible = millis(begin, bench.hold(Who::All, revision).await?.last_at);
    equal &= bench.check(|_| agents).await?;

    bench.progress.begin("and no more");
    let begin = now();
    let revision = bench.admin.delete_policy(BETWEEN).await?;
    let hidden = millis(begin, bench.hold(Who::All, revision).await?.last_at);
    equal &= bench.check(half).await?;

    bench.progress.begin("resting");
    sleep(args.rest).await;
    let after = bench.server.usage()?;
    let mut outcome = bench.outcome("policy-flip");
    outcome.converged_ms = Some(visible.max(hidden));
    outcome.full_sets = Some(bench.admin.full_sets().await? - full_sets);
    outcome.digests_equal = Some(equal);
    outcome.note("visible after", format!("{visible:.0} ms"));
    outcome.note("hidden after", format!("{hidden:.0} ms"));
    if let Some((before, after)) = before.zip(after) {
        let ratio = after.rss_kb as f64 / before.rss_kb as f64;
        outcome.beside.memory_ratio = Some(rounded(ratio));
        let cpu = (after.cpu_micros - before.cpu_micros) as f64;
        outcome.server_cpu_us_per_agent = Some(rounded(cpu / agents as f64));
    }
    bench.end().await?;
    Ok(outcome)
}
