//! The command line: what each subcommand takes, as checked values. Every flag has an environment
//! variable, for units and images.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use ipnet::IpNet;
use wattle_model::{Endpoint, JoinToken, NodeName, PrivateKey};
use wattle_runtime::telemetry::LogFormat;
use zeroize::Zeroizing;

use crate::{
    kernel::{DataPlaneChoice, Place},
    reconcile::Wishes,
};

/// Makes this machine a node of a Wattle network and keeps its WireGuard device as the control
/// plane says.
#[derive(Debug, Parser)]
#[command(name = "wattle-agent", version, propagate_version = true)]
pub struct Config {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How log lines look on stderr: text or json. WATTLE_LOG filters them, e.g. "debug".
    #[arg(long, env = "WATTLE_AGENT_LOG_FORMAT", default_value = "text", global = true)]
    pub log_format: LogFormat,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Enrol this machine with a join token, and exit.
    ///
    /// Checks that the control plane is the one the token was made for before it sends anything
    /// secret, and that the network's ranges don't overlap this machine's addresses and routes.
    /// Repeating it after a crash gives the same node.
    Join(JoinArgs),
    /// Run the agent: bring the mesh up from what was last known, then follow the control plane.
    ///
    /// With --token or --token-file it enrols first if this machine hasn't joined yet, which is
    /// what images and cloud-init want. Exits with status 3 when the node was deleted: it never
    /// enrols again by itself.
    Run(RunArgs),
    /// Ask the running agent how it stands.
    Status(StatusArgs),
    /// Delete this node, remove its interface, and forget its identity.
    Leave(LeaveArgs),
    /// Take away what the agent made on this machine, its interface, routes and rules, and keep its
    /// identity: `run` makes them again. For a machine whose agent is stopped or uninstalled, as
    /// the mesh outlives its agent.
    Down(DownArgs),
}

/// Where this agent keeps what it knows.
#[derive(Debug, Clone, Args)]
pub struct StateArgs {
    /// The folder of this machine's identity and of the last set of peers it had.
    #[arg(long, env = "WATTLE_AGENT_STATE_DIR", default_value = "/var/lib/wattle/agent")]
    pub state_dir: PathBuf,
    /// The running agent's socket [default: agent.sock in the state directory].
    #[arg(long, env = "WATTLE_AGENT_SOCKET")]
    pub socket: Option<PathBuf>,
}

impl StateArgs {
    /// Where the running agent answers.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.state_dir.join("agent.sock"))
    }
}

/// This machine's WireGuard.
#[derive(Debug, Clone, Args)]
pub struct DeviceArgs {
    /// The WireGuard interface.
    #[arg(long, env = "WATTLE_AGENT_INTERFACE", default_value = "wattle0")]
    pub interface: String,
    /// auto takes the kernel's WireGuard, and a device inside the agent only where there is none.
    #[arg(long, env = "WATTLE_AGENT_DATAPLANE", default_value = "auto")]
    pub dataplane: DataPlaneChoice,
    /// The UDP port that WireGuard listens on; 0 lets it choose one.
    #[arg(long, env = "WATTLE_AGENT_LISTEN_PORT", default_value_t = 51820)]
    pub listen_port: u16,
    /// The link's MTU, whatever the network's is [default: the network's; where it has none, the
    /// underlay's, less the 60 or 80 bytes that WireGuard adds].
    #[arg(long, env = "WATTLE_AGENT_MTU", value_parser = value_parser!(u32).range(576..=65_455))]
    pub mtu: Option<u32>,
    /// The mark on the tunnel's own packets, and the number of the interface's own routing table,
    /// which is used for default routes alone. Agents on one machine need different ones.
    #[arg(
        long = "fwmark",
        env = "WATTLE_AGENT_FWMARK",
        value_name = "NUMBER",
        default_value = "0x5747",
        value_parser = mark
    )]
    pub mark: u32,
    /// Send what goes to PREFIX through a node, by its name; repeat it for several.
    ///
    /// For networks behind a node, or 0.0.0.0/0 and ::/0 for everything. The node has to forward
    /// packets, and to translate addresses where what lies behind it doesn't know the way back.
    #[arg(
        long = "route",
        env = "WATTLE_AGENT_ROUTE",
        value_name = "PREFIX=NODE",
        value_delimiter = ',',
        value_parser = via
    )]
    pub routes: Vec<(IpNet, NodeName)>,
    /// Where other nodes reach this machine, as ADDRESS:PORT; repeat it for several.
    ///
    /// Replaces what the agent would tell them by itself: the machine's own addresses. The address
    /// that the control plane sees is added to either.
    #[arg(
        long = "endpoint",
        env = "WATTLE_AGENT_ENDPOINT",
        value_name = "ADDRESS:PORT",
        value_delimiter = ',',
        value_parser = endpoint
    )]
    pub endpoints: Vec<Endpoint>,
}

impl DeviceArgs {
    /// The device to open.
    pub(crate) fn place(&self, private_key: &PrivateKey, other_keys: &[PrivateKey]) -> Place {
        Place {
            interface: self.interface.clone(),
            private_key: private_key.clone(),
            other_keys: other_keys.to_vec(),
            listen_port: self.listen_port,
            mark: self.mark,
        }
    }

    /// What the device should be, as far as this machine's administrator decides.
    pub(crate) fn wishes(&self) -> anyhow::Result<Wishes> {
        let mut via = BTreeMap::new();
        for (prefix, node) in &self.routes {
            if let Some(before) = via.insert(*prefix, node.clone()) {
                bail!("--route {prefix} goes through {before} and through {node}: which one?");
            }
        }
        Ok(Wishes {
            interface: self.interface.clone(),
            listen_port: self.listen_port,
            mark: self.mark,
            mtu: self.mtu,
            via,
        })
    }
}

/// What an enrolment takes besides the token.
#[derive(Debug, Clone, Args)]
pub struct NameArgs {
    /// This node's name in the network, unless the token fixes another [default: the host's name].
    #[arg(long, env = "WATTLE_AGENT_NAME")]
    pub name: Option<NodeName>,
}

/// `join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The join token; - reads it from standard input.
    ///
    /// Arguments can be read by every user of this machine: rather use - or --token-file.
    pub token: Option<TokenText>,
    /// A file that holds the join token; - reads it from standard input.
    #[arg(long, env = "WATTLE_AGENT_TOKEN_FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub state: StateArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub device: DeviceArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub name: NameArgs,
}

/// `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A join token, for a machine that hasn't joined yet. Arguments can be read by every user of
    /// this machine: rather use --token-file.
    #[arg(long)]
    pub token: Option<TokenText>,
    /// A file that holds the join token; - reads it from standard input.
    #[arg(long, env = "WATTLE_AGENT_TOKEN_FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub state: StateArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub device: DeviceArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub name: NameArgs,
}

/// `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// How to print it.
    #[arg(short, long, default_value = "table")]
    pub output: Output,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub state: StateArgs,
}

/// `down`.
#[derive(Debug, Args)]
pub struct DownArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub state: StateArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub made: MadeArgs,
}

/// `leave`.
#[derive(Debug, Args)]
pub struct LeaveArgs {
    /// Forget the identity even if the control plane can't be reached. The node stays in the
    /// network's list then, until an operator deletes it.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub state: StateArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub made: MadeArgs,
}

/// What the agent made on this machine, as it was told to.
#[derive(Debug, Args)]
pub struct MadeArgs {
    /// The WireGuard interface to remove.
    #[arg(long, env = "WATTLE_AGENT_INTERFACE", default_value = "wattle0")]
    pub interface: String,
    /// The data plane that the agent ran with.
    #[arg(long, env = "WATTLE_AGENT_DATAPLANE", default_value = "auto")]
    pub dataplane: DataPlaneChoice,
    /// The mark that the agent ran with, which tells its rules.
    #[arg(
        long = "fwmark",
        env = "WATTLE_AGENT_FWMARK",
        value_name = "NUMBER",
        default_value = "0x5747",
        value_parser = mark
    )]
    pub mark: u32,
}

impl MadeArgs {
    pub(crate) fn place(&self, private_key: &PrivateKey, other_keys: &[PrivateKey]) -> Place {
        Place {
            interface: self.interface.clone(),
            private_key: private_key.clone(),
            other_keys: other_keys.to_vec(),
            listen_port: 0,
            mark: self.mark,
        }
    }
}

/// A join token as somebody typed it. Its `Debug` doesn't show it.
#[derive(Clone)]
pub struct TokenText(Zeroizing<String>);

impl FromStr for TokenText {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenText(redacted)")
    }
}

/// How `status` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// The join token from wherever it was given; `None` where it wasn't.
pub(crate) fn token(
    argument: Option<TokenText>,
    file: Option<&Path>,
) -> anyhow::Result<Option<JoinToken>> {
    let stdin = || io::read_to_string(io::stdin()).context("reading the token from stdin");
    let text = match (argument, file) {
        (None, None) => return Ok(None),
        (Some(TokenText(text)), _) if *text != "-" => text,
        (None, Some(path)) if path != Path::new("-") => fs::read_to_string(path)
            .with_context(|| format!("reading the token from {}", path.display()))?
            .into(),
        _ => stdin()?.into(),
    };
    if text.trim().is_empty() {
        bail!("the join token is empty");
    }
    Ok(Some(text.parse()?))
}

fn mark(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    // Up to 255 tables have meanings of their own.
    let usable = number.ok().filter(|number| *number > 255);
    usable.ok_or_else(|| "expected a number above 255, such as 0x5747".to_owned())
}

fn via(text: &str) -> Result<(IpNet, NodeName), String> {
    let expected =
        || "expected a prefix and a node's name, such as 172.20.0.0/16=gateway".to_owned();
    let (prefix, node) = text.split_once('=').ok_or_else(expected)?;
    let prefix: IpNet = prefix.parse().map_err(|_| expected())?;
    if prefix != prefix.trunc() {
        return Err(format!(
            "{prefix} has bits behind its length: did you mean {}?",
            prefix.trunc()
        ));
    }
    Ok((prefix, node.parse().map_err(|error| format!("{node:?}: {error}"))?))
}

fn endpoint(text: &str) -> Result<Endpoint, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "expected an IP address and a port, such as 192.0.2.1:51820".to_owned())?;
    Endpoint::new(address).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Config::command().debug_assert();
    }

    #[test]
    fn mistakes_say_what_is_expected() {
        let parse = |flag: &str, value: &str| {
            let error = Config::try_parse_from(["wattle-agent", "run", flag, value]).unwrap_err();
            error.to_string()
        };
        assert!(parse("--endpoint", "example.org").contains("192.0.2.1:51820"));
        assert!(parse("--dataplane", "magic").contains("auto, kernel or userspace"));
        assert!(parse("--name", "Not_A_Name").contains("a-z, 0-9"));
        assert!(parse("--fwmark", "254").contains("above 255"));
        assert!(parse("--route", "172.20.0.0/16").contains("172.20.0.0/16=gateway"));
        assert!(parse("--route", "172.20.0.1/16=a").contains("did you mean 172.20.0.0/16?"));
    }

    #[test]
    fn a_token_is_not_repeated() {
        for command in [["join", "wattle1_c2VjcmV0"], ["run", "--token=wattle1_c2VjcmV0"]] {
            let line = ["wattle-agent"].into_iter().chain(command);
            let config = Config::try_parse_from(line).unwrap();
            assert!(!format!("{config:?}").contains("c2VjcmV0"), "{config:?}");
        }
        let error = token("wattle1_c2VjcmV0".parse().ok(), None).unwrap_err();
        assert!(!format!("{error:?}").contains("c2VjcmV0"), "{error:?}");
    }
}
