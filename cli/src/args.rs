//! The command line: global options and the commands. Each command's own arguments are in its file.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::command::{
    apply, diff, get, network, node, operator, policy, replica, token, wait, watch, why,
};

const ABOUT: &str = "Operate a Wattle control plane";

const LONG_ABOUT: &str = "\
Operate a Wattle control plane: its networks, nodes, policies, join tokens and operators.

A credential file says where the control plane is and who you are. The control plane wrote the \
first one, operator.json in its data folder, when it first started; `wattle operator create` makes \
one for each further person or program.";

const EXAMPLES: &str = "\
Examples:
  wattle status
  wattle token create --label site=fra --ttl 1h | ssh host 'wattle-agent join -'
  wattle node list --network default --selector site=fra
  wattle node label web-1 role=web old-label-
  wattle operator create ann --role operator --file ann.json
  wattle apply -f policies.yaml --dry-run
  wattle get all -o yaml > fleet.yaml
  wattle why web-1 db-1
  wattle wait 1042

Output:
  -o json is stable, made for programs. Ids are lower-case hex, addresses and endpoints text,
  WireGuard keys base64, times RFC 3339 in UTC, what isn't there is null. Lists are arrays. A change
  answers with an object: \"revision\" is the one that the change made (for `wattle wait`), beside it
  \"network\", \"node\", \"operator\" or \"join_token\" as it is now. `watch` prints one object a line,
  {\"revision\": N, \"changes\": [{\"kind\": \"put\", \"node\": {...}}]}. Fields are added, never renamed.
  -o yaml is for `get` alone: what it writes, `apply -f` reads.

Exit status:
  0  done
  1  not done, and stderr says why and what to do; of `diff`: there are differences
  2  the command line is wrong, or a question needs --yes; of `diff`: it couldn't be told
  141  nobody read all that was to be printed";

/// The command line of `wattle`.
#[derive(Debug, Parser)]
#[command(name = "wattle", version, about = ABOUT, long_about = LONG_ABOUT)]
#[command(after_help = "`wattle --help` shows examples.", after_long_help = EXAMPLES)]
pub struct Cli {
    /// How to print
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    pub(crate) output: Format,

    /// Your credential file
    ///
    /// Where neither this nor the variable is given: ~/.config/wattle/operator.json, then
    /// /var/lib/wattle/controlplane/operator.json where it can be read.
    #[arg(long, global = true, value_name = "FILE", env = "WATTLE_CONTEXT")]
    pub(crate) context: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs; see `wattle --help`
    Json,
    /// For `wattle apply`; only `wattle get` writes it
    Yaml,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show how the control plane and its agents are
    Status,
    /// Make networks, policies and labels what files say
    Apply(apply::Args),
    /// Show what applying files would change
    Diff(diff::Args),
    /// Show networks, policies and nodes, with -o yaml as files for `apply`
    Get(get::Args),
    /// Explain why two nodes see each other, or don't
    Why(why::Args),
    /// Networks: overlays with their own address ranges
    #[command(subcommand)]
    Network(network::Command),
    /// Nodes: machines in a network
    #[command(subcommand)]
    Node(node::Command),
    /// Policies: who sees whom in a closed network
    #[command(subcommand)]
    Policy(policy::Command),
    /// Join tokens: what a machine needs to become a node
    #[command(subcommand)]
    Token(token::Command),
    /// Operators: people and programs that may use this command
    #[command(subcommand)]
    Operator(operator::Command),
    /// Replicas: the processes that make up the control plane
    #[command(subcommand)]
    Replica(replica::Command),
    /// Print what changes, as it changes
    Watch(watch::Args),
    /// Wait until a revision is applied by every agent that it concerns
    Wait(wait::Args),
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(["wattle"].into_iter().chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_are_read() {
        for line in [
            "status",
            "-o json status",
            "status -o json --context /tmp/ann.json",
            "network list",
            "network get lab",
            "network create lab --ipv4-range 10.1.0.0/16 --ipv6-range fd00::/64 --mode closed",
            "network update lab --mode mesh --ipv4-range=",
            "network delete lab --yes",
            "node list --network lab -l site=fra",
            "node get web-1 -n lab",
            "node label web-1 a=1 b-",
            "node delete web-1 --yes",
            "token create --network lab --label a=1 --label b=2 --uses 0 --ttl 1h --name db-1",
            "token list --network lab",
            "token revoke 0102030405060708",
            "operator create ann --role viewer --ttl 30days --file ann.json",
            "operator list",
            "operator renew",
            "operator revoke ann --yes",
            "replica list -o json",
            "apply -f a.yaml -f - --dry-run",
            "apply --filename a.yaml --wait --timeout 1m -o json",
            "diff -f a.yaml",
            "get nodes db-1 -n lab -l role=db -o yaml",
            "get policy/a node/b",
            "policy list -n lab",
            "policy get a",
            "policy delete a -n lab --yes",
            "why web-1 db-1 -n lab",
            "watch --after 7 --network lab",
            "wait 7 --timeout 1m --all",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).unwrap_err());
        }
    }

    #[test]
    fn mistakes_are_usage_errors_that_name_the_argument() {
        for (line, expected) in [
            ("", "Usage: wattle"),
            ("nodes", "unrecognized subcommand 'nodes'"),
            ("status -o xml", "--output"),
            ("apply", "--filename"),
            ("apply -f a --dry-run --wait", "cannot be used with"),
            ("apply -f a --timeout 5s", "--wait"),
            ("get", "KIND"),
            ("why a", "<B>"),
            ("policy delete", "<NAME>"),
            ("node label web-1", "KEY=VALUE|KEY-"),
            ("token create --ttl soon", "write 90s, 24h or 7days"),
            ("token create --uses -1", "-1"),
            ("token revoke xyz", "\"xyz\" is not hex"),
            ("operator create ann", "--role"),
            ("operator create ann --role root", "viewer, operator, admin"),
            ("wait soon", "<REVISION>"),
            ("network create lab --mode open", "mesh, closed"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn help_shows_examples_and_the_promise_about_json() {
        let error = parse("--help").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DisplayHelp);
        for part in ["Examples:", "wattle token create --label", "stable", "Exit status:"] {
            assert!(error.to_string().contains(part), "{part}");
        }
    }
}
