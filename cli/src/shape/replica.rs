//! A control-plane process, shown.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use wattle_proto::{InvalidField, admin};

use crate::{
    console::Row,
    text::{self, or_dash},
};

/// A replica says that it runs every two seconds.
const SILENT: Duration = Duration::from_secs(7);

#[derive(Debug, Serialize)]
pub(crate) struct Replica {
    id: String,
    /// Where agents reach it.
    addresses: Vec<String>,
    /// Where other replicas reach it.
    replica_address: String,
    /// Agents connected.
    sessions: u32,
    indexed_revision: u64,
    /// How far that is behind the last change of what agents may see.
    behind: u64,
    /// "serving", "draining", "stale" or "silent".
    state: &'static str,
    version: String,
    started_at: Option<String>,
    /// How long ago it last said anything, as far as the one that answers has seen.
    silent_ms: Option<u64>,
    /// It is the one that answers.
    answers: bool,
    /// How far the last change has come with its agents.
    last_change: Option<ReplicaProgress>,
    #[serde(skip)]
    up: String,
}

#[derive(Debug, Serialize)]
struct ReplicaProgress {
    revision: u64,
    applied: u32,
    pending: u32,
    rejected: u32,
}

impl Replica {
    /// `last` is the revision of the last change.
    pub(crate) fn new(
        replica: admin::Replica,
        last: u64,
        now: SystemTime,
    ) -> Result<Self, InvalidField> {
        let silent = text::duration(replica.silent_for.as_ref());
        Ok(Self {
            state: state(&replica, silent),
            id: text::id(&replica.id),
            addresses: replica.addresses,
            replica_address: replica.replica_address,
            sessions: replica.sessions,
            indexed_revision: replica.indexed_revision,
            behind: last.saturating_sub(replica.indexed_revision),
            version: replica.version,
            started_at: text::time("replica.started_at", replica.started_at.as_ref())?,
            silent_ms: silent.map(|silent| text::whole(silent.as_millis())),
            answers: replica.answers,
            last_change: replica.last_change.map(|last| ReplicaProgress {
                revision: last.revision,
                applied: last.applied,
                pending: last.pending,
                rejected: last.rejected,
            }),
            up: text::ago(replica.started_at.as_ref(), now),
        })
    }
}

fn state(replica: &admin::Replica, silent: Option<Duration>) -> &'static str {
    match silent {
        Some(silent) if silent >= SILENT => "silent",
        _ if replica.stale => "stale",
        _ if replica.draining => "draining",
        _ => "serving",
    }
}

impl Row for Replica {
    const HEADER: &'static [&'static str] =
        &["ID", "ADDRESS", "AGENTS", "REVISION", "STATE", "VERSION", "UP"];

    fn cells(&self) -> Vec<String> {
        let revision = match self.behind {
            0 => self.indexed_revision.to_string(),
            behind => format!("{} ({behind} behind)", self.indexed_revision),
        };
        vec![
            self.id.clone(),
            or_dash(&self.replica_address),
            self.sessions.to_string(),
            revision,
            self.state.into(),
            or_dash(&self.version),
            self.up.clone(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::console::tests::listed;

    fn message(n: u8) -> admin::Replica {
        admin::Replica {
            id: Bytes::copy_from_slice(&[n; 16]),
            addresses: vec![format!("192.0.2.{n}:7443")],
            replica_address: format!("10.0.0.{n}:7443"),
            sessions: 33,
            indexed_revision: 40,
            version: "0.1.0".into(),
            started_at: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            silent_for: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
            last_change: Some(admin::ReplicaProgress {
                revision: 39,
                applied: 33,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_table_says_how_each_is_and_json_all_of_it() {
        let silent = Some(prost_types::Duration { seconds: 9, nanos: 0 });
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_090);
        let all = [
            admin::Replica { answers: true, ..message(1) },
            admin::Replica { indexed_revision: 38, stale: true, ..message(2) },
            admin::Replica { silent_for: silent, draining: true, ..message(3) },
            admin::Replica { draining: true, ..message(4) },
        ];
        let all = all.map(|one| Replica::new(one, 40, now).unwrap());
        let (table, json) = listed(&all);
        assert_eq!(
            table,
            "ID                                ADDRESS        AGENTS  REVISION       STATE     VERSION  UP\n\
             01010101010101010101010101010101  10.0.0.1:7443  33      40             serving   0.1.0    1m30s\n\
             02020202020202020202020202020202  10.0.0.2:7443  33      38 (2 behind)  stale     0.1.0    1m30s\n\
             03030303030303030303030303030303  10.0.0.3:7443  33      40             silent    0.1.0    1m30s\n\
             04040404040404040404040404040404  10.0.0.4:7443  33      40             draining  0.1.0    1m30s\n"
        );
        assert_eq!((&json[0]["answers"], &json[1]["behind"]), (&true.into(), &2.into()));
        assert_eq!(json[0]["silent_ms"], 1500);
        assert_eq!(json[0]["last_change"]["applied"], 33);
        assert_eq!(json[0]["started_at"], "2023-11-14T22:13:20.000Z");
    }
}
