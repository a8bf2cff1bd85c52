//! The fleet simulator: thousands of agents without kernels, which enrol, connect and follow as
//! real ones do, and say how long everything took.

mod admin;
mod args;
mod bench;
mod fleet;
mod limits;
mod order;
mod outcome;
mod pages;
mod progress;
mod publish;
mod raw;
mod scenario;
mod server;
mod several;
mod worker;

use std::{
    io::{Write as _, stderr},
    process::ExitCode,
};

use anyhow::Result;
use clap::Parser as _;
use tokio::runtime::Builder;
use wattle_runtime::shutdown::signals;

use crate::args::{Cli, Command};

fn main() -> ExitCode {
    limits::raise();
    let cli = Cli::parse();
    // The control plane has as many threads as there are processors, and so has what it is compared to.
    let threads = matches!(cli.command, Command::RawServer);
    let mut builder =
        if threads { Builder::new_multi_thread() } else { Builder::new_current_thread() };
    let runtime = builder.enable_all().build().expect("a runtime can be made");
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever closed stderr doesn't want to know.
            let _ = writeln!(stderr(), "wattle-fleet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Worker => worker::run().await,
        Command::RawServer => raw::serve().await,
        Command::Publish(args) => tokio::select! {
            published = publish::run(&args) => published,
            signal = signals() => anyhow::bail!("ended by {}", signal?),
        },
        command => tokio::select! {
            outcomes = scenario::run(&command) => {
                for outcome in outcomes? {
                    outcome.print(cli.json)?;
                    bench::sound(&outcome)?;
                }
                Ok(())
            }
            // What was started is killed, and what was written removed, as the run is dropped.
            signal = signals() => anyhow::bail!("ended by {}", signal?),
        },
    }
}
