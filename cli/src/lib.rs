//! `wattle`, the operator's command: it reads the command line ([`Cli`]), finds the credential
//! (`context`), connects (`client`), asks (`command`) and prints (`console`, `shape`).
//!
//! It holds no rule of the product: what may be is the control plane's to say, and what it says is
//! passed on. Files that people write (`declare`) are checked for form before they are sent, with the
//! parsers that the control plane uses, so that mistakes are told with their lines.

mod args;
mod client;
mod command;
mod console;
mod context;
mod declare;
mod failure;
mod shape;
mod text;

use std::process::ExitCode;

pub use args::Cli;
use console::Console;

/// Does what the command line says. What was asked for goes to stdout, all else to stderr.
pub async fn run(cli: Cli) -> ExitCode {
    let mut console = Console::terminal(cli.output);
    match command::run(cli.context, cli.command, &mut console).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if failure.is_news() {
                console.complain(&failure.to_string());
            }
            failure.exit_code()
        }
    }
}
