//! `wattle apply -f FILE`.

use std::{path::PathBuf, time::Duration};

use wattle_proto::admin::{
    ApplyRequest, ApplyResponse, GetNetworkRequest, Resource, WaitAppliedRequest,
};

use super::wait;
use crate::{
    args::Format,
    client::{self, Client, request_id},
    console::Console,
    declare::{self, Declared, Sources},
    failure::Failure,
    shape::Applied,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Files hold documents of three kinds, with --- between them:

  kind: Network                # `mode: closed` lets nobody see anybody unless a policy does
  name: default
  mode: closed                 # or mesh: everybody sees everybody
  # ipv4: 10.90.0.0/16         # what isn't said stays as it is
  ---
  kind: Policy
  network: default             # where not said: default
  name: web-to-db
  from: role=web               # selectors, as in `wattle node list --selector`; \"\": every node
  to: role in (db,cache),site!=test
  expect:                      # checked before anything takes effect
    - web-1 sees db-1
    - web-1 does not see laptop
  ---
  kind: Policy
  name: old
  delete: true                 # there should be no such policy
  ---
  kind: Node                   # a node that is there already
  name: db-1                   # or its id
  labels: {role: db}           # all of its labels

All of it is applied in one transaction, or none. What is so already is left alone, so a file can be \
applied again and again. `revision: N` in a document makes it hold only as long as nobody else has \
changed the resource since revision N; `get -o yaml` writes it.

With -o json: {\"revision\", \"dry_run\", \"resources\": [{\"kind\", \"name\", \"action\"}], \"sight\": \
[{\"network\", \"pairs_gained\", \"pairs_lost\", \"nodes_changed\", \"nodes\"}], \"progress\"}; of an action it is \
said whether it is created, updated, unchanged or deleted, and progress is what `wattle wait` prints.

Examples:
  wattle apply -f policies.yaml --dry-run      (says who would see whom)
  wattle apply -f policies.yaml --wait
  wattle get all -o yaml > fleet.yaml; $EDITOR fleet.yaml; wattle apply -f fleet.yaml")]
pub(crate) struct Args {
    #[command(flatten)]
    sources: Sources,
    /// Only say what would change, and which nodes would see more or fewer
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    /// Wait until all agents that it concerns and that are online have applied it
    #[arg(long)]
    wait: bool,
    /// How long to wait, such as 30s; at most 5m
    #[arg(long, default_value = "10s", value_parser = super::duration, requires = "wait")]
    timeout: Duration,
}

pub(crate) async fn run(
    context: Option<PathBuf>,
    args: &Args,
    console: &mut Console,
) -> Result<(), Failure> {
    // Mistakes in the files are told before the control plane is asked.
    let declared = declare::read(&args.sources)?;
    let mut client = client::connect(context).await?;
    let resources = declared.resources();
    let response = ask(&mut client, &declared, &resources, args.dry_run).await?;
    let mut applied = Applied::new(response, &resources, args.dry_run);
    if console.format() == Format::Table {
        explain(&mut client, &mut applied).await;
        applied.lines().iter().try_for_each(|line| console.line(line))?;
    }
    if args.wait && applied.changes() {
        let timeout = Some(super::message(args.timeout));
        let request = WaitAppliedRequest { revision: applied.revision, timeout };
        let progress = client.admin.wait_applied(request).await?.into_inner().try_into()?;
        if console.format() == Format::Table {
            console.line("")?;
            return wait::show(&progress, false, console);
        }
        applied.progress = Some(progress);
    }
    if console.format() != Format::Table {
        console.json(&applied)?;
    }
    applied.progress.map_or(Ok(()), |progress| wait::verdict(&progress, false))
}

/// Finds out where policies don't count, so that nobody takes a mesh for closed.
async fn explain(client: &mut Client, applied: &mut Applied) {
    for name in applied.unexplained() {
        // What was done is done: it is told without this, too.
        let answer = client.admin.get_network(GetNetworkRequest { name: name.clone() }).await;
        if let Some(network) = answer.ok().and_then(|answer| answer.into_inner().network) {
            applied.in_mode(&name, network.mode());
        }
    }
}

/// Asks to apply what the files declare; what is wrong with it is told with its place.
pub(super) async fn ask(
    client: &mut Client,
    declared: &Declared,
    resources: &[Resource],
    dry_run: bool,
) -> Result<ApplyResponse, Failure> {
    let request = ApplyRequest {
        request_id: request_id(),
        resources: resources.to_vec(),
        expectations: declared.expectations(),
        dry_run,
    };
    match client.admin.apply(request).await {
        Ok(response) => Ok(response.into_inner()),
        Err(status) => Err(declare::explain(status, declared)),
    }
}
