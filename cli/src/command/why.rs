//! `wattle why A B`.

use wattle_proto::admin::{ExplainRequest, NodeRef};

use crate::{args::Format, client::Client, console::Console, failure::Failure, shape::Explained};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Says whether policy lets the two see each other and which one does, what each one's agent has \
applied of it, and, as far as the agents have told, the endpoint that each uses for the other and \
when they last shook hands.

Example:
  wattle why web-1 db-1")]
pub(crate) struct Args {
    /// A node's name or id
    #[arg(value_name = "A")]
    node: String,
    /// Another node's name or id
    #[arg(value_name = "B")]
    other: String,
    /// The network they are in
    #[arg(short, long, default_value = "default")]
    network: String,
}

pub(crate) async fn run(
    client: &mut Client,
    args: &Args,
    console: &mut Console,
) -> Result<(), Failure> {
    let node = |node: &String| Some(NodeRef { network: args.network.clone(), node: node.clone() });
    let request = ExplainRequest { node: node(&args.node), other: node(&args.other) };
    let response = client.admin.explain(request).await?.into_inner();
    let explained = Explained::new(response, wattle_runtime::clock::now())?;
    explained.silent_replicas.iter().for_each(|silent| console.warn(silent));
    match console.format() {
        Format::Table => console.line(&explained.screen()),
        Format::Json | Format::Yaml => console.json(&explained),
    }
}
