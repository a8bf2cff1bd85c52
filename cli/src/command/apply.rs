//! `wattle apply -f FILE`.

use std::{path::PathBuf, time::Duration};

use tonic::Status;
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
    shape::{Applied, Progress},
};

/// How long the control plane may take to say what else is wrong with files that have mistakes.
const HASTE: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Files hold documents of three kinds, with --- between them:

  kind: Network                # `mode: closed` lets nobody see anybody unless a policy does
  name: default
  mode: closed                 # or mesh: everybody sees everybody
  # ipv4: 10.90.0.0/16         # what isn't said stays as it is
  # key_rotation: 30d          # how old WireGuard keys may become; \"\": as old as they like
  # preshared_keys: true       # each pair of nodes has one, or false
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
    /// Wait until all agents that it concerns and that are online have applied it; where all of it is
    /// so already, the last change that made it so
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
    let (declared, mut client) = prepare(context, &args.sources).await?;
    let resources = declared.resources();
    let response = ask(&mut client, &declared, &resources, args.dry_run).await?;
    let mut applied = Applied::new(response, &resources, args.dry_run);
    if console.format() == Format::Table {
        explain(&mut client, &mut applied).await;
        applied.lines().iter().try_for_each(|line| console.line(line))?;
    }
    let revision = args.wait.then(|| applied.since()).flatten();
    let waited = match revision {
        Some(revision) => follow(&mut client, revision, args.timeout).await.map(Some),
        None => Ok(None),
    };
    report(applied, waited, console)
}

/// Waits until whoever it concerns has what was made so at `revision`.
async fn follow(
    client: &mut Client,
    revision: u64,
    timeout: Duration,
) -> Result<Progress, Failure> {
    let timeout = Some(super::message(timeout));
    let request = WaitAppliedRequest { revision, timeout };
    Ok(client.admin.wait_applied(request).await?.into_inner().try_into()?)
}

/// Says how far it has come. What was done is told to programs where that isn't known, too.
fn report(
    mut applied: Applied,
    waited: Result<Option<Progress>, Failure>,
    console: &mut Console,
) -> Result<(), Failure> {
    if console.format() == Format::Table {
        let Some(progress) = waited? else { return Ok(()) };
        console.line("")?;
        return wait::show(&progress, false, console);
    }
    let waited = waited.map(|progress| applied.progress = progress);
    console.json(&applied)?;
    waited?;
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

/// The files' contents, and a connection. Where anything in the files is wrong, all of it is told,
/// with what the control plane knows to be wrong of the rest, if it can be asked.
pub(super) async fn prepare(
    context: Option<PathBuf>,
    sources: &Sources,
) -> Result<(Declared, Client), Failure> {
    let (declared, mut mistakes) = declare::read(sources)?;
    if mistakes.is_empty() {
        return Ok((declared, client::connect(context).await?));
    }
    let asked = tokio::time::timeout(HASTE, try_out(context, &declared)).await;
    if let Ok(Err(status)) = asked {
        declare::explain_part(&status, &declared, &mut mistakes);
    }
    Err(mistakes.check().expect_err("there is one at least"))
}

/// What the control plane says to files of which it isn't told all. Nobody needs to hear why it can't
/// be asked: there are mistakes without it.
async fn try_out(context: Option<PathBuf>, declared: &Declared) -> Result<(), Status> {
    let resources = declared.resources();
    if resources.is_empty() {
        return Ok(());
    }
    let Ok(mut client) = client::connect(context).await else { return Ok(()) };
    client.admin.apply(request(declared, &resources, true)).await.map(drop)
}

fn request(declared: &Declared, resources: &[Resource], dry_run: bool) -> ApplyRequest {
    ApplyRequest {
        request_id: request_id(),
        resources: resources.to_vec(),
        expectations: declared.expectations(),
        dry_run,
    }
}

/// Asks to apply what the files declare; what is wrong with it is told with its place.
pub(super) async fn ask(
    client: &mut Client,
    declared: &Declared,
    resources: &[Resource],
    dry_run: bool,
) -> Result<ApplyResponse, Failure> {
    match client.admin.apply(request(declared, resources, dry_run)).await {
        Ok(response) => Ok(response.into_inner()),
        Err(status) => Err(declare::explain(status, declared)),
    }
}

#[cfg(test)]
mod tests {
    use wattle_proto::admin::{self, WaitAppliedResponse, applied::Action};

    use super::*;
    use crate::console::tests::console;

    fn applied(actions: &[(Action, u64)]) -> Applied {
        let one = |(action, revision): &(Action, u64)| admin::Applied {
            action: (*action).into(),
            after: Some(Resource { revision: Some(*revision), ..Resource::default() }),
            ..Default::default()
        };
        let applied = actions.iter().map(one).collect();
        let response = ApplyResponse { revision: 9, applied, ..Default::default() };
        Applied::new(response, &vec![Resource::default(); actions.len()], false)
    }

    #[test]
    fn what_was_done_is_told_where_waiting_for_it_failed() {
        let lost = || Err(Failure::Failed("lost".into()));
        let (mut json, out, _) = console(Format::Json, None);
        let made = applied(&[(Action::Created, 9)]);
        assert_eq!(report(made, lost(), &mut json), Err(Failure::Failed("lost".into())));
        let told: serde_json::Value = serde_json::from_str(&out.text()).unwrap();
        assert_eq!((&told["revision"], &told["progress"]), (&9.into(), &serde_json::Value::Null));

        let progress = || WaitAppliedResponse {
            revision: 9,
            concerned: 1,
            pending_count: 1,
            ..Default::default()
        };
        let waited = || Ok(Some(progress().try_into().unwrap()));
        for format in [Format::Json, Format::Table] {
            let (mut console, out, _) = console(format, None);
            let behind = report(applied(&[(Action::Created, 9)]), waited(), &mut console);
            assert!(matches!(behind, Err(Failure::Failed(why)) if why.contains("1 of 1")));
            assert!(out.text().contains("concerned"), "{}", out.text());
        }
    }

    #[test]
    fn what_is_so_already_is_waited_for_since_it_became_so() {
        let since = |actions: &[_]| applied(actions).since();
        assert_eq!(since(&[(Action::Unchanged, 4), (Action::Unchanged, 6)]), Some(6));
        assert_eq!(since(&[(Action::Unchanged, 4), (Action::Updated, 9)]), Some(9));
        assert_eq!(since(&[]), None);
    }
}
