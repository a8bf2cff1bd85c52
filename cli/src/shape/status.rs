//! The control plane's status, shown.

use std::{collections::BTreeMap, time::SystemTime};

use serde::Serialize;
use wattle_proto::{InvalidField, admin};

use super::{Silent, progress::LastChange};
use crate::{console::Sheet, text};

#[derive(Debug, Serialize)]
pub(crate) struct Status {
    /// Which of the control plane's addresses answered.
    address: String,
    version: String,
    replica_id: String,
    epoch: String,
    trust_domain: String,
    /// The store's revision.
    revision: u64,
    /// The revision that the replica has read up to.
    indexed_revision: u64,
    networks: u32,
    nodes: u32,
    nodes_online: u32,
    nodes_converged: u32,
    /// Full sets sent since the replica started, by reason.
    full_sets: BTreeMap<String, u64>,
    advertised: Vec<String>,
    started_at: Option<String>,
    /// The replica can't see the store: what it says may be old.
    stale: bool,
    /// What the store said last; empty where it is seen.
    stale_reason: String,
    /// How far the last revision that concerns anybody has come; null where there is none.
    last_change: Option<LastChange>,
    /// Replicas that run.
    replicas: u32,
    /// Replicas whose agents are missing here.
    silent_replicas: Vec<Silent>,
    #[serde(skip)]
    up: String,
}

impl Status {
    pub(crate) fn new(
        address: &str,
        status: admin::GetStatusResponse,
        now: SystemTime,
    ) -> Result<Self, InvalidField> {
        Ok(Self {
            address: address.into(),
            version: status.version,
            replica_id: text::id(&status.replica_id),
            epoch: text::id(&status.epoch),
            trust_domain: status.trust_domain,
            revision: status.revision,
            indexed_revision: status.indexed_revision,
            networks: status.networks,
            nodes: status.nodes,
            nodes_online: status.nodes_online,
            nodes_converged: status.nodes_converged,
            full_sets: status.full_sets,
            advertised: status.advertised,
            started_at: text::time("started_at", status.started_at.as_ref())?,
            stale: status.stale,
            stale_reason: status.stale_reason,
            last_change: status.last_change.map(LastChange::from),
            replicas: status.replicas,
            silent_replicas: Silent::all(status.silent_replicas),
            up: text::ago(status.started_at.as_ref(), now),
        })
    }

    /// Those that didn't answer.
    pub(crate) fn silent(&self) -> &[Silent] {
        &self.silent_replicas
    }

    fn replicas_line(&self) -> String {
        match self.silent_replicas.len() {
            0 => self.replicas.to_string(),
            silent => format!("{}, of which {silent} didn't answer", self.replicas),
        }
    }

    fn revision_line(&self) -> String {
        match (self.stale, self.revision == self.indexed_revision) {
            (true, _) if self.stale_reason.is_empty() => {
                format!("{} (stale: the store can't be seen)", self.indexed_revision)
            }
            (true, _) => format!("{} (stale: {})", self.indexed_revision, self.stale_reason),
            (false, true) => self.revision.to_string(),
            (false, false) => {
                format!("{} (this replica has read up to {})", self.revision, self.indexed_revision)
            }
        }
    }
}

impl Sheet for Status {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let full_sets = self.full_sets.iter().map(|(reason, count)| format!("{count} {reason}"));
        let full_sets: Vec<_> = full_sets.collect();
        vec![
            ("control plane", format!("{} (version {})", self.address, self.version)),
            ("trust domain", self.trust_domain.clone()),
            ("advertised", text::or_dash(self.advertised.join(","))),
            ("replica", format!("{}, up {}", self.replica_id, self.up)),
            ("replicas", self.replicas_line()),
            ("epoch", self.epoch.clone()),
            ("revision", self.revision_line()),
            ("networks", self.networks.to_string()),
            (
                "nodes",
                format!(
                    "{}: {} online, {} converged",
                    self.nodes, self.nodes_online, self.nodes_converged
                ),
            ),
            (
                "last change",
                self.last_change.as_ref().map_or_else(|| "-".into(), LastChange::to_string),
            ),
            ("full sets sent", text::or_dash(full_sets.join(", "))),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::console::tests::shown;

    fn behind(name: &str, lag: Option<prost_types::Duration>) -> admin::NodeProgress {
        admin::NodeProgress { name: name.into(), applied_revision: 31, lag, ..Default::default() }
    }

    fn status(stale: bool, indexed_revision: u64) -> Status {
        let message = admin::GetStatusResponse {
            version: "0.1.0".into(),
            replica_id: Bytes::from_static(&[1; 16]),
            epoch: Bytes::from_static(&[2; 16]),
            trust_domain: "wattle-0123".into(),
            revision: 40,
            indexed_revision,
            networks: 1,
            nodes: 3,
            nodes_online: 2,
            nodes_converged: 2,
            full_sets: [("new".to_owned(), 3)].into(),
            advertised: vec!["192.0.2.1:7443".into()],
            started_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            stale,
            last_change: Some(admin::ChangeProgress {
                revision: 39,
                concerned: 10_000,
                applied: 9_995,
                slowest: vec![
                    behind("fra-7", Some(prost_types::Duration { seconds: 12, nanos: 0 })),
                    behind("ams-1", None),
                ],
            }),
            replicas: 3,
            silent_replicas: Vec::new(),
            stale_reason: String::new(),
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_090);
        Status::new("192.0.2.1:7443", message, now).unwrap()
    }

    #[test]
    fn people_see_how_it_is() {
        let (sheet, json) = shown(&status(false, 40));
        assert_eq!(
            sheet,
            "control plane   192.0.2.1:7443 (version 0.1.0)\n\
             trust domain    wattle-0123\n\
             advertised      192.0.2.1:7443\n\
             replica         01010101010101010101010101010101, up 1m30s\n\
             replicas        3\n\
             epoch           02020202020202020202020202020202\n\
             revision        40\n\
             networks        1\n\
             nodes           3: 2 online, 2 converged\n\
             last change     revision 39: 9,995 of 10,000 applied, slowest: fra-7 (12s behind), \
             ams-1 (at revision 31), 3 offline or refusing it\n\
             full sets sent  3 new\n"
        );
        assert_eq!(json["last_change"]["slowest"][0]["lag_ms"], 12_000);
        assert_eq!((&json["revision"], &json["full_sets"]["new"]), (&40.into(), &3.into()));
        assert_eq!(json["started_at"], "2023-11-14T22:13:20.000Z");
    }

    #[test]
    fn a_change_that_concerns_nobody_is_not_counted() {
        let nobody = admin::ChangeProgress { revision: 1, ..Default::default() };
        let status = Status { last_change: Some(nobody.into()), ..status(false, 40) };
        assert!(shown(&status).0.contains("last change     revision 1: concerns no node\n"));
    }

    #[test]
    fn who_didnt_answer_is_counted_and_named() {
        let silent = Silent::from(admin::SilentReplica {
            id: Bytes::from_static(&[3; 16]),
            address: "10.0.0.3:7443".into(),
            reason: "no answer within 2s".into(),
        });
        assert_eq!(
            silent.to_string(),
            "replica 03030303030303030303030303030303 at 10.0.0.3:7443 didn't answer (no answer \
             within 2s): its agents seem offline"
        );
        let (sheet, json) = shown(&Status { silent_replicas: vec![silent], ..status(false, 40) });
        assert!(sheet.contains("replicas        3, of which 1 didn't answer\n"), "{sheet}");
        assert_eq!(json["silent_replicas"][0]["address"], "10.0.0.3:7443");
    }

    #[test]
    fn a_replica_that_is_behind_or_blind_says_so() {
        assert!(shown(&status(false, 38)).0.contains("40 (this replica has read up to 38)\n"));
        assert!(shown(&status(true, 38)).0.contains("38 (stale: the store can't be seen)\n"));
        let reason = "the store is unavailable: etcd at http://10.0.0.1:2379: no leader".to_owned();
        let blind = Status { stale_reason: reason, ..status(true, 38) };
        let (sheet, json) = shown(&blind);
        assert!(
            sheet.contains("38 (stale: the store is unavailable: etcd at http://10.0.0.1:2379:")
        );
        assert_eq!(json["stale_reason"], blind.stale_reason);
    }
}
