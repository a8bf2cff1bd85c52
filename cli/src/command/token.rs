//! `wattle token …`.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use clap::{Args, Subcommand};
use serde::Serialize;
use wattle_model::Labels;
use wattle_proto::{
    admin::{CreateJoinTokenRequest, ListJoinTokensRequest, RevokeJoinTokenRequest},
    record::labels_map,
};

use super::{PAGE, all_pages};
use crate::{
    args::Format,
    client::{Client, request_id},
    console::Console,
    failure::Failure,
    shape::{self, JoinToken, Revised},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a token and print it, alone, on stdout
    Create(Create),
    /// Show tokens; their secrets are shown once, when they are made
    List {
        /// Only tokens of this network
        #[arg(short, long)]
        network: Option<String>,
    },
    /// End a token: nobody enrols with it any more, and nodes that did stay
    Revoke {
        /// The token's id, as `wattle token list` shows it
        #[arg(value_parser = super::hex)]
        id: Bytes,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Whoever has the token can enrol a machine, so hand it over as you would a password: through a file \
or a pipe, not on a command line, where `ps` shows it.

Examples:
  wattle token create --label site=fra --uses 20 --ttl 1h > token
  wattle token create --name db-1 | ssh db-1 'wattle-agent join -'")]
pub(crate) struct Create {
    /// The network that machines join with it
    #[arg(short, long, default_value = "default")]
    network: String,
    /// A label that the nodes will have; may be given again
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// How many machines may join with it; 0: any number
    #[arg(long, default_value_t = 1)]
    uses: u32,
    /// How long it is good for, such as 90s, 24h or 7days
    #[arg(long, default_value = "24h", value_parser = super::duration)]
    ttl: Duration,
    /// The name that the node will have; then it has one use
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,
}

impl Create {
    fn labels(&self) -> Result<BTreeMap<String, String>, Failure> {
        let labels = Labels::from_texts(&self.labels);
        labels.map(|labels| labels_map(&labels)).map_err(|error| Failure::Usage(error.to_string()))
    }
}

/// What a program is told of a new token.
#[derive(Debug, Serialize)]
struct Created {
    token: String,
    join_token: JoinToken,
    revision: u64,
}

pub(crate) async fn run(
    client: &mut Client,
    command: Command,
    console: &mut Console,
) -> Result<(), Failure> {
    match command {
        Command::Create(args) => create(client, args, console).await,
        Command::List { network } => list(client, network.unwrap_or_default(), console).await,
        Command::Revoke { id } => {
            let request = RevokeJoinTokenRequest { request_id: request_id(), id };
            let revision = client.admin.revoke_join_token(request).await?.into_inner().revision;
            console.done(&Revised { revision }, revision, "join token revoked")
        }
    }
}

async fn create(client: &mut Client, args: Create, console: &mut Console) -> Result<(), Failure> {
    let request = CreateJoinTokenRequest {
        request_id: request_id(),
        labels: args.labels()?,
        network: args.network,
        node_name: args.name,
        max_uses: Some(args.uses),
        time_to_live: Some(super::message(args.ttl)),
    };
    let response = client.admin.create_join_token(request).await?.into_inner();
    let join_token: JoinToken = shape::present("join_token", response.join_token)?;
    let created = Created { token: response.token, join_token, revision: response.revision };
    print(&created, console)
}

fn print(created: &Created, console: &mut Console) -> Result<(), Failure> {
    match console.format() {
        Format::Json | Format::Yaml => console.json(created),
        Format::Table => {
            console.explain(&created.join_token.terms());
            console.line(&created.token)
        }
    }
}

async fn list(client: &mut Client, network: String, console: &mut Console) -> Result<(), Failure> {
    let tokens = all_pages(async |page_token| {
        let network = network.clone();
        let request = ListJoinTokensRequest { network, page_size: PAGE, page_token };
        let page = client.admin.list_join_tokens(request).await?.into_inner();
        Ok((page.join_tokens, page.next_page_token))
    });
    let tokens: Vec<JoinToken> = shape::all(tokens.await?)?;
    console.list(&tokens)
}

#[cfg(test)]
mod tests {
    use wattle_proto::admin;

    use super::*;
    use crate::console::tests::console;

    fn created() -> Created {
        let message = admin::JoinToken { network: "default".into(), ..Default::default() };
        let join_token = message.try_into().unwrap();
        Created { token: "wattle1_secret".into(), join_token, revision: 5 }
    }

    #[test]
    fn stdout_holds_the_token_alone() {
        for (reader, explained) in [(Some(""), true), (None, false)] {
            let (mut console, out, err) = console(Format::Table, reader);
            print(&created(), &mut console).unwrap();
            assert_eq!(out.text(), "wattle1_secret\n");
            assert_eq!(err.text().starts_with("Join token"), explained);
            assert!(!err.text().contains("secret"));
        }
    }

    #[test]
    fn a_program_gets_an_object() {
        let (mut console, out, _) = console(Format::Json, None);
        print(&created(), &mut console).unwrap();
        let json: serde_json::Value = serde_json::from_str(&out.text()).unwrap();
        assert_eq!((&json["token"], &json["revision"]), (&"wattle1_secret".into(), &5.into()));
        assert_eq!(json["join_token"]["network"], "default");
    }
}
