//! The backup file: frames, each with a check that goes on from the one before, so that no byte of it
//! can change, go missing or move without being noticed where it is.
//!
//! `wattle-backup 1\n`, then frames of: kind (1 byte), length (4 bytes, big-endian), content, check
//! (16 bytes: SHA-256 over the check before, kind, length and content).

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use prost::Message as _;
use sha2::{Digest as _, Sha256};
use wattle_model::{Epoch, Revision};
use wattle_proto::admin::{BackupEnd, BackupHeader, BackupRecord, BackupRecords};
use wattle_runtime::{clock, files::PrivateFile};
use zeroize::Zeroizing;

use super::{
    Record,
    content::{Content, Tally},
    source::Header,
};
use crate::store::Key;

/// The first line; the number is the format's version.
const MAGIC: &[u8] = b"wattle-backup 1\n";
const MAGIC_NAME: &[u8] = b"wattle-backup ";
const CHECK: usize = 16;
/// A longer frame was never written.
const LONGEST: usize = 16 << 20;
/// Bytes of records in one frame, about.
const FRAME: usize = 64 << 10;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Header = 1,
    Records = 2,
    /// The CA's certificates, PEM.
    CaCertificates = 3,
    /// The CA's private key, PEM.
    CaKey = 4,
    End = 9,
}

impl Kind {
    const ALL: [Self; 5] =
        [Self::Header, Self::Records, Self::CaCertificates, Self::CaKey, Self::End];

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Why a backup file can't be written or used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", path.display())]
pub struct FileError {
    path: PathBuf,
    what: What,
}

#[derive(Debug, thiserror::Error)]
enum What {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("not a backup of a Wattle control plane")]
    Foreign,
    #[error(
        "a backup in format {0}, and this version reads format 1: use the version that made it"
    )]
    Version(String),
    #[error("cut short: it ends at byte {0}, in the middle")]
    Short(u64),
    #[error("damaged between byte {from} and byte {to}")]
    Damaged { from: u64, to: u64 },
    #[error("something follows its end, from byte {0} on")]
    Trailing(u64),
    #[error("it doesn't hold what its end says it does")]
    Differs,
}

/// The CA's files, as a backup may hold them.
pub struct Ca {
    /// PEM.
    pub certificates: String,
    /// PEM.
    pub key: Zeroizing<String>,
}

/// A backup file that is being written. It has its name once it is whole.
pub struct Writer {
    path: PathBuf,
    file: PrivateFile,
    check: [u8; CHECK],
    pending: BackupRecords,
    bytes: usize,
    content: Content,
}

impl Writer {
    /// Begins a file beside its place. Nothing may be there.
    pub fn create(path: &Path, header: &Header) -> Result<Self, FileError> {
        let named = |error: io::Error| FileError { path: path.to_owned(), what: error.into() };
        if path.exists() {
            return Err(named(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "exists and is never overwritten: choose another --out",
            )));
        }
        let file = PrivateFile::beside(path).map_err(named)?;
        let mut writer = Self {
            path: path.to_owned(),
            file,
            check: [0; CHECK],
            pending: BackupRecords::default(),
            bytes: 0,
            content: Content::default(),
        };
        writer.raw(MAGIC)?;
        let header = BackupHeader {
            epoch: header.epoch.as_bytes().to_vec().into(),
            revision: header.revision.0,
            trust_domain: header.trust_domain.clone(),
            at: Some(clock::now().into()),
        };
        writer.frame(Kind::Header, &header.encode_to_vec())?;
        Ok(writer)
    }

    /// Adds a record.
    pub fn record(&mut self, record: &Record) -> Result<(), FileError> {
        self.content.count(record);
        let (key, value) = (record.key.to_string(), record.value.clone());
        self.bytes += key.len() + value.len();
        self.pending.records.push(BackupRecord { key, value });
        if self.bytes >= FRAME { self.flush() } else { Ok(()) }
    }

    /// Adds the CA's files.
    pub fn ca(&mut self, ca: &Ca) -> Result<(), FileError> {
        self.flush()?;
        self.frame(Kind::CaCertificates, ca.certificates.as_bytes())?;
        self.frame(Kind::CaKey, ca.key.as_bytes())
    }

    /// Ends the file where it holds what was `sent`, and gives it its name.
    pub fn finish(mut self, sent: Tally) -> Result<Tally, FileError> {
        self.flush()?;
        let tally = std::mem::take(&mut self.content).tally();
        if tally != sent {
            return Err(FileError { path: self.path, what: What::Differs });
        }
        let end = BackupEnd { records: tally.records, digest: tally.digest.to_vec().into() };
        self.frame(Kind::End, &end.encode_to_vec())?;
        let Self { path, file, .. } = self;
        file.persist_new().map_err(|error| FileError { path, what: error.into() })?;
        Ok(tally)
    }

    fn flush(&mut self) -> Result<(), FileError> {
        let pending = std::mem::take(&mut self.pending);
        self.bytes = 0;
        match pending.records.is_empty() {
            true => Ok(()),
            false => self.frame(Kind::Records, &pending.encode_to_vec()),
        }
    }

    fn frame(&mut self, kind: Kind, content: &[u8]) -> Result<(), FileError> {
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes();
        self.check = check(self.check, kind as u8, length, content);
        self.raw(&[kind as u8])?;
        self.raw(&length)?;
        self.raw(content)?;
        self.raw(&self.check.clone())
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        let written = self.file.write_all(bytes);
        written.map_err(|error| FileError { path: self.path.clone(), what: error.into() })
    }
}

/// A whole, sound backup file.
pub struct Backup {
    /// What it says of its records.
    pub header: Header,
    /// All of them.
    pub tally: Tally,
    /// It holds the CA's files.
    pub has_ca: bool,
    path: PathBuf,
}

/// What a frame of a sound file holds.
pub enum Part {
    /// Records.
    Records(Vec<Record>),
    /// The CA's certificates, PEM.
    CaCertificates(String),
    /// The CA's private key, PEM.
    CaKey(Zeroizing<String>),
}

impl Backup {
    /// Reads all of a file and makes sure that it is what was written.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let mut frames = Frames::open(path)?;
        let header = frames.header()?;
        let (mut content, mut has_ca) = (Content::default(), false);
        let end = loop {
            match frames.part()? {
                Ok(Part::Records(records)) => records.iter().for_each(|r| content.count(r)),
                Ok(_) => has_ca = true,
                Err(end) => break end,
            }
        };
        let tally = content.tally();
        let said = (end.records, end.digest.as_ref());
        if said != (tally.records, tally.digest.as_slice()) {
            return Err(frames.wrong(What::Differs));
        }
        frames.nothing_follows()?;
        Ok(Self { header, tally, has_ca, path: path.to_owned() })
    }

    /// Its parts, read again.
    pub fn parts(&self) -> Result<impl Iterator<Item = Result<Part, FileError>>, FileError> {
        let mut frames = Frames::open(&self.path)?;
        frames.header()?;
        Ok(std::iter::from_fn(move || match frames.part() {
            Ok(Ok(part)) => Some(Ok(part)),
            Ok(Err(_)) => None,
            Err(error) => Some(Err(error)),
        }))
    }
}

struct Frames {
    path: PathBuf,
    file: BufReader<File>,
    place: u64,
    check: [u8; CHECK],
}

impl Frames {
    fn open(path: &Path) -> Result<Self, FileError> {
        let file = File::open(path)
            .map_err(|error| FileError { path: path.to_owned(), what: error.into() })?;
        let file = BufReader::with_capacity(FRAME, file);
        let mut frames = Self { path: path.to_owned(), file, place: 0, check: [0; CHECK] };
        let mut first = [0; MAGIC.len()];
        match frames.read(&mut first) {
            Ok(()) if first == *MAGIC => Ok(frames),
            Ok(()) if first.starts_with(MAGIC_NAME) => {
                let version = String::from_utf8_lossy(&first[MAGIC_NAME.len()..]);
                Err(frames.wrong(What::Version(version.trim().to_owned())))
            }
            _ => Err(frames.wrong(What::Foreign)),
        }
    }

    fn header(&mut self) -> Result<Header, FileError> {
        let from = self.place;
        let (kind, content) = self.frame()?;
        let damaged = What::Damaged { from, to: self.place };
        let header = BackupHeader::decode(content.as_slice()).ok();
        let header = header.filter(|_| kind == Kind::Header).and_then(|header| {
            Some(Header {
                epoch: Epoch::try_from(header.epoch.as_ref()).ok()?,
                revision: Revision(header.revision),
                trust_domain: header.trust_domain,
            })
        });
        header.ok_or_else(|| self.wrong(damaged))
    }

    /// The next part, or the end.
    fn part(&mut self) -> Result<Result<Part, BackupEnd>, FileError> {
        let from = self.place;
        let (kind, content) = self.frame()?;
        let text = |content: &[u8]| std::str::from_utf8(content).map(str::to_owned).ok();
        let part = match kind {
            Kind::Header => None,
            Kind::Records => BackupRecords::decode(content.as_slice()).ok().map(|records| {
                let record = |record: BackupRecord| Record {
                    key: Key::new(record.key),
                    value: record.value,
                };
                Ok(Part::Records(records.records.into_iter().map(record).collect()))
            }),
            Kind::CaCertificates => text(&content).map(|text| Ok(Part::CaCertificates(text))),
            Kind::CaKey => text(&content).map(|text| Ok(Part::CaKey(Zeroizing::new(text)))),
            Kind::End => BackupEnd::decode(content.as_slice()).ok().map(Err),
        };
        part.ok_or_else(|| self.wrong(What::Damaged { from, to: self.place }))
    }

    fn frame(&mut self) -> Result<(Kind, Zeroizing<Vec<u8>>), FileError> {
        let from = self.place;
        let mut head = [0; 5];
        self.read(&mut head)?;
        let [kind, length @ ..] = head;
        let size = u32::from_be_bytes(length) as usize;
        let known = Kind::of(kind).filter(|_| size <= LONGEST);
        let Some(known) = known else {
            return Err(self.wrong(What::Damaged { from, to: self.place }));
        };
        let mut content = Zeroizing::new(vec![0; size]);
        self.read(&mut content)?;
        let mut found = [0; CHECK];
        self.read(&mut found)?;
        self.check = check(self.check, kind, length, &content);
        if found != self.check {
            return Err(self.wrong(What::Damaged { from, to: self.place }));
        }
        Ok((known, content))
    }

    fn nothing_follows(&mut self) -> Result<(), FileError> {
        match self.file.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.wrong(What::Trailing(self.place))),
            Err(error) => Err(self.wrong(error.into())),
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), FileError> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.file.read(&mut bytes[filled..]) {
                Ok(0) => return Err(self.wrong(What::Short(self.place + filled as u64))),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.wrong(error.into())),
            }
        }
        self.place += bytes.len() as u64;
        Ok(())
    }

    fn wrong(&self, what: What) -> FileError {
        FileError { path: self.path.clone(), what }
    }
}

fn check(before: [u8; CHECK], kind: u8, length: [u8; 4], content: &[u8]) -> [u8; CHECK] {
    let mut sum = Sha256::new();
    sum.update(before);
    sum.update([kind]);
    sum.update(length);
    sum.update(content);
    let mut check = [0; CHECK];
    check.copy_from_slice(&sum.finalize()[..CHECK]);
    check
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use bytes::Bytes;

    use super::*;

    fn header() -> Header {
        Header {
            epoch: Epoch::new([7; 16]),
            revision: Revision(42),
            trust_domain: "mesh.example".into(),
        }
    }

    fn records() -> Vec<Record> {
        let value = |n: u8| Bytes::from(vec![n; 3000]);
        (0..60).map(|n| Record { key: Key::new(format!("v1/{n:03}")), value: value(n) }).collect()
    }

    fn tally_of(records: &[Record]) -> Tally {
        let mut content = Content::default();
        records.iter().for_each(|record| content.count(record));
        content.tally()
    }

    fn write(path: &Path) -> Tally {
        let mut writer = Writer::create(path, &header()).unwrap();
        records().iter().for_each(|record| writer.record(record).unwrap());
        let ca = Ca { certificates: "CERT".into(), key: Zeroizing::new("KEY".into()) };
        writer.ca(&ca).unwrap();
        assert!(!path.exists(), "it has its name once it is whole");
        let names = fs::read_dir(path.parent().unwrap()).unwrap();
        let names: Vec<_> = names.map(|file| file.unwrap().file_name()).collect();
        let partial = names[0].to_str().unwrap();
        assert!(names.len() == 1 && partial.starts_with(".backup.partial-"), "{names:?}");
        writer.finish(tally_of(&records())).unwrap()
    }

    #[test]
    fn a_backup_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup");
        let tally = write(&path);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let backup = Backup::open(&path).unwrap();
        assert_eq!((&backup.header, backup.tally, backup.has_ca), (&header(), tally, true));
        let (mut found, mut ca) = (Vec::new(), String::new());
        for part in backup.parts().unwrap() {
            match part.unwrap() {
                Part::Records(records) => found.extend(records),
                Part::CaCertificates(text) => ca += &text,
                Part::CaKey(text) => ca += &text,
            }
        }
        assert_eq!((found, ca.as_str()), (records(), "CERTKEY"));
        let error = Writer::create(&path, &header()).err().unwrap().to_string();
        assert!(error.contains("never overwritten"), "{error}");
    }

    /// Every cut, and a flipped bit in every region.
    #[test]
    fn a_damaged_file_is_refused_and_the_place_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup");
        write(&path);
        let whole = fs::read(&path).unwrap();
        let other = folder.path().join("other");
        let refused = |bytes: &[u8]| {
            fs::write(&other, bytes).unwrap();
            Backup::open(&other).err().map(|error| error.to_string())
        };
        for cut in (0..whole.len()).step_by(997).chain([whole.len() - 1]) {
            let error = refused(&whole[..cut]).expect("a cut file");
            let named = error.contains(&format!("ends at byte {cut},"));
            assert!(named || cut < MAGIC.len(), "{cut}: {error}");
        }
        for place in (0..whole.len()).step_by(499).chain(whole.len() - 60..whole.len()) {
            let mut flipped = whole.clone();
            flipped[place] ^= 1 << (place % 8);
            assert!(refused(&flipped).is_some(), "byte {place}");
        }
        assert!(refused(&[&whole[..], b"x"].concat()).unwrap().contains("follows its end"));
        assert!(refused(b"something else entirely").unwrap().contains("not a backup"));
        assert!(refused(b"wattle-backup 2\nxxxx").unwrap().contains("format 2"));
        assert!(refused(&whole).is_none());
    }
}
