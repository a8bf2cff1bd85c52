//! The published set: runs it and writes its tables. No figure in them is written by hand.

mod machine;
mod page;
mod targets;

use std::{
    io::{Write as _, stderr},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use clap::Parser as _;

use self::machine::Machine;
use crate::{args::Cli, bench, outcome::Outcome, scenario};

/// Options of `publish`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Where the tables go
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Everything a hundredth as large, to try the whole out: tables of no meaning
    #[arg(long)]
    small: bool,
}

/// The runs, as command lines. The sizes of the first five are those by which others publish what
/// one change costs.
const RUNS: [&str; 14] = [
    "one-change --agents 50 --groups 5",
    "one-change --agents 500 --groups 100",
    "one-change --agents 5000 --groups 200",
    "one-change --agents 5000 --groups 15",
    "one-change --agents 2000 --groups 2000",
    "one-change --agents 10000",
    "churn --agents 5000 --rate 100 --duration 60s",
    "idle --agents 5000 --duration 60s",
    "reconnect --agents 5000",
    "join --agents 1000",
    "join --agents 2000",
    "enrol --agents 5000",
    "slow-readers --agents 5000 --runs 5",
    "policy-flip --agents 5000",
];

const SMALL: [&str; 14] = [
    "one-change --agents 10 --groups 5 --changes 1",
    "one-change --agents 20 --groups 10 --changes 1",
    "one-change --agents 50 --groups 20 --changes 1",
    "one-change --agents 50 --groups 2 --changes 1",
    "one-change --agents 20 --groups 20 --changes 1",
    "one-change --agents 100 --changes 1",
    "churn --agents 50 --rate 20 --duration 2s",
    "idle --agents 50 --duration 2s",
    "reconnect --agents 50",
    "join --agents 10",
    "join --agents 20",
    "enrol --agents 50",
    "slow-readers --agents 50 --runs 1 --changes 1",
    "policy-flip --agents 50 --rest 1s",
];

/// A run and what it found.
pub(super) struct Run {
    pub(super) line: &'static str,
    pub(super) outcomes: Vec<Outcome>,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let machine = Machine::here();
    let mut runs = Vec::new();
    for line in if args.small { SMALL } else { RUNS } {
        writeln!(stderr(), "wattle-fleet {line}")?;
        let words = ["wattle-fleet"].into_iter().chain(line.split_whitespace());
        let command = Cli::try_parse_from(words).expect("the published runs are sound").command;
        let outcomes = scenario::run(&command).await.with_context(|| line.to_owned())?;
        for outcome in &outcomes {
            writeln!(stderr(), "{}", serde_json::to_string(outcome)?)?;
            bench::sound(outcome)?;
        }
        runs.push(Run { line, outcomes });
    }
    let page = page::page(&machine, &runs);
    std::fs::write(&args.out, page).with_context(|| args.out.display().to_string())
}
