//! What decides sight: a network's mode and its policies.

use crate::Selector;

/// Who sees whom in a network where no policy says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Mode {
    /// Everybody sees everybody.
    #[default]
    Mesh,
    /// Nobody sees anybody unless a policy lets them.
    Closed,
}

/// Lets every node that one side selects and every node that the other side selects see each
/// other. Sight is symmetric: WireGuard needs each in the other's peer set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Policy {
    /// One side.
    pub from: Selector,
    /// The other side.
    pub to: Selector,
}
