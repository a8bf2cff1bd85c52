//! `wattle policy …`.

use clap::Subcommand;
use wattle_proto::admin::{
    self, ApplyRequest, ApplyResponse, GetPolicyRequest, ListPoliciesRequest, PolicySpec, Resource,
    resource::Kind,
};

use super::{PAGE, all_pages};
use crate::{
    client::{Client, request_id},
    console::Console,
    failure::Failure,
    shape::{self, Policy, Revised},
    text,
};

#[derive(Debug, Subcommand)]
#[command(after_help = "\
Policies are made and changed with `wattle apply -f FILE`; see `wattle apply --help`.

Examples:
  wattle policy list --network default
  wattle policy get web-to-db
  wattle policy delete web-to-db")]
pub(crate) enum Command {
    /// Show policies: which nodes they let see which
    List {
        /// Only policies of this network
        #[arg(short, long)]
        network: Option<String>,
    },
    /// Show one policy
    Get(Target),
    /// Delete a policy: whom only it let see each other lose sight of each other at once
    Delete {
        #[command(flatten)]
        target: Target,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// The policy's name
    name: String,
    /// The network it is in
    #[arg(short, long, default_value = "default")]
    network: String,
}

pub(crate) async fn run(
    client: &mut Client,
    command: Command,
    console: &mut Console,
) -> Result<(), Failure> {
    match command {
        Command::List { network } => {
            let policies = list(client, network.unwrap_or_default()).await?;
            console.list::<Policy>(&shape::all(policies)?)
        }
        Command::Get(Target { name, network }) => {
            let policy: Policy = shape::present("policy", get(client, network, name).await?)?;
            console.sheet(&policy)
        }
        Command::Delete { target, yes } => delete(client, target, yes, console).await,
    }
}

/// All policies; of one network where it is named.
pub(super) async fn list(
    client: &mut Client,
    network: String,
) -> Result<Vec<admin::Policy>, Failure> {
    let policies = all_pages(async |page_token| {
        let request = ListPoliciesRequest { network: network.clone(), page_size: PAGE, page_token };
        let page = client.admin.list_policies(request).await?.into_inner();
        Ok((page.policies, page.next_page_token))
    });
    Ok(policies.await?)
}

pub(super) async fn get(
    client: &mut Client,
    network: String,
    name: String,
) -> Result<Option<admin::Policy>, Failure> {
    let request = GetPolicyRequest { network, name };
    Ok(client.admin.get_policy(request).await?.into_inner().policy)
}

async fn delete(
    client: &mut Client,
    Target { name, network }: Target,
    yes: bool,
    console: &mut Console,
) -> Result<(), Failure> {
    // Read first, so that the question says what would go, and a name without a policy is told.
    let policy: Policy = shape::present("policy", get(client, network, name).await?)?;
    let (from, to) = (shape::side(&policy.from), shape::side(&policy.to));
    let name = format!("{}/{}", policy.network, policy.name);
    let spec = PolicySpec { network: policy.network, name: policy.name, ..Default::default() };
    let resource =
        Resource { kind: Some(Kind::Policy(spec)), revision: Some(policy.revision), delete: true };
    if !yes {
        let lost = cease(&apply(client, &resource, true).await?);
        let question = format!(
            "Delete policy {name}, which lets {from} and {to} see each other? {lost} would cease to."
        );
        console.confirm(yes, &question)?;
    }
    let response = apply(client, &resource, false).await?;
    let (revision, lost) = (response.revision, cease(&response));
    let said = format!("policy {name} deleted: {lost} ceased to see each other");
    console.done(&Revised { revision }, revision, &said)
}

async fn apply(
    client: &mut Client,
    resource: &Resource,
    dry_run: bool,
) -> Result<ApplyResponse, Failure> {
    let (request_id, resources) = (request_id(), vec![resource.clone()]);
    let request = ApplyRequest { request_id, resources, dry_run, ..Default::default() };
    Ok(client.admin.apply(request).await?.into_inner())
}

/// How many pairs lose sight of each other.
fn cease(response: &ApplyResponse) -> String {
    match response.sight.iter().map(|sight| sight.pairs_lost).sum() {
        0 => "no nodes".into(),
        1 => "1 pair of nodes".into(),
        pairs => format!("{} pairs of nodes", text::count(pairs)),
    }
}
