//! A network, shown.

use std::time::Duration;

use serde::Serialize;
use wattle_proto::{InvalidField, admin};

use crate::{
    console::{Row, Sheet},
    text::{self, or_dash},
};

#[derive(Debug, Serialize)]
pub(crate) struct Network {
    pub(crate) name: String,
    ipv4_range: Option<String>,
    ipv6_range: Option<String>,
    mode: &'static str,
    /// How old its nodes' WireGuard keys may become; null: as old as they like.
    key_rotation_seconds: Option<u64>,
    /// Of its nodes' links, in bytes; null: the path's.
    mtu: Option<u32>,
    /// Whether each pair of nodes has one.
    preshared_keys: bool,
    /// What they are derived of; null where there are none, and in lists.
    pub(crate) secret: Option<Secret>,
    created_at: Option<String>,
    /// Of its last change.
    revision: u64,
}

/// What may be known of a network's secret.
#[derive(Debug, Serialize)]
pub(crate) struct Secret {
    pub(crate) generation: u64,
    made_at: Option<String>,
    /// Nodes that hold it.
    nodes_holding: u32,
    /// Nodes that go by the one before it.
    nodes_behind: u32,
    /// Nodes that hold none: nobody has a preshared key with them.
    nodes_without: u32,
}

impl TryFrom<admin::NetworkSecret> for Secret {
    type Error = InvalidField;

    fn try_from(secret: admin::NetworkSecret) -> Result<Self, InvalidField> {
        Ok(Self {
            generation: secret.generation,
            made_at: text::time("network.secret.made_at", secret.made_at.as_ref())?,
            nodes_holding: secret.nodes_holding,
            nodes_behind: secret.nodes_behind,
            nodes_without: secret.nodes_without,
        })
    }
}

impl Secret {
    fn line(&self) -> String {
        let Self { generation, nodes_holding, nodes_behind, nodes_without, .. } = self;
        let others = [(nodes_behind, "behind"), (nodes_without, "without")];
        let others = others.iter().filter(|(count, _)| **count > 0);
        let others: String = others.map(|(count, what)| format!(", {count} {what}")).collect();
        format!("generation {generation}, held by {nodes_holding} nodes{others}")
    }
}

impl TryFrom<admin::Network> for Network {
    type Error = InvalidField;

    fn try_from(network: admin::Network) -> Result<Self, InvalidField> {
        Ok(Self {
            mode: mode(network.mode()),
            name: network.name,
            ipv4_range: text::some(&network.ipv4_range),
            ipv6_range: text::some(&network.ipv6_range),
            key_rotation_seconds: text::duration(network.key_rotation.as_ref())
                .map(|limit| limit.as_secs()),
            mtu: Some(network.mtu).filter(|mtu| *mtu != 0),
            preshared_keys: network.preshared_keys,
            secret: network.secret.map(Secret::try_from).transpose()?,
            created_at: text::time("network.created_at", network.created_at.as_ref())?,
            revision: network.revision,
        })
    }
}

impl Network {
    fn mtu_text(&self) -> String {
        self.mtu.map_or_else(|| "auto".into(), |bytes| bytes.to_string())
    }
}

/// Who sees whom where no policy says so.
pub(crate) const fn mode(mode: admin::Mode) -> &'static str {
    match mode {
        admin::Mode::Unspecified => "unknown",
        admin::Mode::Mesh => "mesh",
        admin::Mode::Closed => "closed",
    }
}

impl Row for Network {
    const HEADER: &'static [&'static str] = &["NAME", "IPV4", "IPV6", "MODE", "MTU", "REVISION"];

    fn cells(&self) -> Vec<String> {
        let range = |range: &Option<String>| or_dash(range.as_deref().unwrap_or_default());
        vec![
            self.name.clone(),
            range(&self.ipv4_range),
            range(&self.ipv6_range),
            self.mode.into(),
            self.mtu_text(),
            self.revision.to_string(),
        ]
    }
}

impl Sheet for Network {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let rotation = self.key_rotation_seconds.map(Duration::from_secs).map(text::rough);
        let text = |text: &Option<String>| or_dash(text.as_deref().unwrap_or_default());
        vec![
            ("name", self.name.clone()),
            ("IPv4 range", text(&self.ipv4_range)),
            ("IPv6 range", text(&self.ipv6_range)),
            ("mode", self.mode.into()),
            ("key rotation", or_dash(rotation.unwrap_or_default())),
            ("MTU", self.mtu_text()),
            ("preshared keys", if self.preshared_keys { "on" } else { "off" }.into()),
            ("secret", or_dash(self.secret.as_ref().map(Secret::line).unwrap_or_default())),
            ("created", text(&self.created_at)),
            ("revision", self.revision.to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::console::tests::{listed, shown};

    fn network() -> Network {
        let message = admin::Network {
            name: "default".into(),
            ipv4_range: "10.90.0.0/16".into(),
            ipv6_range: String::new(),
            mode: admin::Mode::Mesh.into(),
            created_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            revision: 7,
            key_rotation: Some(prost_types::Duration { seconds: 30 * 86400, nanos: 0 }),
            mtu: 1380,
            preshared_keys: true,
            secret: Some(admin::NetworkSecret {
                generation: 3,
                nodes_holding: 8,
                nodes_behind: 1,
                ..Default::default()
            }),
        };
        message.try_into().unwrap()
    }

    #[test]
    fn it_is_shown_both_ways() {
        let (table, json) = listed(&[network()]);
        assert_eq!(
            table,
            "NAME     IPV4          IPV6  MODE  MTU   REVISION\n\
             default  10.90.0.0/16  -     mesh  1380  7\n"
        );
        let object = json!({
            "name": "default",
            "ipv4_range": "10.90.0.0/16",
            "ipv6_range": null,
            "mode": "mesh",
            "key_rotation_seconds": 2_592_000,
            "mtu": 1380,
            "preshared_keys": true,
            "secret": {
                "generation": 3,
                "made_at": null,
                "nodes_holding": 8,
                "nodes_behind": 1,
                "nodes_without": 0,
            },
            "created_at": "2023-11-14T22:13:20.000Z",
            "revision": 7,
        });
        assert_eq!(json, json!([object]));
        let (lines, json) = shown(&network());
        assert!(lines.contains("IPv4 range      10.90.0.0/16\nIPv6 range      -\n"), "{lines}");
        assert!(lines.contains("key rotation    30d0h\nMTU             1380\n"), "{lines}");
        assert!(lines.contains("preshared keys  on\n"), "{lines}");
        assert!(lines.contains("secret          generation 3, held by 8 nodes, 1 behind\n"));
        assert_eq!(json, object);
        let free = Network { mtu: None, ..network() };
        assert!(shown(&free).0.contains("MTU             auto\n"));
    }
}
