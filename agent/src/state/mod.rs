//! The state directory: who this machine is (`identity`), and the last set it committed
//! (`committed`). One agent at a time: a lock is held as long as the directory is open.

pub(crate) mod committed;
pub(crate) mod committed_set;
pub(crate) mod device_key;
pub(crate) mod held;
pub(crate) mod identity;
mod key_material;
pub(crate) mod secrets;
pub(crate) mod text;

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;
use serde::{Serialize, de::DeserializeOwned};
use wattle_runtime::files;
use zeroize::Zeroizing;

use self::{
    committed::CommittedLog,
    held::Held,
    identity::{Identity, Pending},
};

const IDENTITY: &str = "identity.json";
const PENDING: &str = "pending.json";
const COMMITTED: &str = "committed";
const LOCK: &str = "lock";

/// What is wrong with the state directory.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// Another process has it.
    #[error(
        "another wattle-agent uses the state directory {}: stop it, or give this one another \
         --state-dir", .0.display()
    )]
    InUse(PathBuf),
    /// The disk said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A file holds something else than it should. No more is said: what is around it may be a key.
    #[error("{} is malformed at line {line}, column {column}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where reading stopped.
        line: usize,
        /// The column in that line.
        column: usize,
    },
}

/// The directory, locked.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Makes the directory where it is missing, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, StateError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| StateError::Io { path, source }
        };
        files::make_private_dir(path).map_err(at(path))?;
        let lock_path = path.join(LOCK);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let lock = options.open(&lock_path).map_err(at(&lock_path))?;
        hand_over(&lock_path, path).map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StateError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(at(&lock_path)(source)),
        }
    }

    /// Who this machine is; `None` before it has joined.
    pub(crate) fn identity(&self) -> Result<Option<Identity>, StateError> {
        self.read(IDENTITY)
    }

    /// Keeps who this machine is.
    pub(crate) fn save_identity(&self, identity: &Identity) -> Result<(), StateError> {
        self.write(IDENTITY, identity)
    }

    /// Keys of an enrolment that wasn't finished.
    pub(crate) fn pending(&self) -> Result<Option<Pending>, StateError> {
        self.read(PENDING)
    }

    /// Keeps the keys of an enrolment that is about to be asked for.
    pub(crate) fn save_pending(&self, pending: &Pending) -> Result<(), StateError> {
        self.write(PENDING, pending)
    }

    /// Ends an enrolment: its keys are the identity's now.
    pub(crate) fn clear_pending(&self) -> Result<(), StateError> {
        self.delete(PENDING)
    }

    /// The set last committed.
    pub(crate) fn committed(&self) -> Result<(CommittedLog, Held), StateError> {
        let path = self.path.join(COMMITTED);
        CommittedLog::open(&path).map_err(|source| StateError::Io { path, source })
    }

    /// Forgets everything but the lock. The identity goes first: without it the rest means nothing.
    pub(crate) fn clear(&self) -> Result<(), StateError> {
        self.delete(IDENTITY)?;
        self.delete(PENDING)?;
        self.delete(COMMITTED)
    }

    /// Forgets the committed set: it is another identity's.
    pub(crate) fn clear_committed(&self) -> Result<(), StateError> {
        self.delete(COMMITTED)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StateError> {
        let path = self.path.join(name);
        let text = match fs::read_to_string(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::Io { path, source }),
        };
        serde_json::from_str(&text).map(Some).map_err(|error| StateError::Malformed {
            path,
            line: error.line(),
            column: error.column(),
        })
    }

    fn write(&self, name: &str, value: &impl Serialize) -> Result<(), StateError> {
        let path = self.path.join(name);
        let text = serde_json::to_string_pretty(value).map_err(io::Error::other);
        text.map(Zeroizing::new)
            .and_then(|text| files::write_private(&path, text.as_bytes()))
            .and_then(|()| hand_over(&path, &self.path))
            .map_err(|source| StateError::Io { path, source })
    }

    fn delete(&self, name: &str) -> Result<(), StateError> {
        let path = self.path.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StateError::Io { path, source: error })
            }
            _ => Ok(()),
        }
    }
}

/// What root writes, by `join`, belongs to whoever the directory does: the agent may be another user.
fn hand_over(path: &Path, directory: &Path) -> io::Result<()> {
    let owner = fs::metadata(directory)?;
    if geteuid().is_root() && owner.uid() != 0 {
        chown(path, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_root_writes_is_the_directory_s_owner_s() {
        assert!(geteuid().is_root(), "this test gives files away: run it as root");
        let folder = tempfile::tempdir().unwrap();
        chown(folder.path(), Some(65534), Some(65533)).unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        state.write(PENDING, &"something").unwrap();
        for name in [LOCK, PENDING] {
            let file = fs::metadata(folder.path().join(name)).unwrap();
            assert_eq!((file.uid(), file.gid()), (65534, 65533), "{name}");
        }
    }
}
