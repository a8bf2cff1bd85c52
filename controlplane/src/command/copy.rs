//! `store copy`: everything of one store into another, empty one.

use anyhow::{Context as _, anyhow, ensure};
use wattle_runtime::{clock, shutdown::Shutdown};

use super::place::{self, Place};
use crate::{
    config::StoreChoice,
    moving::{
        MoveError,
        target::{self, Occupied},
    },
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Stop every replica of the source first: what they wrote meanwhile would be lost. The target must be \
empty, or is emptied with --replace. Machines stay enrolled: nodes, keys, addresses, tokens, operators and policies are copied byte \
for byte, read back and compared; agents reconnect by themselves and are sent one full set each. An \
interrupted copy is begun again by the same command, and no control plane starts on half of one.

Examples:
  wattle-controlplane store copy --from embedded --to etcd --etcd-endpoints http://10.0.0.1:2379
  wattle-controlplane store copy --from etcd --to embedded --etcd-endpoints http://10.0.0.1:2379")]
pub(super) struct Copy {
    /// The store to read
    #[arg(long, value_name = "STORE")]
    from: StoreChoice,

    /// The store to fill
    #[arg(long, value_name = "STORE")]
    to: StoreChoice,

    /// Delete what the target holds first, for good; no replica may be running on it
    #[arg(long)]
    replace: bool,

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
        if let Some(process) = target::in_use(&*from).await? {
            return Err(anyhow!(MoveError::InUse(process))).context("the source");
        }
        let to = place::fresh(&config, self.to, &background).await.context("the target")?;
        let occupied = if self.replace { Occupied::Replace } else { Occupied::Refuse };
        let named = format!("the {} store", self.from);
        let mut progress = place::progress("copied");
        let moved =
            target::copy(&*from, &*to, occupied, &named, clock::now(), &mut progress).await?;
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
