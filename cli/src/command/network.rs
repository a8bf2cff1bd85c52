//! `wattle network …`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use wattle_model::Mtu;
use wattle_proto::admin::{
    self, CreateNetworkRequest, DeleteNetworkRequest, GetNetworkRequest, ListNetworksRequest,
    RotateNetworkSecretRequest, UpdateNetworkRequest,
};

use super::{PAGE, all_pages};
use crate::{
    client::{Client, request_id},
    console::Console,
    failure::Failure,
    shape::{self, Network, Revised},
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show all networks
    List,
    /// Show one network
    Get {
        /// The network's name
        name: String,
    },
    /// Make a network
    Create(Create),
    /// Change a network's mode, MTU, its keys' options, or its ranges while it has no nodes
    Update(Update),
    /// Give a network that has preshared keys another secret to derive them of
    #[command(after_help = "\
Each pair of nodes takes it over once both have it, within seconds where their agents are connected, and \
no packet is lost: a session goes on with the key that it was made with, for three minutes at most. \
`wattle network get` says how many nodes hold it. The secret before it is forgotten once no node goes by \
it any more; until then the next one is refused.")]
    RotateSecret {
        /// The network's name
        name: String,
        /// Also while nodes that aren't connected go by the secret before the present one: whoever has
        /// forgotten that begins no session with them before they have connected
        #[arg(long)]
        force: bool,
    },
    /// Delete a network that has no nodes; its join tokens go with it
    Delete {
        /// The network's name
        name: String,
        /// Don't ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  wattle network create lab                       (an IPv6 range is chosen)
  wattle network create lab --ipv4-range 10.91.0.0/16 --ipv6-range fd12:3456:789a::/64")]
pub(crate) struct Create {
    /// The network's name
    name: String,
    /// Addresses of its nodes, such as 10.91.0.0/16
    #[arg(long, value_name = "RANGE", default_value = "", hide_default_value = true)]
    ipv4_range: String,
    /// Addresses of its nodes, such as fd12:3456:789a::/64
    #[arg(long, value_name = "RANGE", default_value = "", hide_default_value = true)]
    ipv6_range: String,
    /// Who sees whom where no policy says so
    #[arg(long, value_enum, default_value = "mesh")]
    mode: Mode,
    /// Change each node's WireGuard key before it is older than this: 1h to ten years, such as 30d. None:
    /// only when `wattle node rotate-key` asks for it
    #[arg(long, value_name = "AGE", value_parser = super::duration)]
    key_rotation: Option<Duration>,
    /// What its nodes' links carry, in bytes: 576 to 65455, with IPv6 1280 at least. auto: what the path to
    /// a node's peers carries. A node's own `wattle-agent --mtu` counts more
    #[arg(long, value_name = "BYTES|auto", default_value = "auto", value_parser = mtu)]
    mtu: u32,
    /// Whether each pair of nodes has a preshared key, too, which both derive of a secret of the network's
    #[arg(long, value_enum, default_value = "off")]
    preshared_keys: Switch,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  wattle network update lab --mode closed
  wattle network update lab --key-rotation 30d
  wattle network update lab --mtu 1380            (--mtu auto: the path's again)
  wattle network update lab --preshared-keys on   (packets go on meanwhile)
  wattle network update lab --ipv4-range ''       (no IPv4 any more)")]
pub(crate) struct Update {
    /// The network's name
    name: String,
    /// Another range; '' for none
    #[arg(long, value_name = "RANGE")]
    ipv4_range: Option<String>,
    /// Another range; '' for none
    #[arg(long, value_name = "RANGE")]
    ipv6_range: Option<String>,
    /// Who sees whom where no policy says so
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// How old nodes' WireGuard keys may become: 1h to ten years, such as 30d; 0s: as old as they like.
    /// Each node's changes at a moment of its own in the last tenth of that time
    #[arg(long, value_name = "AGE", value_parser = super::duration)]
    key_rotation: Option<Duration>,
    /// What its nodes' links carry, in bytes: 576 to 65455, with IPv6 1280 at least. auto: what the path to
    /// a node's peers carries. Links are changed as they are: nothing is lost but what was too large. A
    /// node's own `wattle-agent --mtu` counts more
    #[arg(long, value_name = "BYTES|auto", value_parser = mtu)]
    mtu: Option<u32>,
    /// Whether each pair of nodes has a preshared key, too. Nodes take them over, or give them up, as they
    /// hear of it, pair by pair
    #[arg(long, value_enum)]
    preshared_keys: Option<Switch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    /// Each pair has one
    On,
    /// Nobody has any
    Off,
}

/// Who sees whom where no policy says so.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    /// Everybody sees everybody
    Mesh,
    /// Nobody sees anybody
    Closed,
}

impl From<Mode> for admin::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Mesh => Self::Mesh,
            Mode::Closed => Self::Closed,
        }
    }
}

/// A number of bytes; 0 for the path's.
fn mtu(text: &str) -> Result<u32, String> {
    if text == "auto" {
        return Ok(0);
    }
    let bytes = text.parse::<u32>().ok().filter(|bytes| *bytes != 0);
    let bytes = bytes.ok_or("expected auto or a number of bytes, such as 1380")?;
    Mtu::wished(bytes).map(|_| bytes).map_err(|error| error.to_string())
}

/// What a program is told of a change: the network as it is now.
#[derive(Debug, Serialize)]
struct Changed {
    network: Network,
    revision: u64,
}

pub(crate) async fn run(
    client: &mut Client,
    command: Command,
    console: &mut Console,
) -> Result<(), Failure> {
    match command {
        Command::List => {
            let networks: Vec<Network> = shape::all(list(client).await?)?;
            console.list(&networks)
        }
        Command::Get { name } => {
            let response = client.admin.get_network(GetNetworkRequest { name }).await?;
            let network: Network = shape::present("network", response.into_inner().network)?;
            console.sheet(&network)
        }
        Command::Create(args) => create(client, args, console).await,
        Command::Update(args) => update(client, args, console).await,
        Command::RotateSecret { name, force } => rotate_secret(client, name, force, console).await,
        Command::Delete { name, yes } => {
            console.confirm(yes, &format!("Delete network {name} and its join tokens?"))?;
            let request = DeleteNetworkRequest { request_id: request_id(), name: name.clone() };
            let revision = client.admin.delete_network(request).await?.into_inner().revision;
            console.done(&Revised { revision }, revision, &format!("network {name} deleted"))
        }
    }
}

/// All networks.
pub(super) async fn list(client: &mut Client) -> Result<Vec<admin::Network>, Failure> {
    let networks = all_pages(async |page_token| {
        let request = ListNetworksRequest { page_size: PAGE, page_token };
        let page = client.admin.list_networks(request).await?.into_inner();
        Ok((page.networks, page.next_page_token))
    });
    Ok(networks.await?)
}

async fn create(client: &mut Client, args: Create, console: &mut Console) -> Result<(), Failure> {
    let request = CreateNetworkRequest {
        request_id: request_id(),
        name: args.name,
        ipv4_range: args.ipv4_range,
        ipv6_range: args.ipv6_range,
        mode: admin::Mode::from(args.mode).into(),
        key_rotation: args.key_rotation.map(super::message),
        mtu: args.mtu,
        preshared_keys: args.preshared_keys == Switch::On,
    };
    let response = client.admin.create_network(request).await?.into_inner();
    let network: Network = shape::present("network", response.network)?;
    let said = format!("network {} created", network.name);
    console.done(&Changed { network, revision: response.revision }, response.revision, &said)
}

async fn update(client: &mut Client, args: Update, console: &mut Console) -> Result<(), Failure> {
    let ranges = args.ipv4_range.is_some() || args.ipv6_range.is_some();
    let keys = args.key_rotation.is_some() || args.preshared_keys.is_some();
    if !ranges && !keys && args.mode.is_none() && args.mtu.is_none() {
        return Err(Failure::Usage(
            "nothing to change: say --mode, --key-rotation, --preshared-keys, --mtu, --ipv4-range or \
             --ipv6-range"
                .into(),
        ));
    }
    let request = UpdateNetworkRequest {
        request_id: request_id(),
        name: args.name,
        ipv4_range: args.ipv4_range,
        ipv6_range: args.ipv6_range,
        mode: args.mode.map(admin::Mode::from).unwrap_or_default().into(),
        key_rotation: args.key_rotation.map(super::message),
        mtu: args.mtu,
        preshared_keys: args.preshared_keys.map(|switch| switch == Switch::On),
    };
    let response = client.admin.update_network(request).await?.into_inner();
    let network: Network = shape::present("network", response.network)?;
    let said = format!("network {} updated", network.name);
    console.done(&Changed { network, revision: response.revision }, response.revision, &said)
}

async fn rotate_secret(
    client: &mut Client,
    name: String,
    force: bool,
    console: &mut Console,
) -> Result<(), Failure> {
    let request = RotateNetworkSecretRequest { request_id: request_id(), name, force };
    let response = client.admin.rotate_network_secret(request).await?.into_inner();
    let network: Network = shape::present("network", response.network)?;
    let generation = network.secret.as_ref().map_or(0, |secret| secret.generation);
    let said = format!("network {} has another secret, generation {generation}", network.name);
    console.done(&Changed { network, revision: response.revision }, response.revision, &said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mtu_is_bytes_or_the_path_s() {
        assert_eq!((mtu("auto"), mtu("1380")), (Ok(0), Ok(1380)));
        for text in ["0", "", "1380B", "-1", "Auto"] {
            assert!(mtu(text).unwrap_err().starts_with("expected auto or a number"), "{text}");
        }
        assert_eq!(mtu("70000"), Err("576 to 65455 bytes, got 70000".into()));
    }
}
