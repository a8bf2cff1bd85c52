//! `wattle-controlplane`: parses its command line and does what it says.

use std::process::ExitCode;

use clap::Parser as _;
use wattle_controlplane::command::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Logs may not be set up, and a person reads this.
            #[expect(clippy::print_stderr, reason = "the last word before the end")]
            {
                eprintln!("error: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}
