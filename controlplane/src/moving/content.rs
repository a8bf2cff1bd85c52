//! What a record is without the revisions of its store, and the digest over all of them.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use wattle_proto::store as proto;

use super::{MoveError, Record};
use crate::store::{Key, Stored, keys};

/// Takes records in the order of their keys.
#[derive(Debug, Default)]
pub struct Content {
    /// Networks that live: what accompanies a dead one stays behind with it.
    networks: BTreeSet<String>,
    sum: Sha256,
    records: u64,
}

/// How many records there were, and SHA-256 over all of their keys and values, each with its length
/// before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub records: u64,
    /// Over all of them.
    pub digest: [u8; 32],
}

impl Tally {
    /// The digest as people compare it.
    pub fn hex(&self) -> String {
        hex::encode(self.digest)
    }
}

impl Content {
    /// A stored record as it moves; `None` where it stays behind.
    pub fn take(&mut self, stored: &Stored) -> Result<Option<Record>, MoveError> {
        let key = &stored.key;
        if keys::is_of_one_store(key) {
            return Ok(None);
        }
        let parts: Vec<_> = key.as_str().split('/').collect();
        let value = match parts[..] {
            ["v1", "network" | "node" | "policy", network, ..] => {
                let Some(value) = present(stored)? else { return Ok(None) };
                if parts[1] == "network" {
                    self.networks.insert(network.to_owned());
                }
                value
            }
            // They come after the networks.
            ["v1", "occupancy" | "shape", network] if !self.networks.contains(network) => {
                return Ok(None);
            }
            _ => stored.value.clone(),
        };
        let record = Record { key: key.clone(), value };
        self.count(&record);
        Ok(Some(record))
    }

    /// Counts a record that has moved already.
    pub fn count(&mut self, record: &Record) {
        for part in [record.key.as_str().as_bytes(), record.value.as_ref()] {
            self.sum.update((part.len() as u64).to_be_bytes());
            self.sum.update(part);
        }
        self.records += 1;
    }

    /// How many were taken so far.
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// All that was taken.
    pub fn tally(self) -> Tally {
        Tally { records: self.records, digest: self.sum.finalize().into() }
    }
}

/// A history with its present body alone; `None` where the thing is deleted. It begins at the
/// revision at which the target writes it.
fn present(stored: &Stored) -> Result<Option<Bytes>, MoveError> {
    let history = proto::History::decode(stored.value.clone())
        .map_err(|error| unreadable(&stored.key, error))?;
    let alone = proto::History { present: history.present, ..Default::default() };
    Ok((!alone.present.is_empty()).then(|| alone.encode_to_vec().into()))
}

pub(super) fn unreadable(key: &Key, what: impl ToString) -> MoveError {
    MoveError::Unreadable { key: key.clone(), what: what.to_string() }
}

#[cfg(test)]
mod tests {
    use wattle_model::{History, Mode, Revision};
    use wattle_proto::record::{NetworkBody, encode_changed, encode_first, encode_unchanged};

    use super::*;

    fn stored(key: Key, value: Bytes) -> Stored {
        Stored { key, value, modified: Revision(7) }
    }

    fn body(mode: Mode) -> NetworkBody {
        NetworkBody {
            created_at_millis: 1,
            ipv4_range: "10.0.0.0/8".into(),
            ipv6_range: String::new(),
            mode,
            key_rotation_seconds: 0,
            mtu: None,
            preshared_keys: false,
        }
    }

    #[test]
    fn a_history_keeps_what_it_says_now_whatever_it_said_before() {
        let key = keys::network(&"lab".parse().unwrap());
        let first = History::first(Revision(3), body(Mode::Closed));
        let once = encode_first(&body(Mode::Mesh));
        let changed = encode_changed(first.clone(), Some(body(Mode::Mesh)));
        let rewritten =
            encode_unchanged(&first.clone().changed(Revision(5), Some(body(Mode::Mesh))));
        for value in [&once, &changed, &rewritten] {
            let taken = Content::default().take(&stored(key.clone(), value.clone())).unwrap();
            assert_eq!(taken.unwrap().value, once);
        }
        let gone = encode_changed(first, None);
        assert_eq!(Content::default().take(&stored(key, gone)).unwrap(), None);
    }

    #[test]
    fn what_belongs_to_one_store_or_to_a_dead_network_stays_behind() {
        let (live, dead) = ("live".parse().unwrap(), "dead".parse().unwrap());
        let gone = encode_changed(History::first(Revision(3), body(Mode::Mesh)), None);
        let items = [
            (keys::epoch(), Bytes::from_static(&[1; 16]), false),
            (keys::horizon(), Bytes::new(), false),
            (keys::moving(), Bytes::new(), false),
            (keys::ranges(), "live".into(), true),
            (keys::network(&dead), gone, false),
            (keys::network(&live), encode_first(&body(Mode::Mesh)), true),
            (keys::occupancy(&dead), Bytes::new(), false),
            (keys::occupancy(&live), Bytes::new(), true),
            (keys::shape(&dead), Bytes::new(), false),
            (keys::secret(&live), "a secret".into(), true),
            (Key::new("v1/of-a-later-version/x"), Bytes::from_static(b"?"), true),
        ];
        let mut content = Content::default();
        for (key, value, moves) in items {
            let taken = content.take(&stored(key.clone(), value)).unwrap();
            assert_eq!(taken.is_some(), moves, "{key}");
        }
        assert_eq!(content.tally().records, 5);
    }

    #[test]
    fn every_byte_counts_and_so_does_where_one_ends() {
        let digest = |records: &[(&str, &'static str)]| {
            let mut content = Content::default();
            for (key, value) in records {
                content.count(&Record { key: Key::new(*key), value: Bytes::from(*value) });
            }
            content.tally().digest
        };
        let all = [
            digest(&[("a", "b"), ("c", "d")]),
            digest(&[("a", "b"), ("c", "e")]),
            digest(&[("ab", ""), ("c", "d")]),
            digest(&[("a", "bcd")]),
            digest(&[]),
        ];
        assert_eq!(BTreeSet::from(all).len(), all.len());
    }
}
