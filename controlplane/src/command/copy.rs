//! `store copy`: everything of one store into another, empty one.

use anyhow::{Context as _, bail, ensure};
use wattle_runtime::{clock, shutdown::Shutdown};

use super::place::{self, Place};
use crate::{config::StoreChoice, moving::target};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Stop every replica of the source first: what they wrote meanwhile would be lost. The target must be \
empty. Machines stay enrolled: nodes, keys, addresses, tokens, operators and policies are copied byte \
for byte, read back and compared; agents reconnect by themselves and are sent one full set each. An \
interrupted copy is begun again by the same command, and no control plane starts on half of one.")]
pub(super) struct Copy {
    /// The store to read
    #[arg(long, value_name = "STORE")]
    from: StoreChoice,

    /// The store to fill
    #[arg(long, value_name = "STORE")]
    to: StoreChoice,

    #[command(flatten)]
    place: Place,
}

impl Copy {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        ensure!(self.from != self.to, "--from and --to are the same store");
        // One of the two is etcd, whose settings are wanted.
        let config = self.place.config_with(Some(StoreChoice::Etcd))?;
        let background = Shutdown::new();
        let from = place::existing(&config, self.from, &background).await.context("the source")?;
        // Leases of replicas that were killed run out within a minute.
        if let Some(process) = target::in_use(&*from).await? {
            bail!("a replica runs on the source ({process}): stop every one of them first");
        }
        let to = place::fresh(&config, self.to, &background).await.context("the target")?;
        let named = format!("the {} store", self.from);
        let mut progress = place::progress("copied");
        let moved = target::copy(&*from, &*to, &named, clock::now(), &mut progress).await?;
        place::say(&format!(
            "copied {} records\nsource {}\ntarget {}\nthe target begins epoch {}; start the replicas \
             with --store {}",
            moved.target.records,
            moved.source.hex(),
            moved.target.hex(),
            moved.epoch,
            self.to
        ))
    }
}
