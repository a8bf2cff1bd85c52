//! The published set: runs it and writes its tables. No figure in them is written by hand.

mod failover;
mod machine;
mod page;
mod targets;

use std::{
    io::{Write as _, stderr},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use tokio::time::timeout;

use self::machine::Machine;
use crate::{args::Cli, bench, outcome::Outcome, scenario};

/// The longest run takes a third of that where the targets are met.
const LONGEST: Duration = Duration::from_secs(900);

/// Options of `publish`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Where the tables go
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Everything a hundredth as large, to try the whole out: tables of no meaning
    #[arg(long)]
    small: bool,

    /// The program to start [default: wattle-controlplane beside this one]
    #[arg(long, value_name = "FILE")]
    server: Option<PathBuf>,

    /// What `make demo-ha` has measured
    #[arg(long, value_name = "FILE")]
    failover: Option<PathBuf>,
}

/// The runs, as command lines. The sizes of the first five are those by which others publish what
/// one change costs.
const RUNS: [&str; 17] = [
    "one-change --agents 50 --groups 5",
    "one-change --agents 500 --groups 100",
    "one-change --agents 5000 --groups 200",
    "one-change --agents 5000 --groups 15",
    "one-change --agents 2000 --groups 2000",
    "one-change --agents 10000",
    "churn --agents 5000 --rate 100 --duration 60s",
    "idle --agents 5000 --duration 60s",
    "reconnect --agents 5000 --only state",
    "reconnect --agents 5000 --only nothing",
    "join --agents 1000",
    "join --agents 2000",
    "enrol --agents 5000",
    "slow-readers --agents 5000 --runs 5",
    "policy-flip --agents 5000",
    "rolling-restart --agents 5000",
    "storm --agents 5000",
];

const SMALL: [&str; 17] = [
    "one-change --agents 10 --groups 5 --changes 1",
    "one-change --agents 20 --groups 10 --changes 1",
    "one-change --agents 50 --groups 20 --changes 1",
    "one-change --agents 50 --groups 2 --changes 1",
    "one-change --agents 20 --groups 20 --changes 1",
    "one-change --agents 100 --changes 1",
    "churn --agents 50 --rate 20 --duration 2s",
    "idle --agents 50 --duration 2s",
    "reconnect --agents 50 --only state",
    "reconnect --agents 50 --only nothing",
    "join --agents 10",
    "join --agents 20",
    "enrol --agents 50",
    "slow-readers --agents 50 --runs 1 --changes 1",
    "policy-flip --agents 50 --rest 1s",
    "rolling-restart --agents 50",
    "storm --agents 50",
];

/// A run and what it found.
pub(super) struct Run {
    pub(super) line: &'static str,
    pub(super) outcome: Option<Outcome>,
    /// Why its figures, if it has any, count for nothing.
    pub(super) failure: Option<String>,
    pub(super) took: Duration,
}

/// A run that fails doesn't keep the others from being measured, but fails the whole in the end.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let machine = Machine::here();
    let failover = args.failover.as_deref().map(failover::read).transpose()?;
    let mut runs = Vec::new();
    for line in if args.small { SMALL } else { RUNS } {
        writeln!(stderr(), "wattle-fleet {line}")?;
        let run = one(line, args).await;
        if let Some(outcome) = &run.outcome {
            writeln!(stderr(), "{}", serde_json::to_string(outcome)?)?;
        }
        if let Some(failure) = &run.failure {
            writeln!(stderr(), "failed: {failure}")?;
        }
        runs.push(run);
        // Each time, so that whatever ends this program leaves what was measured.
        let page = page::page(&machine, &runs, failover.as_deref(), args.small);
        std::fs::write(&args.out, page).with_context(|| args.out.display().to_string())?;
    }
    let failed: Vec<_> = runs.iter().filter(|run| run.failure.is_some()).collect();
    let lines: Vec<_> = failed.iter().map(|run| run.line).collect();
    ensure!(
        failed.is_empty(),
        "{} of {} runs failed: {}",
        failed.len(),
        runs.len(),
        lines.join("; ")
    );
    Ok(())
}

async fn one(line: &'static str, args: &Args) -> Run {
    let words = ["wattle-fleet"].into_iter().chain(line.split_whitespace());
    let mut command = Cli::try_parse_from(words).expect("the published runs are sound").command;
    if let Some(common) = command.common_mut() {
        common.server.clone_from(&args.server);
    }
    let begin = Instant::now();
    let (outcome, failure) = match timeout(LONGEST, scenario::run(&command)).await {
        Ok(Ok(mut outcomes)) => {
            let outcome = outcomes.pop();
            let unsound = outcome.as_ref().and_then(|outcome| bench::sound(outcome).err());
            (outcome, unsound.map(|error| format!("{error:#}")))
        }
        Ok(Err(error)) => (None, Some(format!("{error:#}"))),
        Err(_) => (None, Some(format!("not done after {LONGEST:?}"))),
    };
    Run { line, outcome, failure, took: begin.elapsed() }
}
