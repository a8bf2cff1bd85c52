//! `wattle node …`.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, Subcommand};
use serde::Serialize;
use wattle_proto::{
    Invalid as _,
    admin::{self, DeleteNodeRequest, GetNodeRequest, LabelNodeRequest, ListNodesRequest, NodeRef},
};

use super::{PAGE, all_pages, rotate};
use crate::{
    client::{Client, request_id},
    console::Console,
    failure::Failure,
    shape::{self, Node, NodeInNetwork, Revised, Silent},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show nodes: what they are, whether their agents are online and how far they are
    List(List),
    /// Show all that is known of one node
    Get(Target),
    /// Set and remove labels
    Label(Label),
    /// Have nodes change their WireGuard keys, without a break in what they do
    RotateKey(rotate::Args),
    /// Delete a node: its peers drop it at once, and it can't come back without a new token
    Delete(Delete),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Columns:
  ONLINE   the agent is connected; \"displaced\": another machine uses the same identity
  APPLIED  the last revision that the agent has applied
  LAG      how old the oldest change is that it hasn't; 0: none

Examples:
  wattle node list --network default
  wattle node list --selector 'site in (fra,ams),role=db' -o json")]
pub(crate) struct List {
    /// Only nodes of this network
    #[arg(short, long)]
    network: Option<String>,
    /// Only nodes with these labels: site=fra, role!=db, site in (fra,ams), gpu, !gpu; or id=ID,
    /// or name=NAME where the node's token fixed its name
    #[arg(short = 'l', long, default_value = "", hide_default_value = true)]
    selector: String,
}

#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The node's name or id
    #[arg(value_name = "NODE")]
    node: String,
    /// The network it is in
    #[arg(short, long, default_value = "default")]
    network: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  wattle node label web-1 site=fra role=web     (set)
  wattle node label web-1 role-                 (remove)")]
pub(crate) struct Label {
    #[command(flatten)]
    target: Target,
    /// KEY=VALUE sets a label, KEY- removes it
    #[arg(required = true, value_name = "KEY=VALUE|KEY-")]
    labels: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    target: Target,
    /// Don't ask
    #[arg(long)]
    yes: bool,
}

impl From<Target> for NodeRef {
    fn from(target: Target) -> Self {
        Self { network: target.network, node: target.node }
    }
}

/// What a program is told of a change: the node as it is now.
#[derive(Debug, Serialize)]
struct Changed {
    node: Node,
    revision: u64,
}

pub(crate) async fn run(
    client: &mut Client,
    command: Command,
    console: &mut Console,
) -> Result<(), Failure> {
    match command {
        Command::List(List { network, selector }) => {
            let nodes = list(client, network.unwrap_or_default(), selector, console).await?;
            show(shape::all(nodes)?, console)
        }
        Command::Get(target) => {
            let node: Node = get(client, target.into(), console).await?.try_into()?;
            console.sheet(&node)
        }
        Command::Label(args) => label(client, args, console).await,
        Command::RotateKey(args) => rotate::run(client, args, console).await,
        Command::Delete(args) => delete(client, args, console).await,
    }
}

/// All nodes that a selector matches; of one network where it is named.
pub(super) async fn list(
    client: &mut Client,
    network: String,
    selector: String,
    console: &mut Console,
) -> Result<Vec<admin::Node>, Failure> {
    let mut silent = BTreeMap::new();
    let nodes = all_pages(async |page_token| {
        let (network, selector) = (network.clone(), selector.clone());
        let request = ListNodesRequest { network, page_size: PAGE, page_token, selector };
        let page = client.admin.list_nodes(request).await?.into_inner();
        silent.extend(page.silent_replicas.into_iter().map(|one| (one.id.clone(), one)));
        Ok((page.nodes, page.next_page_token))
    });
    let nodes = nodes.await?;
    silent.into_values().map(Silent::from).for_each(|silent| console.warn(&silent));
    Ok(nodes)
}

/// By network and name; the column of networks only where there are several.
pub(super) fn show(mut nodes: Vec<Node>, console: &mut Console) -> Result<(), Failure> {
    nodes.sort_by(|a, b| (&a.network, &a.name).cmp(&(&b.network, &b.name)));
    let networks: BTreeSet<_> = nodes.iter().map(|node| &node.network).collect();
    if networks.len() > 1 {
        let nodes: Vec<_> = nodes.into_iter().map(NodeInNetwork).collect();
        return console.list(&nodes);
    }
    console.list(&nodes)
}

/// One node.
pub(super) async fn get(
    client: &mut Client,
    node: NodeRef,
    console: &mut Console,
) -> Result<admin::Node, Failure> {
    let request = GetNodeRequest { node: Some(node) };
    let response = client.admin.get_node(request).await?.into_inner();
    Silent::all(response.silent_replicas).iter().for_each(|silent| console.warn(silent));
    Ok(response.node.field("node")?)
}

async fn label(client: &mut Client, args: Label, console: &mut Console) -> Result<(), Failure> {
    let (set, remove) = changes(&args.labels)?;
    let node = Some(args.target.into());
    let request = LabelNodeRequest { request_id: request_id(), node, set, remove };
    let response = client.admin.label_node(request).await?.into_inner();
    let node: Node = shape::present("node", response.node)?;
    let said = format!("node {} labelled", node.name);
    console.done(&Changed { node, revision: response.revision }, response.revision, &said)
}

/// `k=v` sets, `k-` removes, as kubectl has it.
fn changes(texts: &[String]) -> Result<(BTreeMap<String, String>, Vec<String>), Failure> {
    let (mut set, mut remove) = (BTreeMap::new(), BTreeSet::new());
    for text in texts {
        let key = match (text.split_once('='), text.strip_suffix('-')) {
            (Some((key, _)), _) | (None, Some(key)) => key,
            (None, None) => {
                return Err(Failure::Usage(format!(
                    "{text:?}: write KEY=VALUE to set a label, KEY- to remove it"
                )));
            }
        };
        if set.contains_key(key) || remove.contains(key) {
            return Err(Failure::Usage(format!("label {key} is given twice")));
        }
        match text.split_once('=') {
            Some((_, value)) => drop(set.insert(key.to_owned(), value.to_owned())),
            None => drop(remove.insert(key.to_owned())),
        }
    }
    Ok((set, remove.into_iter().collect()))
}

async fn delete(client: &mut Client, args: Delete, console: &mut Console) -> Result<(), Failure> {
    // Read first, so that the question says what would go; deleted by id, so that it is that.
    let node: Node = get(client, args.target.into(), console).await?.try_into()?;
    let question = format!(
        "Delete node {} ({}) of network {}? It can't come back without a new token.",
        node.name,
        node.addresses(),
        node.network
    );
    console.confirm(args.yes, &question)?;
    let target = NodeRef { network: node.network, node: node.id };
    let request = DeleteNodeRequest { request_id: request_id(), node: Some(target) };
    let revision = client.admin.delete_node(request).await?.into_inner().revision;
    console.done(&Revised { revision }, revision, &format!("node {} deleted", node.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str]) -> Result<(Vec<String>, Vec<String>), Failure> {
        let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
        let (set, remove) = changes(&texts)?;
        Ok((set.into_iter().map(|(key, value)| format!("{key}={value}")).collect(), remove))
    }

    #[test]
    fn labels_are_set_and_removed_as_kubectl_has_it() {
        let owned = |texts: &[&str]| -> Vec<String> {
            texts.iter().map(|text| (*text).to_owned()).collect()
        };
        assert_eq!(
            read(&["a=1", "b-", "c=", "d=x-"]),
            Ok((owned(&["a=1", "c=", "d=x-"]), owned(&["b"])))
        );
        for (texts, expected) in [
            (&["a"][..], "write KEY=VALUE"),
            (&["a=1", "a=2"], "label a is given twice"),
            (&["a=1", "a-"], "label a is given twice"),
            (&["a-", "a-"], "label a is given twice"),
        ] {
            let failure = read(texts).unwrap_err();
            let said = matches!(&failure, Failure::Usage(text) if text.contains(expected));
            assert!(said, "{texts:?}: {failure}");
        }
    }
}
