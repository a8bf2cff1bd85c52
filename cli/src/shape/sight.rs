//! Who comes to see more or fewer, shown.

use serde::Serialize;
use wattle_proto::admin::{self, Mode};

use crate::{console, text};

/// What changes for whom in a network.
#[derive(Debug, Serialize)]
pub(crate) struct Sight {
    pub(super) network: String,
    /// Where it is known.
    #[serde(skip)]
    pub(super) mode: Option<Mode>,
    pairs_gained: u64,
    pairs_lost: u64,
    pub(super) nodes_changed: u32,
    /// At most 100, those that change most first.
    nodes: Vec<NodeSight>,
}

#[derive(Debug, Serialize)]
struct NodeSight {
    node_id: String,
    name: String,
    gained: u32,
    lost: u32,
}

impl From<admin::SightChange> for Sight {
    fn from(change: admin::SightChange) -> Self {
        let node = |node: admin::NodeSightChange| NodeSight {
            node_id: text::id(&node.node_id),
            name: node.name,
            gained: node.gained,
            lost: node.lost,
        };
        Self {
            network: change.network,
            mode: None,
            pairs_gained: change.pairs_gained,
            pairs_lost: change.pairs_lost,
            nodes_changed: change.nodes_changed,
            nodes: change.nodes.into_iter().map(node).collect(),
        }
    }
}

impl Sight {
    /// Nobody sees more or fewer, and it isn't known whether policies count at all.
    pub(super) fn is_unexplained(&self) -> bool {
        self.nodes_changed == 0 && self.mode.is_none()
    }

    pub(super) fn line(&self) -> String {
        let network = &self.network;
        if self.nodes_changed == 0 {
            let why = match self.mode {
                Some(Mode::Mesh) => {
                    " (it is a mesh: everybody sees everybody, whatever its policies say)"
                }
                _ => "",
            };
            return format!("sight in {network}: as it was{why}");
        }
        let (gained, lost) = (text::count(self.pairs_gained), text::count(self.pairs_lost));
        let nodes = text::count(self.nodes_changed);
        format!("sight in {network}: pairs gained {gained}, lost {lost}; nodes changed {nodes}")
    }

    /// Who sees more or fewer, as a table.
    pub(super) fn nodes(&self) -> Option<String> {
        let row = |node: &NodeSight| {
            vec![
                format!("{}/{}", self.network, node.name),
                format!("+{}", text::count(node.gained)),
                format!("-{}", text::count(node.lost)),
            ]
        };
        let rows: Vec<_> = self.nodes.iter().map(row).collect();
        let hidden = (self.nodes_changed as usize).saturating_sub(rows.len());
        let mut table = (!rows.is_empty())
            .then(|| format!("\n{}", console::table(&["NODE", "GAINS", "LOSES"], rows)))?;
        if hidden > 0 {
            table += &format!("\n… and {} nodes more", text::count(hidden as u64));
        }
        Some(table)
    }
}
