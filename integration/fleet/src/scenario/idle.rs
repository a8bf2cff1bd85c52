//! Streams on which nothing happens but heartbeats: what each costs in memory and processor time.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::sleep;

use crate::{
    args::Common,
    outcome::{Outcome, rounded},
};

/// Options of `idle`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,

    /// For how long, such as 60s
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub(crate) duration: Duration,
}

pub(crate) async fn run(args: &Args) -> Result<Outcome> {
    ensure!(args.duration >= Duration::from_secs(1), "--duration: at least 1s");
    let agents = args.common.agents;
    let mut bench = super::seeing_all(&args.common).await?;
    let full_sets = bench.admin.full_sets().await?;
    bench.assemble().await?;
    // Acks come within a second, and aren't what is measured.
    sleep(Duration::from_secs(2)).await;
    bench.fleet.census().await?;
    let begun = bench.server.usage()?;
    bench.progress.begin("idling");
    sleep(args.duration).await;
    let (ended, census) = (bench.server.usage()?, bench.fleet.census().await?);
    ensure!(census.online == agents, "only {} of {agents} are online", census.online);
    let mut outcome = bench.outcome("idle");
    if let Some(((before, begun), ended)) = bench.before.zip(begun).zip(ended) {
        let kb = ended.rss_kb.saturating_sub(before.rss_kb) as f64;
        outcome.server_rss_kb_per_stream = Some(rounded(kb / agents as f64));
        let cpu = (ended.cpu_micros - begun.cpu_micros) as f64;
        let seconds = args.duration.as_secs_f64();
        outcome.server_cpu_us_per_agent = Some(rounded(cpu / seconds / agents as f64));
        outcome.note("server memory", format!("{} KB, {} KB at 0", ended.rss_kb, before.rss_kb));
    }
    outcome.bytes_per_agent = Some(rounded(census.bytes as f64 / agents as f64));
    outcome.full_sets = Some(bench.admin.full_sets().await? - full_sets);
    outcome.digests_equal = Some(bench.check(|_| agents).await?);
    bench.end().await?;
    Ok(outcome)
}
