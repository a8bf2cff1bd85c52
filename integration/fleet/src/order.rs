//! What the coordinator and its workers say to each other: one JSON object a line, one answer to
//! each order, in the order of the orders.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

/// What a worker is told to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Makes machines into nodes. Answered when all of them are.
    Enrol(Enrol),
    /// Opens the streams of these agents. Answered at once.
    Connect {
        who: Who,
        /// They begin with nothing; otherwise they resume with what they have.
        forget: bool,
        /// They stop reading after the control plane's first word.
        frozen: bool,
    },
    /// Closes the streams of these agents. Answered when they are closed.
    Disconnect { who: Who },
    /// These agents stop reading what they are sent.
    Freeze { who: Who },
    /// They read again.
    Thaw { who: Who },
    /// One agent moves: it reports another endpoint.
    Report { agent: usize, endpoint: SocketAddr },
    /// Answered when all these agents hold a revision, or time is over.
    Await { who: Who, revision: u64, millis: u64 },
    /// Whether commits are kept for the latencies.
    Record { on: bool },
    /// Changes, and when each was committed. No other change up to `upto` counts.
    Changes { changes: Vec<Change>, upto: u64 },
    /// How long changes took to be applied, since the last such order.
    Latencies,
    /// How long agents were without a stream when they went from one to the next, since the last such
    /// order.
    Gaps,
    /// How things are.
    Census,
    /// Opens plain TLS connections. Answered when all are open.
    Raw { address: String, roots: Vec<String>, count: usize },
    /// The raw server wrote message `number` at this time. Answered with the latencies, when all
    /// connections have it.
    RawWritten { number: u64, at: u64 },
    /// Has the raw server write message `number` to all its connections. Answered with the time.
    Write { bytes: usize, number: u64 },
}

/// Machines to make into nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Enrol {
    /// For each agent: its number in the fleet, and which token it takes.
    pub(crate) agents: Vec<(usize, usize)>,
    /// A join token for each group.
    pub(crate) tokens: Vec<String>,
    /// How many at a time.
    pub(crate) at_once: usize,
    /// Each opens its stream as soon as it is a node.
    pub(crate) connect: bool,
}

/// Some of a worker's agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Who {
    /// All.
    All,
    /// Every tenth.
    Tenth,
    /// All but every tenth.
    Others,
}

impl Who {
    /// Whether the agent with this number in the fleet is one of them.
    pub(crate) const fn includes(self, number: usize) -> bool {
        match self {
            Self::All => true,
            Self::Tenth => number % 10 == 9,
            Self::Others => number % 10 != 9,
        }
    }

    /// How many of so many agents.
    pub(crate) fn of(self, agents: usize) -> usize {
        (0..agents).filter(|number| self.includes(*number)).count()
    }
}

/// A change, by the store's revision.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    /// Nanoseconds since the Unix epoch.
    pub(crate) committed_at: u64,
}

/// What a worker answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Done.
    Done,
    /// Done, at this time.
    At(u64),
    /// It couldn't be done.
    Failed(String),
    /// Not an answer: so many more are done.
    Progress(usize),
    Awaited(Awaited),
    Latencies(Buckets),
    Census(Box<Census>),
    /// A raw server listens.
    Listening {
        address: String,
        roots: Vec<String>,
    },
}

/// How waiting for a revision ended.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Awaited {
    /// How many hold it.
    pub(crate) done: usize,
    /// Of how many.
    pub(crate) of: usize,
    /// When the last of them came to hold it.
    pub(crate) last_at: u64,
}

/// Values and how often each was seen.
pub(crate) type Buckets = Vec<(u64, u64)>;

/// How a worker's agents are. Counts are since the last census, unless they say otherwise.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Census {
    /// Agents whose stream is accepted, now.
    pub(crate) online: usize,
    /// TLS bytes received.
    pub(crate) bytes: u64,
    /// Commits and heartbeats whose digest wasn't the agent's, ever.
    pub(crate) mismatches: u64,
    /// Streams that began with a full set, and that resumed.
    pub(crate) full_sets: u64,
    pub(crate) resumed: u64,
    /// Commits, and the entries and removals in them.
    pub(crate) commits: u64,
    pub(crate) entries: u64,
    pub(crate) acks: u64,
    /// Streams that broke off or weren't accepted, by reason.
    pub(crate) lost: BTreeMap<String, u64>,
    /// What the agents hold now: for each group the distinct states, and how many agents have each.
    pub(crate) states: Vec<Held>,
}

/// One state, and who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) group: usize,
    pub(crate) digest: String,
    pub(crate) entries: usize,
    pub(crate) agents: usize,
}
