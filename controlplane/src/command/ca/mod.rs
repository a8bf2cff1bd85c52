//! `ca`: makes the certificate authority, shows it, and puts another root in its place without cutting
//! anybody off. The private keys are made and read here; the control plane sees certificates alone.

mod init;
mod rotate;
mod show;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Ca {
    /// Makes a CA before the first start: for several replicas, or to keep its key elsewhere
    Init(init::Init),
    /// Shows the roots, who has certificates of which, and where a rotation stands
    Show(show::Show),
    /// Puts a new root in the old one's place, in three steps
    Rotate(rotate::Rotate),
}

impl Ca {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Init(init) => init.run(),
            Self::Show(show) => show.run().await,
            Self::Rotate(rotate) => rotate.run().await,
        }
    }
}
