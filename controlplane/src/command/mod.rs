//! The command line of `wattle-controlplane`.

mod create;
mod serve;

use clap::{Parser, Subcommand};

/// The control plane of a Wattle mesh.
#[derive(Debug, Parser)]
#[command(name = "wattle-controlplane", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves agents and operators; the first start makes a new control plane
    Serve(Box<serve::Serve>),
    /// Manages operators over the local socket of a running control plane
    #[command(subcommand)]
    Admin(Admin),
}

#[derive(Debug, Subcommand)]
enum Admin {
    /// Makes an operator and writes the credential file that `wattle --context` takes
    Create(create::Create),
}

impl Cli {
    /// Does what was asked.
    pub async fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(serve) => serve.run().await,
            Command::Admin(Admin::Create(create)) => create.run().await,
        }
    }
}
