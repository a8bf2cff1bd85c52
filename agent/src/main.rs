//! `wattle-agent`: parses the command line, sets up logs, runs, and says how it ended.

use std::process::ExitCode;

use clap::Parser as _;
use wattle_agent::{
    app::{self, Exit},
    config::Config,
};
use wattle_runtime::telemetry;

#[tokio::main]
async fn main() -> ExitCode {
    let config = Config::parse();
    let ended = match telemetry::init("wattle-agent", config.log_format) {
        Ok(()) => app::run(config).await,
        Err(error) => Err(error),
    };
    match ended {
        Ok(exit) => {
            if let Exit::Done(text) = &exit {
                say(text);
            }
            exit.code().into()
        }
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "what a person asked for")]
fn say(text: &str) {
    println!("{}", text.trim_end());
}

#[expect(clippy::print_stderr, reason = "why a command failed, without a log line's dress")]
fn complain(error: &anyhow::Error) {
    eprintln!("wattle-agent: {error:#}");
}
