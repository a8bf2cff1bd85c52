//! A policy, shown.

use serde::Serialize;
use wattle_proto::{InvalidField, admin};

use crate::{
    console::{Row, Sheet},
    text::{self, or_dash},
};

#[derive(Debug, Serialize)]
pub(crate) struct Policy {
    pub(crate) network: String,
    pub(crate) name: String,
    /// Selectors; empty for every node.
    pub(crate) from: String,
    pub(crate) to: String,
    created_at: Option<String>,
    /// Of its last change.
    pub(crate) revision: u64,
}

impl TryFrom<admin::Policy> for Policy {
    type Error = InvalidField;

    fn try_from(policy: admin::Policy) -> Result<Self, InvalidField> {
        Ok(Self {
            network: policy.network,
            name: policy.name,
            from: policy.from,
            to: policy.to,
            created_at: text::time("policy.created_at", policy.created_at.as_ref())?,
            revision: policy.revision,
        })
    }
}

/// A side of a policy for people.
pub(crate) fn side(selector: &str) -> &str {
    if selector.is_empty() { "(every node)" } else { selector }
}

impl Row for Policy {
    const HEADER: &'static [&'static str] = &["NETWORK", "NAME", "FROM", "TO", "REVISION"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.network.clone(),
            self.name.clone(),
            side(&self.from).into(),
            side(&self.to).into(),
            self.revision.to_string(),
        ]
    }
}

impl Sheet for Policy {
    fn lines(&self) -> Vec<(&'static str, String)> {
        vec![
            ("network", self.network.clone()),
            ("name", self.name.clone()),
            ("from", side(&self.from).into()),
            ("to", side(&self.to).into()),
            ("created", or_dash(self.created_at.as_deref().unwrap_or_default())),
            ("revision", self.revision.to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::console::tests::{listed, shown};

    #[test]
    fn it_is_shown_both_ways() {
        let policy = || {
            let message = admin::Policy {
                network: "default".into(),
                name: "ops".into(),
                from: "role=ops".into(),
                to: String::new(),
                created_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
                revision: 7,
            };
            Policy::try_from(message).unwrap()
        };
        let (table, json) = listed(&[policy()]);
        assert_eq!(
            table,
            "NETWORK  NAME  FROM      TO            REVISION\n\
             default  ops   role=ops  (every node)  7\n"
        );
        let object = json!({
            "network": "default",
            "name": "ops",
            "from": "role=ops",
            "to": "",
            "created_at": "2023-11-14T22:13:20.000Z",
            "revision": 7,
        });
        assert_eq!(json, json!([object]));
        let (lines, json) = shown(&policy());
        assert!(lines.contains("to        (every node)\n"), "{lines}");
        assert_eq!(json, object);
    }
}
