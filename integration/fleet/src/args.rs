//! The command line.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use wattle_runtime::credential::OperatorCredential;

use crate::publish;
use crate::scenario::{
    churn, enrol, idle, join, one_change, policy_flip, reconnect, rolling_restart, slow_readers,
    storm,
};

const ABOUT: &str = "See what a fleet does to a control plane";

const LONG_ABOUT: &str = "\
See what a fleet does to a control plane: how long a change takes to every agent, how quickly \
machines join and come back, what a stream costs.

The control plane is the real one. The agents are real in all but their kernel: each enrols with a \
join token and a key of its own, connects over mutual TLS, speaks the sync protocol, keeps what it \
is sent, and checks its digest at every commit. A digest that differs fails the run. They run on \
this machine, in as few processes as the limit of open files allows.

Without --context a control plane is started for the run, with a data folder of its own that is \
removed afterwards: the wattle-controlplane beside this program, or the one that --server names. \
With --context it is one that runs already; the run makes a network of its own there and deletes it \
with all its nodes at the end.";

const REMARKS: &str = "\
Examples:
  wattle-fleet one-change --agents 5000 --groups 200
  wattle-fleet churn --agents 5000 --rate 100 --duration 60s --json
  wattle-fleet join --agents 2000
  wattle-fleet reconnect --agents 5000 --only nothing
  wattle-fleet rolling-restart --agents 5000
  wattle-fleet idle --agents 500 --context ~/.config/wattle/operator.json

Figures (--json prints one object with all of them for each scenario, null where it has none):
  scenario, agents, groups   What was run.
  handed_ms         From the commit in the store until the change could be read in the control
                    plane's index and every waiting stream had been woken.
  applied_p50_ms    From the commit in the store until agents had applied the change: half of them,
  applied_p99_ms    99 of 100,
  applied_max_ms    and the slowest agent of the slowest change. In one-change the first two are
                    medians over the changes. In churn they are over all (change, agent) pairs, each
                    until the first commit that holds the change. In slow-readers they are of those
                    who read.
  raw_p99_ms        The same bytes to the same number of plain TLS connections, with no HTTP/2 and
                    no protocol: 99 of 100 have them. Measured by turns with the changes.
  raw_ratio         applied_p99_ms / raw_p99_ms.
  bytes_per_agent   TLS bytes from the control plane to an agent: for each change; in reconnect and
                    idle, in all.
  server_rss_kb_per_stream   Resident memory of the control plane with all streams idle, less that
                    before there was a node, for each of them.
  server_cpu_us_per_agent    The control plane's processor time for each agent: for each change in
                    one-change and churn, for each second in idle, in all elsewhere.
  full_sets         Whole sets that the control plane sent meanwhile.
  resumed           Streams that went on from what the agent had.
  enrol_per_s       Machines that became nodes, a second.
  converged_ms      Until the last agent held all that it should: from the first machine's first
                    word (join, enrol), from the order to connect (reconnect, storm), to change the policy
                    (policy-flip, the slower way of the two) or to read on (slow-readers, the
                    slowest run).
  gap_p99_ms        How long agents were without a stream when they went from one replica to another:
  gap_max_ms        99 of 100, and the longest. An agent that has the next stream before it leaves the
                    last one wasn't.
  handshakes_per_agent   Streams that were accepted meanwhile, for each agent.
  digests_equal     Every commit and heartbeat had the agent's own digest, and in the end all agents
                    of a group held the same, and as much as they should.

Times of commits are the control plane's clock, times of applying this machine's. With --context
they are worth something only where both have the same clock; figures of a control plane on another
machine that need its memory or processor time are null.

Exit status:
  0  done
  1  not done, or agents hold something else than they should; stderr says what
  2  the command line is wrong";

/// The command line of `wattle-fleet`.
#[derive(Debug, Parser)]
#[command(name = "wattle-fleet", version, about = ABOUT, long_about = LONG_ABOUT)]
#[command(after_help = "`wattle-fleet --help` says what each figure means.")]
#[command(after_long_help = REMARKS)]
pub(crate) struct Cli {
    /// One JSON object for each scenario, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// How long one change takes to all agents
    OneChange(one_change::Args),
    /// One change after another, faster than they can be told apart
    Churn(churn::Args),
    /// Machines become a mesh: from nothing until all hold all
    Join(join::Args),
    /// All agents come at once, with what they had or with nothing
    Reconnect(reconnect::Args),
    /// Two halves of a fleet come to see each other, and cease to
    PolicyFlip(policy_flip::Args),
    /// A tenth of the agents stops reading, and reads again
    SlowReaders(slow_readers::Args),
    /// What a stream costs on which nothing happens
    Idle(idle::Args),
    /// How many machines can enrol in a second
    Enrol(enrol::Args),
    /// Replicas are restarted one after the other, under changes
    RollingRestart(rolling_restart::Args),
    /// A replica dies, and all agents come to those that are left
    Storm(storm::Args),

    /// Runs the published set and writes its tables
    #[command(hide = true)]
    Publish(publish::Args),
    /// A process with a part of the fleet
    #[command(hide = true)]
    Worker,
    /// The process that writes to plain TLS connections
    #[command(hide = true)]
    RawServer,
}

impl Command {
    /// What a scenario has of what every scenario takes.
    pub(crate) const fn common_mut(&mut self) -> Option<&mut Common> {
        Some(match self {
            Self::OneChange(args) => &mut args.common,
            Self::Churn(args) => &mut args.common,
            Self::Join(args) => &mut args.common,
            Self::Reconnect(args) => &mut args.common,
            Self::PolicyFlip(args) => &mut args.common,
            Self::SlowReaders(args) => &mut args.common,
            Self::Idle(args) => &mut args.common,
            Self::Enrol(args) => &mut args.common,
            Self::RollingRestart(args) => &mut args.common,
            Self::Storm(args) => &mut args.common,
            Self::Publish(_) | Self::Worker | Self::RawServer => return None,
        })
    }
}

/// What every scenario takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Common {
    /// How many agents
    #[arg(long, default_value_t = 1000)]
    pub(crate) agents: usize,

    /// In how many groups: the network is closed, one policy lets all see all, and one for each
    /// group lets its members see each other. With one group the network is a mesh
    #[arg(long, default_value_t = 1)]
    pub(crate) groups: usize,

    /// Decides which agents change and in which order they enrol
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,

    /// A control plane that runs already, by an operator's credential file; without it one is
    /// started, with a data folder of its own
    #[arg(long, value_name = "FILE", conflicts_with = "server")]
    pub(crate) context: Option<PathBuf>,

    /// The program to start [default: wattle-controlplane beside this one]
    #[arg(long, value_name = "FILE")]
    pub(crate) server: Option<PathBuf>,

    /// Replicas to start, over an etcd of three members that is started, too [default: 1, with a store
    /// of its own; 3 in rolling-restart and storm]
    #[arg(long, value_name = "N", conflicts_with = "context")]
    pub(crate) replicas: Option<usize>,

    /// Processes for the agents [default: as few as the limit of open files allows]
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<usize>,
}

impl Common {
    /// Says what is wrong before anything is started.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(self.agents >= 2, "--agents {}: a fleet has at least 2", self.agents);
        ensure!(self.agents <= 65_000, "--agents {}: at most 65000", self.agents);
        ensure!(self.groups >= 1, "--groups 0: at least 1");
        ensure!(
            self.groups <= self.agents,
            "--groups {}: there are only {} agents",
            self.groups,
            self.agents
        );
        ensure!(self.workers != Some(0), "--workers 0: at least 1");
        let replicas = self.replicas.unwrap_or(1);
        ensure!((1..=9).contains(&replicas), "--replicas {replicas}: from 1 to 9");
        Ok(())
    }

    /// The credential in a file.
    pub(crate) fn credential(&self, file: &Path) -> Result<OperatorCredential> {
        OperatorCredential::load(file).map_err(|error| {
            anyhow::anyhow!(
                "--context {}: {error}: it should be what the control plane or `wattle operator \
                 create` wrote",
                file.display()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn common(line: &str) -> Common {
        let words = ["wattle-fleet", "enrol"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).unwrap().command {
            Command::Enrol(args) => args.common,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn mistakes_name_the_option() {
        for (line, expected) in [
            ("--agents 1", "--agents 1: a fleet has at least 2"),
            ("--agents 100000", "--agents 100000: at most 65000"),
            ("--agents 10 --groups 11", "--groups 11: there are only 10 agents"),
            ("--groups 0", "--groups 0"),
            ("--workers 0", "--workers 0"),
            ("--replicas 10", "--replicas 10: from 1 to 9"),
        ] {
            let error = common(line).check().unwrap_err().to_string();
            assert!(error.contains(expected), "{line}: {error}");
        }
        common("--agents 10 --groups 10").check().unwrap();
        let error = common("").credential(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(error.contains("--context /nowhere") && error.contains("operator"), "{error}");
    }

    #[test]
    fn help_explains_every_figure() {
        let help = Cli::command().render_long_help().to_string();
        let figures = serde_json::to_value(crate::outcome::Outcome::of("idle", 2, 1)).unwrap();
        for figure in figures.as_object().unwrap().keys() {
            assert!(help.contains(figure), "{figure}");
        }
    }
}
