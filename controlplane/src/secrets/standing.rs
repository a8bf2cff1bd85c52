//! Which of a network's secrets its nodes hold, by what their entries say.

use wattle_model::{Generation, NetworkName, NodeName};
use wattle_proto::entry;
use wattle_view::Index;

/// Nodes that are named where they are in the way.
const NAMED: usize = 5;

/// How far a network's nodes are with its present secret.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Nodes that hold it.
    pub holding: u32,
    /// Nodes that go by an older one.
    pub behind: u32,
    /// Nodes that hold none.
    pub without: u32,
    /// The first few of those behind.
    pub named: Vec<NodeName>,
}

impl Standing {
    /// Of all live nodes of a network.
    pub fn of(index: &Index, network: &NetworkName, present: Generation) -> Self {
        let mut standing = Self::default();
        let entries = index.nodes(network).filter_map(|node| entry::decode(node.entry?).ok());
        for peer in entries {
            match peer.secret_generation {
                Generation::NONE => standing.without += 1,
                held if held < present => {
                    standing.behind += 1;
                    if standing.named.len() < NAMED {
                        standing.named.push(peer.name);
                    }
                }
                _ => standing.holding += 1,
            }
        }
        standing
    }

    /// Those behind, as a sentence names them.
    pub fn behind(&self) -> String {
        let names: Vec<_> = self.named.iter().map(ToString::to_string).collect();
        match self.behind as usize - self.named.len() {
            0 => names.join(", "),
            more => format!("{} and {more} more", names.join(", ")),
        }
    }
}
