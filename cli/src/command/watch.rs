//! `wattle watch`: what changes, as it changes. A lost connection is made again and the watch goes
//! on after the last revision it was told of, so no change is lost or shown twice.

use std::{path::PathBuf, time::Duration};

use wattle_proto::admin::WatchRequest;
use wattle_runtime::backoff::Backoff;

use crate::{
    args::Format,
    client::{self, Client, is_lost},
    console::Console,
    failure::Failure,
    shape::Changes,
};

/// The longest pause before a lost connection is made again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
With -o json each revision is one line: {\"revision\": N, \"changes\": [...]}. Keep the last N and \
start again with --after N: nothing is lost. When the control plane has forgotten N, this says so \
and ends with status 1: list again.

Examples:
  wattle watch --network default
  wattle watch --after 1042 -o json")]
pub(crate) struct Args {
    /// Only changes after this revision; from now on where not said
    #[arg(long, value_name = "REVISION")]
    after: Option<u64>,
    /// Only changes of this network, its nodes and join tokens
    #[arg(short, long)]
    network: Option<String>,
}

pub(crate) async fn run(
    context: Option<PathBuf>,
    args: Args,
    console: &mut Console,
) -> Result<(), Failure> {
    let network = args.network.unwrap_or_default();
    let mut request = WatchRequest { after_revision: args.after, network };
    // The first connection must work: a wrong address is better said than tried again.
    let mut client = client::connect(context.clone()).await?;
    let mut backoff = Backoff::new(Duration::from_millis(200), LONGEST_PAUSE);
    loop {
        let before = request.after_revision;
        let lost = follow(&mut client, &mut request, console).await?;
        if request.after_revision > before {
            backoff.reset();
        }
        console.explain(&format!("{lost}; connecting again"));
        client = loop {
            tokio::time::sleep(backoff.next()).await;
            match client::connect(context.clone()).await {
                Ok(client) => break client,
                Err(failure) => console.explain(&failure.to_string()),
            }
        };
    }
}

/// Shows changes until the stream ends; says why where another connection may help. The request
/// moves on with what was told.
async fn follow(
    client: &mut Client,
    request: &mut WatchRequest,
    console: &mut Console,
) -> Result<String, Failure> {
    let lost = |address: &str, why: &str| Ok(format!("lost the control plane at {address}: {why}"));
    let mut changes = match client.admin.watch(request.clone()).await {
        Ok(response) => response.into_inner(),
        Err(status) if is_lost(&status) => return lost(&client.address, status.message()),
        Err(status) => return Err(status.into()),
    };
    loop {
        match changes.message().await {
            Ok(None) => return lost(&client.address, "it is going away"),
            Ok(Some(message)) => {
                request.after_revision = Some(message.revision);
                show(&message.try_into()?, console)?;
            }
            Err(status) if is_lost(&status) => return lost(&client.address, status.message()),
            Err(status) => return Err(status.into()),
        }
    }
}

fn show(changes: &Changes, console: &mut Console) -> Result<(), Failure> {
    if changes.changes.is_empty() {
        return Ok(());
    }
    match console.format() {
        Format::Json | Format::Yaml => {
            console.line(&serde_json::to_string(changes).map_err(Failure::failed)?)
        }
        Format::Table => changes.lines().iter().try_for_each(|line| console.line(line)),
    }
}

#[cfg(test)]
mod tests {
    use wattle_proto::admin::{self, resource_change::Resource};

    use super::*;
    use crate::console::tests::console;

    #[test]
    fn each_revision_is_one_line_of_json_and_signs_of_life_are_silent() {
        let network = admin::Network { name: "lab".into(), ..Default::default() };
        let change = admin::ResourceChange { kind: 1, resource: Some(Resource::Network(network)) };
        let response =
            |changes| admin::WatchResponse { revision: 9, changes, ..Default::default() };
        let (mut console, out, _) = console(Format::Json, None);
        for changes in [vec![], vec![change.clone(), change]] {
            show(&response(changes).try_into().unwrap(), &mut console).unwrap();
        }
        assert!(out.text().ends_with('\n') && out.text().matches('\n').count() == 1);
        let json: serde_json::Value = serde_json::from_str(&out.text()).unwrap();
        assert_eq!(json["changes"][1]["network"]["name"], "lab");
    }
}
