//! `store init`: a new control plane, because somebody says so.

use wattle_runtime::shutdown::Shutdown;

use super::place::{self, Place};
use crate::{app, authority::CaFiles, beginning};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
`serve` begins a control plane by itself where none can have been: with a CA that it makes, that \
`ca init` made in its data directory, or that was made within the last hour. Everywhere else an empty \
store is taken for one that was lost. Say this once, from anywhere, with the settings that `serve` \
has: for a CA that was made earlier, or to begin anew after a loss. Where there is a control plane \
already, nothing is changed. Don't put it where it is repeated, as in a unit or a pod: it would make \
an empty control plane of a lost one. Machines of an earlier control plane are unknown to a new one, \
and an operator.json in a data directory is its administrator's: move old ones away.

Examples:
  wattle-controlplane store init --store etcd --etcd-endpoints http://10.0.0.1:2379 \
      --ca-cert ca.crt --ca-key ca.key")]
pub(super) struct Init {
    #[command(flatten)]
    place: Place,
}

impl Init {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let config = self.place.config()?;
        if config.ca == CaFiles::of(&config.data_dir) {
            app::make_data_dir(&config.data_dir)?;
        }
        let store = place::fresh(&config, config.store, &Shutdown::new()).await?;
        let (cluster, new) = beginning::on_purpose(&config, &*store).await?;
        let (name, place) = (cluster.trust_domain, beginning::place(&config));
        place::say(&match new {
            true => format!("a new control plane, {name}, in {place}: start its replicas"),
            false => format!("{name} is in {place} already: nothing was changed"),
        })
    }
}
