//! One change, to all agents, again and again: how long until it could be read and everybody was
//! woken, until it was applied, how many bytes it took, and what plain TLS takes for the same.

use std::time::Duration;

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use tokio::time::sleep;

use crate::{
    admin::Watcher,
    args::Common,
    bench::Bench,
    fleet::{self, Process, unexpected},
    order::{Answer, Change, Order, Who},
    outcome::{Outcome, median, rounded},
    raw::{SMALLEST, TLS_OVERHEAD},
};

/// Long enough for every agent's ack, which comes within a second.
const PAUSE: Duration = Duration::from_millis(1300);

/// Options of `one-change`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) common: Common,

    /// How many changes
    #[arg(long, default_value_t = 30)]
    pub(crate) changes: usize,

    /// Leave out the comparison with plain TLS
    #[arg(long)]
    pub(crate) no_raw: bool,
}

/// What was seen of one change.
pub(super) struct One {
    pub(super) latencies: Histogram<u64>,
    pub(super) handed_ms: Option<f64>,
    pub(super) bytes_per_agent: f64,
    pub(super) cpu_micros: Option<u64>,
    pub(super) fleet_cpu_micros: Option<u64>,
}

pub(crate) async fn run(args: &Args) -> Result<Outcome> {
    ensure!(args.changes > 0, "--changes 0: at least 1");
    let mut bench = super::seeing_all(&args.common).await?;
    bench.assemble().await?;
    let mut raw = match args.no_raw {
        true => None,
        false => Some(Raw::start(&bench).await?),
    };
    let mut watcher = bench.admin.watch().await?;
    let full_sets = bench.admin.full_sets().await?;
    // The first one finds code and memory cold, and is none of those that count.
    one(&mut bench, &mut watcher, Who::All).await?;
    bench.progress.count("changing", args.changes);
    let (mut all, mut raws) = (Vec::new(), Vec::new());
    for number in 0..args.changes {
        let seen = one(&mut bench, &mut watcher, Who::All).await?;
        if let Some(raw) = &mut raw {
            raws.push(raw.write(seen.bytes_per_agent, number as u64 + 1).await?);
        }
        all.push(seen);
        bench.progress.advance(1);
    }
    let mut outcome = summary(&bench, &all, &raws);
    outcome.full_sets = Some(bench.admin.full_sets().await? - full_sets);
    outcome.digests_equal = Some(bench.check(|_| args.common.agents).await?);
    bench.end().await?;
    Ok(outcome)
}

/// Makes a change and waits until all of `who` have applied it, and for their acks.
pub(super) async fn one(bench: &mut Bench, watcher: &mut Watcher, who: Who) -> Result<One> {
    let of = who.of(bench.agents);
    bench.fleet.all(&Order::Record { on: true }).await?;
    bench.fleet.census().await?;
    let (before, fleet_before) = (bench.server.usage()?, bench.fleet.cpu_micros()?);
    let moved = bench.change(who).await?;
    let (seen, committed_at) = Bench::seen(watcher, &moved).await?;
    bench.hold(who, seen.revision).await?;
    let census = bench.fleet.census().await?;
    let changes = vec![Change { revision: seen.revision, committed_at }];
    bench.fleet.all(&Order::Changes { changes, upto: u64::MAX }).await?;
    let latencies = bench.fleet.latencies().await?;
    bench.fleet.all(&Order::Record { on: false }).await?;
    ensure!(latencies.len() == of as u64, "{} of {of} agents were told", latencies.len());
    sleep(PAUSE).await;
    let (after, fleet_after) = (bench.server.usage()?, bench.fleet.cpu_micros()?);
    let applied = bench.admin.wait_applied(seen.revision, Duration::from_secs(10)).await?;
    let handed = applied.handed_after.and_then(|after| Duration::try_from(after).ok());
    Ok(One {
        latencies,
        handed_ms: handed.map(|after| after.as_secs_f64() * 1e3),
        bytes_per_agent: census.bytes as f64 / of as f64,
        fleet_cpu_micros: Some(fleet_after - fleet_before),
        cpu_micros: before.zip(after).map(|(before, after)| after.cpu_micros - before.cpu_micros),
    })
}

/// A quantile in milliseconds.
pub(super) fn quantile(latencies: &Histogram<u64>, quantile: f64) -> f64 {
    latencies.value_at_quantile(quantile) as f64 / 1e3
}

fn summary(bench: &Bench, all: &[One], raws: &[Histogram<u64>]) -> Outcome {
    let of = |figure: &dyn Fn(&One) -> f64| median(all.iter().map(figure).collect()).map(rounded);
    let most = |figure: &dyn Fn(&One) -> f64| all.iter().map(figure).fold(0.0, f64::max);
    let p99 = |one: &One| quantile(&one.latencies, 0.99);
    let mut outcome = bench.outcome("one-change");
    let handed: Vec<f64> = all.iter().filter_map(|one| one.handed_ms).collect();
    outcome.beside.handed_max_ms = handed.iter().copied().max_by(f64::total_cmp).map(rounded);
    outcome.handed_ms = median(handed).map(rounded);
    outcome.applied_p50_ms = of(&|one| quantile(&one.latencies, 0.5));
    outcome.applied_p99_ms = of(&p99);
    outcome.applied_max_ms = Some(rounded(most(&|one| quantile(&one.latencies, 1.0))));
    outcome.bytes_per_agent = of(&|one| one.bytes_per_agent);
    let times = (all.len() * bench.agents) as f64;
    let per = |cpu: Option<u64>| cpu.map(|cpu| rounded(cpu as f64 / times));
    outcome.server_cpu_us_per_agent = per(all.iter().map(|one| one.cpu_micros).sum());
    let raw_p99: Vec<f64> = raws.iter().map(|raw| quantile(raw, 0.99)).collect();
    outcome.beside.raw_p99_max_ms = raw_p99.iter().copied().max_by(f64::total_cmp);
    outcome.raw_p99_ms = median(raw_p99).map(rounded);
    outcome.raw_ratio =
        outcome.applied_p99_ms.zip(outcome.raw_p99_ms).map(|(ours, raw)| rounded(ours / raw));
    outcome.beside.fleet_cpu_us_per_agent = per(all.iter().map(|one| one.fleet_cpu_micros).sum());
    outcome.beside.p99_max_ms = Some(rounded(most(&p99)));
    outcome.note("changes", format!("{}, medians where not said otherwise", all.len()));
    outcome
}

/// Plain TLS connections, as many as agents.
struct Raw {
    server: Process,
    readers: Vec<Process>,
}

impl Raw {
    async fn start(bench: &Bench) -> Result<Self> {
        bench.progress.begin("opening raw connections");
        let mut server = Process::spawn("raw-server")?;
        let listening = server.answer().await?;
        let Answer::Listening { address, roots } = listening else {
            return Err(unexpected(&listening));
        };
        // As many processes read as for the agents.
        let processes = bench.fleet.workers();
        let mut readers = Vec::new();
        for number in 0..processes {
            let mut reader = Process::spawn("worker")?;
            let count = (bench.agents + processes - 1 - number) / processes;
            let (address, roots) = (address.clone(), roots.clone());
            reader.ask(&Order::Raw { address, roots, count }).await?;
            readers.push(reader);
        }
        Ok(Self { server, readers })
    }

    /// Writes a message of so many TLS bytes to all connections; how long that took to each.
    async fn write(&mut self, tls_bytes: f64, number: u64) -> Result<Histogram<u64>> {
        let bytes = (tls_bytes.round() as usize).max(SMALLEST) - TLS_OVERHEAD;
        let answer = self.server.ask(&Order::Write { bytes, number }).await?;
        let Answer::At(at) = answer else { return Err(unexpected(&answer)) };
        let mut all = fleet::histogram();
        for reader in &mut self.readers {
            let answer = reader.ask(&Order::RawWritten { number, at }).await?;
            let Answer::Latencies(buckets) = answer else { return Err(unexpected(&answer)) };
            fleet::add(&mut all, &buckets);
        }
        Ok(all)
    }
}
