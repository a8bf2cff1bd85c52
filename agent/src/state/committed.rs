//! The committed set on disk: one append-only file of differences, each with length and checksum.
//!
//! The first record is a whole set, those after it are commits; when the file has grown to twice
//! its first record it is rewritten as one record, in a new file that replaces it. So a crash at
//! any byte leaves a set that the agent once had: a torn record at the end is dropped, and a file
//! whose first record is damaged counts as empty, after which the control plane sends a full set.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use wattle_model::{Epoch, NodeId, Revision};
use wattle_proto::{Invalid as _, InvalidField, entry};
use wattle_runtime::files;

use super::held::{ConfigHash, Difference, Held};

/// The file's first bytes: what it is, and the version of its format.
const MAGIC: &[u8; 8] = b"wattle\x00\x01";
/// Before each record: its length (4 bytes, little-endian) and the first bytes of its SHA-256.
const FRAME: usize = 4 + CHECKSUM;
const CHECKSUM: usize = 8;
/// A smaller file isn't worth rewriting.
const REWRITE_ABOVE: u64 = 64 * 1024;

/// One difference, and where it leads.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Record {
    #[prost(bytes = "bytes", tag = "1")]
    epoch: Bytes,
    #[prost(uint64, tag = "2")]
    revision: u64,
    #[prost(bytes = "bytes", tag = "3")]
    config_hash: Bytes,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    entries: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    removed: Vec<Bytes>,
}

impl Record {
    /// A commit after which `held` is what it is.
    pub(crate) fn commit(held: &Held, difference: &Difference) -> Self {
        let entries = difference.upserts.iter().map(|(_, entry)| entry.clone()).collect();
        let removed = difference.removed.iter().map(|n| Bytes::copy_from_slice(n.as_bytes()));
        Self { entries, removed: removed.collect(), ..Self::head(held) }
    }

    /// A record that makes `held` out of nothing.
    pub(crate) fn whole(held: &Held) -> Self {
        Self {
            entries: held.entries().map(|(_, entry)| entry.clone()).collect(),
            ..Self::head(held)
        }
    }

    fn head(held: &Held) -> Self {
        let bytes = |b: &[u8]| Bytes::copy_from_slice(b);
        Self {
            epoch: held.epoch().map_or_else(Bytes::new, |e| bytes(e.as_bytes())),
            revision: held.revision().0,
            config_hash: held.config_hash().map_or_else(Bytes::new, |h| bytes(&h.0)),
            ..Default::default()
        }
    }

    fn replay(self, held: &mut Held) -> Result<(), InvalidField> {
        let epoch = Epoch::try_from(self.epoch.as_ref()).field("epoch")?;
        let hash = (!self.config_hash.is_empty()).then(|| self.config_hash.as_ref().try_into());
        let hash = hash.transpose().field("config_hash")?.map(ConfigHash);
        let upserts = self.entries.into_iter().map(|entry| Ok((entry::node_of(&entry)?, entry)));
        let removed = self.removed.iter().map(|node| NodeId::try_from(node.as_ref()));
        let difference = Difference {
            upserts: upserts.collect::<Result<_, InvalidField>>()?,
            removed: removed.collect::<Result<_, _>>().field("removed")?,
        };
        held.advance(epoch, Revision(self.revision), hash, &difference);
        Ok(())
    }

    fn framed(&self) -> io::Result<Vec<u8>> {
        let payload = self.encode_to_vec();
        let length = u32::try_from(payload.len())
            .map_err(|_| io::Error::other("a set of more than 4 GB can't be kept"))?;
        let mut bytes = Vec::with_capacity(FRAME + payload.len());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&Sha256::digest(&payload)[..CHECKSUM]);
        bytes.extend_from_slice(&payload);
        Ok(bytes)
    }
}

/// The file, open for more. Every method blocks on the disk.
#[derive(Debug)]
pub(crate) struct CommittedLog {
    path: PathBuf,
    /// `None` while the file can't be appended to: not there yet, or a write to it went wrong.
    file: Option<File>,
    length: u64,
    first_record: u64,
}

impl CommittedLog {
    /// Opens the file and reads the set it holds. Whatever is wrong with its contents costs at most
    /// what the agent held, never the start.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Held)> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let replayed = Replayed::read(&bytes);
        replayed.report(path, bytes.len());
        let file = match replayed.length {
            0 => None,
            length => {
                let file = OpenOptions::new().append(true).open(path)?;
                // What follows the last whole record would hide every later one.
                file.set_len(length as u64)?;
                Some(file)
            }
        };
        let log = Self {
            path: path.to_owned(),
            file,
            length: replayed.length as u64,
            first_record: replayed.first_record as u64,
        };
        Ok((log, replayed.held))
    }

    /// Appends a commit, without waiting for the disk: a killed agent finds it again, and after a
    /// power cut the data plane is gone with it. [`Self::sync`] waits.
    pub(crate) fn append(&mut self, record: &Record) -> io::Result<()> {
        let Some(mut file) = self.file.take() else {
            return Err(io::Error::other("the file needs to be written anew"));
        };
        let bytes = record.framed()?;
        // Put back only after a whole write: behind a torn record nothing is ever read.
        file.write_all(&bytes)?;
        self.file = Some(file);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Waits until everything appended is on the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_data)
    }

    /// Whether the file should be rewritten: it has grown too long, or can't be appended to.
    pub(crate) fn wants_rewrite(&self) -> bool {
        self.file.is_none() || self.length > REWRITE_ABOVE.max(2 * self.first_record)
    }

    /// Replaces the file by one that holds `whole` alone.
    pub(crate) fn rewrite(&mut self, whole: &Record) -> io::Result<()> {
        let record = whole.framed()?;
        self.file = None;
        files::write_private(&self.path, &[MAGIC.as_slice(), &record].concat())?;
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        self.first_record = record.len() as u64;
        self.length = MAGIC.len() as u64 + self.first_record;
        Ok(())
    }
}

/// What could be read of a file.
#[derive(Default)]
struct Replayed {
    held: Held,
    /// How far the file is good; 0 where not even its first record is.
    length: usize,
    first_record: usize,
    damage: Option<String>,
}

impl Replayed {
    fn read(bytes: &[u8]) -> Self {
        let mut replayed = Self::default();
        if bytes.is_empty() {
            return replayed;
        }
        let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
            replayed.damage = Some("it doesn't begin as such a file does".into());
            return replayed;
        };
        while !rest.is_empty() {
            let read = next_record(rest).and_then(|(record, size)| {
                record.replay(&mut replayed.held).map_err(|error| error.to_string())?;
                Ok(size)
            });
            match read {
                Ok(size) => {
                    if replayed.length == 0 {
                        (replayed.first_record, replayed.length) = (size, MAGIC.len());
                    }
                    replayed.length += size;
                    rest = &rest[size..];
                }
                Err(damage) => {
                    replayed.damage = Some(damage);
                    break;
                }
            }
        }
        replayed
    }

    fn report(&self, path: &Path, size: usize) {
        let Some(damage) = &self.damage else { return };
        let (path, dropped_bytes) = (path.display(), size - self.length);
        if self.length == 0 {
            tracing::warn!(%path, damage, "the committed set is damaged: beginning without peers");
        } else {
            let revision = self.held.revision().0;
            tracing::info!(%path, damage, dropped_bytes, revision, "went back to a whole commit");
        }
    }
}

/// The record at the beginning of `bytes`, and how many bytes it takes.
fn next_record(bytes: &[u8]) -> Result<(Record, usize), String> {
    let torn = || "a record is cut short".to_owned();
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(torn)?;
    let (checksum, rest) = rest.split_first_chunk::<CHECKSUM>().ok_or_else(torn)?;
    let length = u32::from_le_bytes(*length) as usize;
    let payload = rest.get(..length).ok_or_else(torn)?;
    if Sha256::digest(payload)[..CHECKSUM] != *checksum {
        return Err("a record's checksum is wrong".into());
    }
    let record = Record::decode(payload).map_err(|error| error.to_string())?;
    Ok((record, FRAME + length))
}

#[cfg(test)]
mod tests {
    use wattle_model::{Generation, PeerSpec};

    use super::*;
    use crate::state::held::Batch;

    fn entry(n: u8, name: &str) -> (NodeId, Option<Bytes>) {
        let node = NodeId::new([n; 16]);
        let bytes = entry::encode(&PeerSpec {
            node,
            name: name.parse().unwrap(),
            public_key: wattle_model::PublicKey::new([n; 32]).unwrap(),
            next_public_key: None,
            ipv4: Some([10, 90, 0, n].into()),
            ipv6: None,
            endpoints: vec![],
            secret_generation: Generation::NONE,
        });
        (node, Some(bytes))
    }

    fn commit(
        log: &mut CommittedLog,
        held: &mut Held,
        revision: u64,
        change: (NodeId, Option<Bytes>),
    ) {
        let batch = Batch {
            epoch: Epoch::new([7; 16]),
            revision: Revision(revision),
            changes: [change].into(),
            config_hash: Some(ConfigHash::of(b"config")),
            ..Default::default()
        };
        let difference = held.difference(&batch);
        held.advance(batch.epoch, batch.revision, batch.config_hash, &difference);
        if log.wants_rewrite() {
            log.rewrite(&Record::whole(held)).unwrap();
        } else {
            log.append(&Record::commit(held, &difference)).unwrap();
        }
    }

    /// Four commits; returns the states that the agent went through and the file's bytes.
    fn script(path: &Path) -> (Vec<Held>, Vec<u8>) {
        let (mut log, mut held) = CommittedLog::open(path).unwrap();
        let mut states = vec![held.clone()];
        let gone = (NodeId::new([1; 16]), None);
        let changes = [entry(1, "a"), entry(2, "b"), gone, entry(2, "renamed")];
        for (revision, change) in (10..).zip(changes) {
            commit(&mut log, &mut held, revision, change);
            states.push(held.clone());
        }
        (states, std::fs::read(path).unwrap())
    }

    #[test]
    fn a_restart_finds_the_last_commit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("committed");
        let (states, _) = script(&path);
        assert_eq!(CommittedLog::open(&path).unwrap().1, states[4]);
    }

    #[test]
    fn a_file_cut_at_any_byte_holds_a_state_that_was_and_takes_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("committed");
        let (states, bytes) = script(&path);
        let mut furthest = 0;
        for cut in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let (mut log, mut held) = CommittedLog::open(&path).unwrap();
            let at = states.iter().position(|state| *state == held);
            let at = at.unwrap_or_else(|| panic!("cut at {cut}: never was {held:?}"));
            assert!(at >= furthest, "cut at {cut}: less than a shorter file held");
            furthest = at;
            commit(&mut log, &mut held, 99, entry(3, "later"));
            drop(log);
            assert_eq!(CommittedLog::open(&path).unwrap().1, held, "cut at {cut}");
        }
        assert_eq!(furthest, 4);
    }

    #[test]
    fn a_changed_byte_never_makes_a_state_that_never_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("committed");
        let (states, bytes) = script(&path);
        for i in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[i] ^= 0x10;
            std::fs::write(&path, &damaged).unwrap();
            let (_, held) = CommittedLog::open(&path).unwrap();
            assert!(states.contains(&held), "changed at {i}");
            assert_ne!(held, states[4], "changed at {i}: not noticed");
        }
    }

    /// A kill between writing the new file and putting it in place leaves the old one.
    #[test]
    fn a_half_written_replacement_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("committed");
        let (states, bytes) = script(&path);
        std::fs::write(folder.path().join("committed.tmp"), &bytes[..20]).unwrap();
        assert_eq!(CommittedLog::open(&path).unwrap().1, states[4]);
    }

    #[test]
    fn the_file_is_rewritten_before_it_grows_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("committed");
        let (mut log, mut held) = CommittedLog::open(&path).unwrap();
        for revision in 1..3000 {
            commit(&mut log, &mut held, revision, entry(1, &format!("name-{revision}")));
        }
        let size = std::fs::metadata(&path).unwrap().len();
        assert!(size < 2 * REWRITE_ABOVE, "{size} bytes");
        assert_eq!(CommittedLog::open(&path).unwrap().1, held);
    }
}
