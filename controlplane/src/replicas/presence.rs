//! What a replica says of itself: a record under its lease, read by all the others. Times in it are
//! the writer's own; whether it is well, a reader tells by whether `beat` rises.

use std::time::SystemTime;

use bytes::Bytes;
use prost::{DecodeError, Message as _};
use wattle_model::{Fingerprint, InvalidId, ReplicaId, Revision};
use wattle_proto::store as proto;
use wattle_runtime::clock::{from_unix_millis, unix_millis};

use crate::{
    store::{Key, Stored, keys},
    stream::Summary,
};

/// Addresses of one replica that are read, and the length of each text. What another one writes
/// isn't stored without bound.
const MAX_ADDRESSES: usize = 16;
const MAX_TEXT: usize = 300;

/// A replica as it says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Its id, new at every start.
    pub id: ReplicaId,
    /// Where agents reach it.
    pub addresses: Vec<String>,
    /// Where other replicas reach it.
    pub replica_address: String,
    /// When it began.
    pub started: SystemTime,
    /// Its version.
    pub version: String,
    /// Agents connected.
    pub sessions: u32,
    /// The revision that it has read the store up to.
    pub indexed: Revision,
    /// It can't see the store.
    pub stale: bool,
    /// It is stopping.
    pub draining: bool,
    /// Of the key with which it calls others.
    pub fingerprint: Fingerprint,
    /// The pin of the root that it signs with.
    pub root: Fingerprint,
    /// Rises each time it is written.
    pub beat: u64,
    /// How far the last change has come.
    pub last_change: Summary,
}

/// A record that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The key names no replica.
    #[error("{0}: no replica's key: {1}")]
    Key(Key, InvalidId),
    /// The value is no record.
    #[error("{0}: {1}")]
    Value(Key, DecodeError),
    /// The key's fingerprint, or the root's, is none.
    #[error("{0}: fingerprint: {1}")]
    Fingerprint(Key, InvalidId),
}

impl Presence {
    /// As it is stored.
    pub fn encode(&self) -> Bytes {
        let record = proto::Replica {
            addresses: self.addresses.clone(),
            replica_address: self.replica_address.clone(),
            started_at_millis: unix_millis(self.started),
            version: self.version.clone(),
            sessions: self.sessions,
            indexed_revision: self.indexed.0,
            stale: self.stale,
            draining: self.draining,
            fingerprint: Bytes::copy_from_slice(self.fingerprint.as_bytes()),
            root: Bytes::copy_from_slice(self.root.as_bytes()),
            beat: self.beat,
            last_change: Some(proto::ChangeSummary {
                revision: self.last_change.revision.0,
                applied: self.last_change.applied,
                pending: self.last_change.pending,
                rejected: self.last_change.rejected,
            }),
        };
        record.encode_to_vec().into()
    }

    /// Reads a record of `v1/live/replica/`.
    pub fn read(stored: &Stored) -> Result<Self, Unreadable> {
        let key = || stored.key.clone();
        let name = stored.key.as_str().strip_prefix(keys::replicas().as_str()).unwrap_or_default();
        let id = name.parse().map_err(|error| Unreadable::Key(key(), error))?;
        let record = proto::Replica::decode(stored.value.clone())
            .map_err(|error| Unreadable::Value(key(), error))?;
        let fingerprint = Fingerprint::try_from(record.fingerprint.as_ref())
            .map_err(|error| Unreadable::Fingerprint(key(), error))?;
        let root = Fingerprint::try_from(record.root.as_ref())
            .map_err(|error| Unreadable::Fingerprint(key(), error))?;
        let fits = |text: &String| text.len() <= MAX_TEXT;
        let last = record.last_change.unwrap_or_default();
        Ok(Self {
            id,
            addresses: record.addresses.into_iter().filter(fits).take(MAX_ADDRESSES).collect(),
            replica_address: Some(record.replica_address).filter(fits).unwrap_or_default(),
            started: from_unix_millis(record.started_at_millis),
            version: Some(record.version).filter(fits).unwrap_or_default(),
            sessions: record.sessions,
            indexed: Revision(record.indexed_revision),
            stale: record.stale,
            draining: record.draining,
            fingerprint,
            root,
            beat: record.beat,
            last_change: Summary {
                revision: Revision(last.revision),
                applied: last.applied,
                pending: last.pending,
                rejected: last.rejected,
            },
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::replicas) fn presence(n: u8) -> Presence {
        Presence {
            id: ReplicaId::new([n; 16]),
            addresses: vec![format!("192.0.2.{n}:7443")],
            replica_address: format!("10.0.0.{n}:7443"),
            started: from_unix_millis(1_700_000_000_000),
            version: "0.1.0".into(),
            sessions: 5,
            indexed: Revision(9),
            stale: false,
            draining: true,
            fingerprint: Fingerprint::new([n; 32]),
            root: Fingerprint::new([9; 32]),
            beat: 1,
            last_change: Summary { revision: Revision(8), applied: 3, pending: 1, rejected: 1 },
        }
    }

    fn stored(key: Key, value: Bytes) -> Stored {
        Stored { key, value, modified: Revision(1) }
    }

    #[test]
    fn a_record_round_trips() {
        let one = presence(3);
        assert_eq!(Presence::read(&stored(keys::replica(one.id), one.encode())).unwrap(), one);
    }

    #[test]
    fn what_cant_be_read_is_named_and_what_is_too_long_is_left_out() {
        let one = presence(3);
        let bad = |key, value| Presence::read(&stored(key, value)).unwrap_err().to_string();
        let key = Key::new("v1/live/replica/x");
        assert!(bad(key, one.encode()).starts_with("v1/live/replica/x: "));
        let error = bad(keys::replica(one.id), Bytes::from_static(b"\xff"));
        assert!(error.contains(&one.id.to_string()), "{error}");
        assert!(bad(keys::replica(one.id), Bytes::new()).contains("fingerprint"));
        let long = Presence {
            addresses: vec!["a".repeat(301); 20],
            version: "b".repeat(301),
            ..one.clone()
        };
        let read = Presence::read(&stored(keys::replica(one.id), long.encode())).unwrap();
        assert!(read.addresses.is_empty() && read.version.is_empty());
        let many = Presence { addresses: vec!["a:1".into(); 500], ..one.clone() };
        let read = Presence::read(&stored(keys::replica(one.id), many.encode())).unwrap();
        assert_eq!(read.addresses.len(), MAX_ADDRESSES);
    }
}
