//! The command line of `wattle-controlplane`.

mod backup;
mod ca;
mod copy;
mod create;
mod init;
mod place;
mod restore;
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
    /// The certificate authority: make it, show it, rotate it
    #[command(subcommand)]
    Ca(ca::Ca),
    /// Writes a backup, from a running control plane or its store
    Backup(backup::Backup),
    /// Makes a control plane out of a backup, in an empty store
    Restore(restore::Restore),
    /// Begins a control plane in a store, or moves one to another store
    #[command(subcommand)]
    Store(Store),
}

#[derive(Debug, Subcommand)]
enum Store {
    /// Begins a new control plane in an empty store, where `serve` doesn't by itself
    Init(init::Init),
    /// Copies everything into an empty store and compares
    Copy(copy::Copy),
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
            Command::Ca(ca) => ca.run().await,
            Command::Backup(backup) => backup.run().await,
            Command::Restore(restore) => restore.run().await,
            Command::Store(Store::Init(init)) => init.run().await,
            Command::Store(Store::Copy(copy)) => copy.run().await,
        }
    }
}
