//! A join token, shown. Its secret is not among what a list can show.

use std::{collections::BTreeMap, time::SystemTime};

use serde::Serialize;
use wattle_proto::{InvalidField, admin};

use crate::{
    console::Row,
    text::{self, or_dash},
};

#[derive(Debug, Serialize)]
pub(crate) struct JoinToken {
    id: String,
    network: String,
    labels: BTreeMap<String, String>,
    node_name: Option<String>,
    uses: u32,
    /// Null: no limit.
    max_uses: Option<u32>,
    created_at: Option<String>,
    expires_at: Option<String>,
    revoked: bool,
    created_by: String,
    /// "live", "used up", "expired" or "revoked".
    state: &'static str,
    #[serde(skip)]
    expires_in: String,
}

impl TryFrom<admin::JoinToken> for JoinToken {
    type Error = InvalidField;

    fn try_from(token: admin::JoinToken) -> Result<Self, InvalidField> {
        Self::at(token, SystemTime::now())
    }
}

impl JoinToken {
    fn at(token: admin::JoinToken, now: SystemTime) -> Result<Self, InvalidField> {
        let used_up = token.max_uses > 0 && token.uses >= token.max_uses;
        let expired = text::has_passed(token.expires_at.as_ref(), now);
        Ok(Self {
            id: text::id(&token.id),
            network: token.network,
            labels: token.labels,
            node_name: text::some(&token.node_name),
            uses: token.uses,
            max_uses: (token.max_uses > 0).then_some(token.max_uses),
            created_at: text::time("join_token.created_at", token.created_at.as_ref())?,
            expires_at: text::time("join_token.expires_at", token.expires_at.as_ref())?,
            revoked: token.revoked,
            created_by: token.created_by,
            state: match (token.revoked, expired, used_up) {
                (true, _, _) => "revoked",
                (_, true, _) => "expired",
                (_, _, true) => "used up",
                _ => "live",
            },
            expires_in: text::until(token.expires_at.as_ref(), now),
        })
    }

    /// What the token allows, for whoever just made it.
    pub(crate) fn terms(&self) -> String {
        let uses = match self.max_uses {
            Some(1) => "one machine".into(),
            Some(uses) => format!("{uses} machines"),
            None => "any number of machines".into(),
        };
        let name = self.node_name.as_ref().map(|name| format!(" as {name}")).unwrap_or_default();
        let labels = match self.labels.is_empty() {
            true => String::new(),
            false => format!(" with labels {}", text::labels(&self.labels)),
        };
        format!(
            "Join token {} for {uses}, to join network {}{name}{labels}. It is good for {} and is \
             not shown again.",
            self.id, self.network, self.expires_in
        )
    }
}

impl Row for JoinToken {
    const HEADER: &'static [&'static str] =
        &["ID", "NETWORK", "LABELS", "NAME", "USES", "STATE", "EXPIRES IN", "BY"];

    fn cells(&self) -> Vec<String> {
        let limit = self.max_uses.map_or_else(|| "any".into(), |uses| uses.to_string());
        vec![
            self.id.clone(),
            self.network.clone(),
            or_dash(text::labels(&self.labels)),
            or_dash(self.node_name.as_deref().unwrap_or_default()),
            format!("{}/{limit}", self.uses),
            self.state.into(),
            if self.state == "live" { self.expires_in.clone() } else { "-".into() },
            or_dash(&self.created_by),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::console::tests::listed;

    fn message() -> admin::JoinToken {
        admin::JoinToken {
            id: Bytes::from_static(&[1; 8]),
            network: "default".into(),
            labels: [("site".to_owned(), "fra".to_owned())].into(),
            node_name: String::new(),
            uses: 1,
            max_uses: 5,
            created_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            expires_at: Some(prost_types::Timestamp { seconds: 1_700_003_600, nanos: 0 }),
            revoked: false,
            created_by: "ann".into(),
        }
    }

    fn at(token: admin::JoinToken, second: u64) -> JoinToken {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + second);
        JoinToken::at(token, now).unwrap()
    }

    #[test]
    fn it_is_shown_both_ways() {
        let (table, json) = listed(&[at(message(), 60)]);
        assert_eq!(
            table,
            "ID                NETWORK  LABELS    NAME  USES  STATE  EXPIRES IN  BY\n\
             0101010101010101  default  site=fra  -     1/5   live   59m0s       ann\n"
        );
        let expected = json!([{
            "id": "0101010101010101",
            "network": "default",
            "labels": {"site": "fra"},
            "node_name": null,
            "uses": 1,
            "max_uses": 5,
            "created_at": "2023-11-14T22:13:20.000Z",
            "expires_at": "2023-11-14T23:13:20.000Z",
            "revoked": false,
            "created_by": "ann",
            "state": "live",
        }]);
        assert_eq!(json, expected);
    }

    #[test]
    fn its_state_says_why_it_opens_nothing() {
        assert_eq!(at(message(), 3600).state, "expired");
        assert_eq!(at(admin::JoinToken { uses: 5, ..message() }, 0).state, "used up");
        assert_eq!(at(admin::JoinToken { max_uses: 0, ..message() }, 0).state, "live");
        assert_eq!(at(admin::JoinToken { revoked: true, ..message() }, 9999).state, "revoked");
    }

    #[test]
    fn terms_are_a_sentence() {
        let named = admin::JoinToken { node_name: "db-1".into(), max_uses: 1, ..message() };
        assert_eq!(
            at(named, 0).terms(),
            "Join token 0101010101010101 for one machine, to join network default as db-1 with \
             labels site=fra. It is good for 1h0m and is not shown again."
        );
    }
}
