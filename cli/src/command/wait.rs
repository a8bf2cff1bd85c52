//! `wattle wait REVISION`.

use std::time::Duration;

use wattle_proto::admin::WaitAppliedRequest;

use crate::{args::Format, client::Client, console::Console, failure::Failure, shape::Progress};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A revision concerns the nodes that saw what it changed, before or after. The exit status is 0 when \
all of them that are online have applied it; with --all, when none is offline either.

Example:
  revision=$(wattle node label web-1 role=web -o json | jq .revision)
  wattle wait $revision --timeout 30s")]
pub(crate) struct Args {
    /// The revision that a change made
    revision: u64,
    /// How long to wait, such as 30s; at most 5m
    #[arg(long, default_value = "10s", value_parser = super::duration)]
    timeout: Duration,
    /// Count nodes that are offline as not done
    #[arg(long)]
    all: bool,
}

pub(crate) async fn run(
    client: &mut Client,
    args: &Args,
    console: &mut Console,
) -> Result<(), Failure> {
    let timeout = Some(super::message(args.timeout));
    let request = WaitAppliedRequest { revision: args.revision, timeout };
    let progress = client.admin.wait_applied(request).await?.into_inner().try_into()?;
    show(&progress, args.all, console)
}

/// What has come of it, and whether that is all of it.
pub(super) fn show(progress: &Progress, all: bool, console: &mut Console) -> Result<(), Failure> {
    progress.silent_replicas.iter().for_each(|silent| console.warn(silent));
    console.sheet(progress)?;
    let behind = progress.behind();
    if console.format() == Format::Table && !behind.is_empty() {
        console.line("")?;
        console.line(&behind)?;
    }
    verdict(progress, all)
}

/// Whether all that should have applied it have.
pub(super) fn verdict(progress: &Progress, all: bool) -> Result<(), Failure> {
    let offline = if all { progress.offline_count } else { 0 };
    match progress.pending_count + progress.rejected_count + offline {
        0 => Ok(()),
        behind => Err(Failure::Failed(format!(
            "revision {} isn't applied by {behind} of {} nodes",
            progress.revision, progress.concerned
        ))),
    }
}

#[cfg(test)]
mod tests {
    use wattle_proto::admin::WaitAppliedResponse;

    use super::*;
    use crate::console::tests::console;

    #[test]
    fn it_is_done_when_whoever_can_has_applied() {
        let ask = |pending_count, rejected_count, offline_count, all| {
            let response = WaitAppliedResponse {
                revision: 9,
                concerned: 4,
                pending_count,
                rejected_count,
                offline_count,
                ..Default::default()
            };
            show(&response.try_into().unwrap(), all, &mut console(Format::Table, None).0)
        };
        assert_eq!(ask(0, 0, 2, false), Ok(()));
        let text = "revision 9 isn't applied by 2 of 4 nodes";
        for (pending, rejected, offline, all) in
            [(2, 0, 0, false), (1, 1, 0, false), (0, 0, 2, true)]
        {
            assert_eq!(ask(pending, rejected, offline, all), Err(Failure::Failed(text.into())));
        }
    }
}
