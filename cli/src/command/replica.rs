//! `wattle replica …`.

use std::time::SystemTime;

use clap::Subcommand;
use wattle_proto::admin::ListReplicasRequest;

use crate::{client::Client, console::Console, failure::Failure, shape::Replica};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the control plane's processes: where they are, how many agents each has, how they are
    #[command(after_help = "\
Columns:
  ADDRESS   where other replicas reach it
  AGENTS    agents connected to it
  REVISION  what it has read the store up to, and how far that is behind the last change
  STATE     serving; draining: it stops; stale: it can't see the store; silent: it hasn't said
            anything for some seconds")]
    List,
}

pub(crate) async fn run(
    client: &mut Client,
    Command::List: Command,
    console: &mut Console,
) -> Result<(), Failure> {
    let response = client.admin.list_replicas(ListReplicasRequest {}).await?.into_inner();
    let (now, last) = (SystemTime::now(), response.revision);
    let replicas = response.replicas.into_iter().map(|one| Replica::new(one, last, now));
    console.list(&replicas.collect::<Result<Vec<_>, _>>()?)
}
