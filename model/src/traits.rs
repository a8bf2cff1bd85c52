//! What selectors go by: what tokens and operators said of a node.

use crate::{Labels, NodeName};

/// What is known of a node beside its id, as far as selectors go by it. Nothing here was chosen by
/// the machine itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Traits {
    /// Its labels.
    pub labels: Labels,
    /// Its name, where its token fixed it.
    pub fixed_name: Option<NodeName>,
}

impl From<Labels> for Traits {
    fn from(labels: Labels) -> Self {
        Self { labels, fixed_name: None }
    }
}
