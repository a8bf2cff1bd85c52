//! The `wattle` binary.

use std::process::ExitCode;

use clap::Parser as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    wattle_cli::run(wattle_cli::Cli::parse()).await
}
