//! How far a revision has come, shown.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;
use wattle_proto::{InvalidField, admin};

use super::Silent;
use crate::{
    console::{Sheet, table},
    text::{self, or_dash},
};

#[derive(Debug, Serialize)]
pub(crate) struct Progress {
    pub(crate) revision: u64,
    pub(crate) concerned: u32,
    pub(crate) applied: u32,
    pub(crate) pending_count: u32,
    pub(crate) rejected_count: u32,
    pub(crate) offline_count: u32,
    /// At most 100 of each.
    pending: Vec<Behind>,
    rejected: Vec<Behind>,
    offline: Vec<Behind>,
    /// From the commit to each ack, by node name.
    applied_after_us: BTreeMap<String, u64>,
    /// When it was committed, where the replica that was asked still knows.
    committed_at: Option<String>,
    /// From then until every waiting stream had been woken.
    handed_after_us: Option<u64>,
    /// Replicas whose agents are missing here.
    pub(crate) silent_replicas: Vec<Silent>,
}

/// A node that hasn't applied the revision.
#[derive(Debug, Serialize)]
struct Behind {
    node_id: String,
    network: String,
    name: String,
    applied_revision: u64,
    reason: Option<String>,
    /// How old the oldest change is that it hasn't applied.
    lag_ms: Option<u64>,
}

/// How far the last change has come that concerns anybody, as `wattle status` shows it.
#[derive(Debug, Serialize)]
pub(crate) struct LastChange {
    revision: u64,
    concerned: u32,
    applied: u32,
    /// Online and furthest behind, at most 5.
    slowest: Vec<Behind>,
}

/// The most nodes that are named as the slowest.
const SLOWEST: usize = 5;

impl LastChange {
    /// Nodes that nobody need wait for. 0 where it can't be told, because not all slow ones are named.
    fn unreached(&self) -> u32 {
        let slow = u32::try_from(self.slowest.len()).unwrap_or(u32::MAX);
        match self.slowest.len() < SLOWEST {
            true => self.concerned.saturating_sub(self.applied).saturating_sub(slow),
            false => 0,
        }
    }
}

impl From<admin::ChangeProgress> for LastChange {
    fn from(change: admin::ChangeProgress) -> Self {
        Self {
            revision: change.revision,
            concerned: change.concerned,
            applied: change.applied,
            slowest: change.slowest.into_iter().map(Behind::from).collect(),
        }
    }
}

impl fmt::Display for LastChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.concerned == 0 {
            return write!(f, "revision {}: concerns no node", self.revision);
        }
        let (applied, concerned) = (text::count(self.applied), text::count(self.concerned));
        write!(f, "revision {}: {applied} of {concerned} applied", self.revision)?;
        for (i, node) in self.slowest.iter().enumerate() {
            let before = if i == 0 { "slowest: " } else { "" };
            write!(f, ", {before}{} ({})", node.name, node.distance())?;
        }
        match self.unreached() {
            0 => Ok(()),
            others => write!(f, ", {} offline or refusing it", text::count(others)),
        }
    }
}

impl Behind {
    fn distance(&self) -> String {
        match self.lag_ms {
            Some(millis) => format!("{} behind", text::rough(Duration::from_millis(millis))),
            None => format!("at revision {}", self.applied_revision),
        }
    }
}

impl From<admin::NodeProgress> for Behind {
    fn from(node: admin::NodeProgress) -> Self {
        Self {
            node_id: text::id(&node.node_id),
            network: node.network,
            name: node.name,
            applied_revision: node.applied_revision,
            reason: text::some(&node.reason),
            lag_ms: text::duration(node.lag.as_ref()).map(|lag| text::whole(lag.as_millis())),
        }
    }
}

impl TryFrom<admin::WaitAppliedResponse> for Progress {
    type Error = InvalidField;

    fn try_from(progress: admin::WaitAppliedResponse) -> Result<Self, InvalidField> {
        let behind =
            |nodes: Vec<admin::NodeProgress>| nodes.into_iter().map(Behind::from).collect();
        let after = progress.applied_after.into_iter().map(|one| (one.name, one.micros));
        Ok(Self {
            revision: progress.revision,
            concerned: progress.concerned,
            applied: progress.applied,
            pending_count: progress.pending_count,
            rejected_count: progress.rejected_count,
            offline_count: progress.offline_count,
            pending: behind(progress.pending),
            rejected: behind(progress.rejected),
            offline: behind(progress.offline),
            applied_after_us: after.collect(),
            committed_at: text::time("committed_at", progress.committed_at.as_ref())?,
            handed_after_us: text::duration(progress.handed_after.as_ref())
                .map(|after| text::whole(after.as_micros())),
            silent_replicas: Silent::all(progress.silent_replicas),
        })
    }
}

impl Progress {
    /// The nodes that haven't applied it, as a table; empty where all have.
    pub(crate) fn behind(&self) -> String {
        let groups =
            [("pending", &self.pending), ("rejected", &self.rejected), ("offline", &self.offline)];
        let row = |state: &str, node: &Behind| {
            vec![
                node.network.clone(),
                node.name.clone(),
                state.to_owned(),
                node.applied_revision.to_string(),
                node.lag_ms
                    .map_or_else(|| "-".into(), |lag| text::rough(Duration::from_millis(lag))),
                or_dash(node.reason.as_deref().unwrap_or_default()),
            ]
        };
        let rows: Vec<_> = groups
            .iter()
            .flat_map(|(state, nodes)| nodes.iter().map(move |node| row(state, node)))
            .collect();
        match rows.is_empty() {
            true => String::new(),
            false => table(&["NETWORK", "NODE", "STATE", "APPLIED", "LAG", "REASON"], rows),
        }
    }
}

impl Sheet for Progress {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let slowest = self.applied_after_us.values().max();
        let rough = |micros: &u64| text::rough(Duration::from_micros(*micros));
        vec![
            ("revision", self.revision.to_string()),
            ("committed", or_dash(self.committed_at.as_deref().unwrap_or_default())),
            ("concerned", self.concerned.to_string()),
            ("applied", self.applied.to_string()),
            ("pending", self.pending_count.to_string()),
            ("rejected", self.rejected_count.to_string()),
            ("offline", self.offline_count.to_string()),
            ("handed", or_dash(self.handed_after_us.as_ref().map(rough).unwrap_or_default())),
            ("slowest", or_dash(slowest.map(rough).unwrap_or_default())),
        ]
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::console::tests::shown;

    #[test]
    fn who_is_behind_is_listed_with_the_reason() {
        let node = |name: &str, reason: &str| admin::NodeProgress {
            node_id: Bytes::from_static(&[4; 16]),
            network: "default".into(),
            name: name.into(),
            applied_revision: 8,
            reason: reason.into(),
            lag: (!reason.is_empty()).then_some(prost_types::Duration { seconds: 3, nanos: 0 }),
        };
        let response = admin::WaitAppliedResponse {
            revision: 9,
            concerned: 4,
            applied: 2,
            rejected: vec![node("db-1", "no such device")],
            offline: vec![node("db-2", "")],
            rejected_count: 1,
            offline_count: 1,
            applied_after: vec![admin::AppliedAfter { name: "web-1".into(), micros: 12_500 }],
            committed_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            handed_after: Some(prost_types::Duration { seconds: 0, nanos: 4_000_000 }),
            ..Default::default()
        };
        let progress = Progress::try_from(response).unwrap();
        assert_eq!(
            progress.behind(),
            "NETWORK  NODE  STATE     APPLIED  LAG  REASON\n\
             default  db-1  rejected  8        3s   no such device\n\
             default  db-2  offline   8        -    -"
        );
        let (sheet, json) = shown(&progress);
        assert!(sheet.contains("committed  2023-11-14T22:13:20.000Z\n"), "{sheet}");
        assert!(sheet.contains("handed     4ms\n"), "{sheet}");
        assert_eq!(json["handed_after_us"], 4000);
        assert!(sheet.contains("applied    2\n") && sheet.contains("slowest    12ms\n"), "{sheet}");
        assert_eq!(json["applied_after_us"]["web-1"], 12_500);
        assert_eq!(json["offline"][0]["reason"], serde_json::Value::Null);
    }
}
