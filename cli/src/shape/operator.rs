//! An operator, shown.

use std::time::SystemTime;

use serde::Serialize;
use wattle_proto::{InvalidField, admin};

use crate::{console::Row, text};

#[derive(Debug, Serialize)]
pub(crate) struct Operator {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) role: &'static str,
    created_at: Option<String>,
    expires_at: Option<String>,
    revoked: bool,
    /// "live", "expired" or "revoked".
    pub(crate) state: &'static str,
    #[serde(skip)]
    expires_in: String,
}

impl TryFrom<admin::Operator> for Operator {
    type Error = InvalidField;

    fn try_from(operator: admin::Operator) -> Result<Self, InvalidField> {
        Self::at(operator, SystemTime::now())
    }
}

impl Operator {
    fn at(operator: admin::Operator, now: SystemTime) -> Result<Self, InvalidField> {
        Ok(Self {
            id: text::id(&operator.id),
            role: match operator.role() {
                admin::Role::Unspecified => "unknown",
                admin::Role::Viewer => "viewer",
                admin::Role::Operator => "operator",
                admin::Role::Admin => "admin",
            },
            created_at: text::time("operator.created_at", operator.created_at.as_ref())?,
            expires_at: text::time("operator.expires_at", operator.expires_at.as_ref())?,
            revoked: operator.revoked,
            state: match (operator.revoked, text::has_passed(operator.expires_at.as_ref(), now)) {
                (true, _) => "revoked",
                (false, true) => "expired",
                (false, false) => "live",
            },
            expires_in: text::until(operator.expires_at.as_ref(), now),
            name: operator.name,
        })
    }
}

impl Row for Operator {
    const HEADER: &'static [&'static str] = &["NAME", "ROLE", "STATE", "EXPIRES IN", "ID"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.role.into(),
            self.state.into(),
            if self.state == "live" { self.expires_in.clone() } else { "-".into() },
            self.id.clone(),
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

    #[test]
    fn it_is_shown_both_ways() {
        let message = admin::Operator {
            id: Bytes::from_static(&[7; 16]),
            name: "ann".into(),
            role: admin::Role::Admin.into(),
            created_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            expires_at: Some(prost_types::Timestamp { seconds: 1_700_086_400, nanos: 0 }),
            revoked: false,
        };
        let at =
            |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds);
        let (table, json) = listed(&[Operator::at(message.clone(), at(0)).unwrap()]);
        assert_eq!(
            table,
            "NAME  ROLE   STATE  EXPIRES IN  ID\n\
             ann   admin  live   1d0h        07070707070707070707070707070707\n"
        );
        let expected = json!([{
            "id": "07070707070707070707070707070707",
            "name": "ann",
            "role": "admin",
            "created_at": "2023-11-14T22:13:20.000Z",
            "expires_at": "2023-11-15T22:13:20.000Z",
            "revoked": false,
            "state": "live",
        }]);
        assert_eq!(json, expected);
        assert_eq!(Operator::at(message, at(86_400)).unwrap().state, "expired");
    }
}
