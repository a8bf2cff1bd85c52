//! A node, shown.

use std::collections::BTreeMap;

use serde::Serialize;
use wattle_proto::{InvalidField, admin};

use super::Session;
use crate::{
    console::{Row, Sheet},
    text::{self, or_dash},
};

#[derive(Debug, Serialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) network: String,
    pub(crate) name: String,
    ipv4: Option<String>,
    ipv6: Option<String>,
    pub(crate) public_key: String,
    pub(crate) labels: BTreeMap<String, String>,
    endpoints: Vec<String>,
    created_at: Option<String>,
    /// Of its last change.
    revision: u64,
    /// Since when it has its WireGuard key; null in `wattle watch`.
    pub(crate) key_since: Option<String>,
    /// "waiting" or "under way" while that is being changed; else null.
    pub(crate) key_rotation: Option<&'static str>,
    /// The newest generation of its network's secret that it holds; 0: none.
    secret_generation: u64,
    /// What the control plane knows of its agent; null where it was never seen.
    pub(crate) session: Option<Session>,
}

impl TryFrom<admin::Node> for Node {
    type Error = InvalidField;

    fn try_from(node: admin::Node) -> Result<Self, InvalidField> {
        let key_rotation = key_rotation(node.key_rotation());
        let endpoints = node.endpoints.iter().map(|bytes| text::endpoint("node.endpoints", bytes));
        Ok(Self {
            id: text::id(&node.id),
            network: node.network,
            name: node.name,
            ipv4: text::address("node.ipv4", &node.ipv4)?,
            ipv6: text::address("node.ipv6", &node.ipv6)?,
            public_key: text::public_key("node.public_key", &node.public_key)?,
            labels: node.labels,
            endpoints: endpoints.collect::<Result<_, _>>()?,
            created_at: text::time("node.created_at", node.created_at.as_ref())?,
            key_since: text::time("node.key_since", node.key_since.as_ref())?,
            key_rotation,
            secret_generation: node.secret_generation,
            revision: node.revision,
            session: node.session.map(Session::try_from).transpose()?,
        })
    }
}

impl Node {
    pub(crate) fn addresses(&self) -> String {
        let addresses: Vec<_> = self.ipv4.iter().chain(&self.ipv6).cloned().collect();
        or_dash(addresses.join(","))
    }

    pub(crate) fn online(&self) -> &'static str {
        match &self.session {
            Some(session) if session.displaced => "displaced",
            Some(session) if session.online => "yes",
            _ => "no",
        }
    }
}

/// How far the change of a WireGuard key is.
const fn key_rotation(rotation: admin::KeyRotation) -> Option<&'static str> {
    match rotation {
        admin::KeyRotation::Unspecified => None,
        admin::KeyRotation::Waiting => Some("waiting"),
        admin::KeyRotation::UnderWay => Some("under way"),
    }
}

impl Row for Node {
    const HEADER: &'static [&'static str] =
        &["NAME", "ADDRESSES", "LABELS", "ONLINE", "APPLIED", "LAG"];

    fn cells(&self) -> Vec<String> {
        let session = self.session.as_ref();
        vec![
            self.name.clone(),
            self.addresses(),
            or_dash(text::labels(&self.labels)),
            self.online().into(),
            session.map_or_else(|| "-".into(), |session| session.applied_revision.to_string()),
            session.map_or_else(|| "-".into(), Session::lag),
        ]
    }
}

/// A node in a list that shows several networks.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct NodeInNetwork(pub(crate) Node);

impl Row for NodeInNetwork {
    const HEADER: &'static [&'static str] =
        &["NETWORK", "NAME", "ADDRESSES", "LABELS", "ONLINE", "APPLIED", "LAG"];

    fn cells(&self) -> Vec<String> {
        let mut cells = self.0.cells();
        cells.insert(0, self.0.network.clone());
        cells
    }
}

impl Sheet for Node {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("name", self.name.clone()),
            ("id", self.id.clone()),
            ("network", self.network.clone()),
            ("addresses", self.addresses()),
            ("labels", or_dash(text::labels(&self.labels))),
            ("public key", self.public_key.clone()),
            ("key since", or_dash(self.key_since.as_deref().unwrap_or_default())),
            ("endpoints", or_dash(self.endpoints.join(","))),
            ("created", or_dash(self.created_at.as_deref().unwrap_or_default())),
            ("revision", self.revision.to_string()),
            ("online", self.online().into()),
        ];
        if let Some(rotation) = self.key_rotation {
            lines.push(("key rotation", rotation.into()));
        }
        if self.secret_generation > 0 {
            lines.push(("secret", format!("generation {}", self.secret_generation)));
        }
        let Some(session) = &self.session else { return lines };
        lines.extend([
            ("since", or_dash(session.since.as_deref().unwrap_or_default())),
            ("applied", session.applied_revision.to_string()),
            ("verified", session.verified_revision.to_string()),
            ("lag", session.lag()),
            ("agent", or_dash(&session.agent_version)),
            ("data plane", or_dash(&session.data_plane)),
            ("replica", or_dash(session.replica_id.as_deref().unwrap_or_default())),
        ]);
        if session.displaced {
            let why =
                "another machine uses this node's identity: see `wattle-agent status` on both";
            lines.push(("displaced", why.into()));
        }
        let rejected = session.rejected.iter();
        lines.extend(rejected.map(|one| ("rejected", format!("{}: {}", one.node_id, one.reason))));
        lines
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::console::tests::{listed, shown};

    fn message() -> admin::Node {
        let session = admin::NodeSession {
            online: true,
            since: Some(prost_types::Timestamp { seconds: 1_700_000_100, nanos: 0 }),
            applied_revision: 40,
            verified_revision: 38,
            converged: false,
            lag: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
            last_apply: Some(prost_types::Duration { seconds: 0, nanos: 420_000 }),
            rejected: vec![admin::Rejection {
                node_id: Bytes::from_static(&[9; 16]),
                reason: "its address is already taken".into(),
            }],
            agent_version: "0.1.0".into(),
            data_plane: "kernel".into(),
            displaced: false,
            replica_id: Bytes::from_static(&[7; 16]),
        };
        admin::Node {
            id: Bytes::from_static(&[0xab; 16]),
            network: "default".into(),
            name: "web-1".into(),
            ipv4: Bytes::from_static(&[10, 90, 0, 1]),
            ipv6: Bytes::from_static(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            public_key: Bytes::from_static(&[2; 32]),
            labels: [("site".to_owned(), "fra".to_owned()), ("role".into(), "web".into())].into(),
            endpoints: vec![Bytes::from_static(&[192, 0, 2, 1, 0xca, 0x6c])],
            created_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            revision: 12,
            session: Some(session),
            key_since: Some(prost_types::Timestamp { seconds: 1_700_000_050, nanos: 0 }),
            key_rotation: admin::KeyRotation::Waiting.into(),
            secret_generation: 3,
        }
    }

    #[test]
    fn a_table_has_the_columns_people_look_for() {
        let away = admin::Node { name: "web-22".into(), session: None, ..message() };
        let (table, _) = listed(&[message(), away].map(|node| Node::try_from(node).unwrap()));
        assert_eq!(
            table,
            "NAME    ADDRESSES          LABELS             ONLINE  APPLIED  LAG\n\
             web-1   10.90.0.1,fd00::1  role=web,site=fra  yes     40       1s\n\
             web-22  10.90.0.1,fd00::1  role=web,site=fra  no      -        -\n"
        );
        let (table, json) = listed(&[NodeInNetwork(message().try_into().unwrap())]);
        assert!(
            table.starts_with("NETWORK  NAME") && table.contains("\ndefault  web-1"),
            "{table}"
        );
        assert_eq!(json[0]["name"], "web-1");
    }

    #[test]
    fn json_is_what_help_promises() {
        let (_, json) = shown(&Node::try_from(message()).unwrap());
        let expected = json!({
            "id": "abababababababababababababababab",
            "network": "default",
            "name": "web-1",
            "ipv4": "10.90.0.1",
            "ipv6": "fd00::1",
            "public_key": "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=",
            "labels": {"role": "web", "site": "fra"},
            "endpoints": ["192.0.2.1:51820"],
            "created_at": "2023-11-14T22:13:20.000Z",
            "revision": 12,
            "key_since": "2023-11-14T22:14:10.000Z",
            "key_rotation": "waiting",
            "secret_generation": 3,
            "session": {
                "online": true,
                "since": "2023-11-14T22:15:00.000Z",
                "applied_revision": 40,
                "verified_revision": 38,
                "converged": false,
                "lag_ms": 1500,
                "last_apply_us": 420,
                "rejected": [{
                    "node_id": "09090909090909090909090909090909",
                    "reason": "its address is already taken",
                }],
                "agent_version": "0.1.0",
                "data_plane": "kernel",
                "displaced": false,
                "replica_id": "07070707070707070707070707070707",
            },
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_sheet_says_what_a_table_leaves_out() {
        let mut node = message();
        node.session.as_mut().unwrap().displaced = true;
        let (sheet, _) = shown(&Node::try_from(node).unwrap());
        for line in [
            "key since     2023-11-14T22:14:10.000Z\n",
            "key rotation  waiting\n",
            "secret        generation 3\n",
            "online        displaced\n",
            "verified      38\n",
            "displaced     another machine uses this node's identity",
            "rejected      09090909090909090909090909090909: its address is already taken\n",
        ] {
            assert!(sheet.contains(line), "{line}{sheet}");
        }
    }

    #[test]
    fn what_cant_be_read_is_named() {
        let node = admin::Node { ipv4: Bytes::from_static(&[1, 2, 3]), ..message() };
        let error = Node::try_from(node).unwrap_err();
        assert_eq!(error.to_string(), "node.ipv4: an address has 4 or 16 bytes, got 3");
    }
}
