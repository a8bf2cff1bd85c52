//! What a watch tells, shown: a line for each thing that changed, or an object for each revision.

use serde::Serialize;
use wattle_proto::{
    Invalid as _, InvalidField,
    admin::{
        self,
        resource_change::{Kind, Resource},
    },
};

use super::{JoinToken, Network, Node, Operator, Policy};
use crate::{console::Row as _, text};

/// All that one revision changed.
#[derive(Debug, Serialize)]
pub(crate) struct Changes {
    pub(crate) revision: u64,
    pub(crate) changes: Vec<Change>,
}

/// One thing that changed.
#[derive(Debug, Serialize)]
pub(crate) struct Change {
    /// "put" or "deleted".
    kind: &'static str,
    #[serde(flatten)]
    thing: Thing,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Thing {
    Network(Network),
    Node(Box<Node>),
    JoinToken(JoinToken),
    Operator(Operator),
    Policy(Policy),
    /// A node that is gone has nothing left but its id.
    #[serde(rename = "node")]
    GoneNode {
        id: String,
        network: String,
    },
}

impl TryFrom<admin::WatchResponse> for Changes {
    type Error = InvalidField;

    fn try_from(response: admin::WatchResponse) -> Result<Self, InvalidField> {
        let changes = super::all(response.changes)?;
        Ok(Self { revision: response.revision, changes })
    }
}

impl TryFrom<admin::ResourceChange> for Change {
    type Error = InvalidField;

    fn try_from(change: admin::ResourceChange) -> Result<Self, InvalidField> {
        let kind = match change.kind() {
            Kind::Unspecified => "unknown",
            Kind::Put => "put",
            Kind::Deleted => "deleted",
        };
        let thing = match change.resource.field("changes.resource")? {
            Resource::Network(network) => Thing::Network(network.try_into()?),
            Resource::Node(node) if node.public_key.is_empty() => {
                Thing::GoneNode { id: text::id(&node.id), network: node.network }
            }
            Resource::Node(node) => Thing::Node(Box::new(node.try_into()?)),
            Resource::JoinToken(token) => Thing::JoinToken(token.try_into()?),
            Resource::Operator(operator) => Thing::Operator(operator.try_into()?),
            Resource::Policy(policy) => Thing::Policy(policy.try_into()?),
        };
        Ok(Self { kind, thing })
    }
}

impl Changes {
    /// A line for each thing that changed.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |change: &Change| {
            let (noun, said) = change.thing.said();
            format!("{:<8}  {:<7}  {noun:<8}  {said}", self.revision, change.kind)
        };
        self.changes.iter().map(line).collect()
    }
}

impl Thing {
    fn said(&self) -> (&'static str, String) {
        match self {
            Self::Network(network) => ("network", network.cells()[..4].join(" ")),
            Self::Node(node) => {
                ("node", format!("{}/{}", node.network, node.cells()[..3].join(" ")))
            }
            Self::GoneNode { id, network } => ("node", format!("{network}/{id}")),
            Self::JoinToken(token) => ("token", token.cells()[..6].join(" ")),
            Self::Policy(Policy { network, name, from, to, .. }) => {
                ("policy", format!("{network}/{name} {from:?} {to:?}"))
            }
            Self::Operator(operator) => {
                ("operator", [&operator.name, operator.role, operator.state].join(" "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;

    fn change(kind: Kind, resource: Resource) -> admin::ResourceChange {
        admin::ResourceChange { kind: kind.into(), resource: Some(resource) }
    }

    #[test]
    fn each_change_is_a_line_and_each_revision_an_object() {
        let network = admin::Network {
            name: "lab".into(),
            ipv6_range: "fd00::/64".into(),
            mode: admin::Mode::Closed.into(),
            ..Default::default()
        };
        let node = admin::Node {
            id: Bytes::from_static(&[3; 16]),
            network: "lab".into(),
            ..Default::default()
        };
        let response = admin::WatchResponse {
            revision: 9,
            changes: vec![
                change(Kind::Put, Resource::Network(network)),
                change(Kind::Deleted, Resource::Node(node)),
            ],
            ..Default::default()
        };
        let changes = Changes::try_from(response).unwrap();
        assert_eq!(
            changes.lines(),
            [
                "9         put      network   lab - fd00::/64 closed",
                "9         deleted  node      lab/03030303030303030303030303030303",
            ]
        );
        let json = serde_json::to_value(&changes).unwrap();
        assert_eq!(json["changes"][0]["network"]["name"], "lab");
        assert_eq!(
            json["changes"][1],
            json!({
                "kind": "deleted",
                "node": {"id": "03030303030303030303030303030303", "network": "lab"},
            })
        );
    }
}
