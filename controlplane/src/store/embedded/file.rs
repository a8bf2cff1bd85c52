//! The database file: its tables, how it is opened and what its errors mean.
//!
//! redb stops working after an I/O error until the file is opened again; [`StoreFile`] does that
//! by itself, so that a full disk is an outage for as long as it is full and no longer.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use redb::{
    Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase as _, StorageError,
    TableDefinition, TableError, backends::FileBackend,
};

use crate::store::StoreError;

/// A key and, unless it was deleted, its value.
pub(super) type Written<'a> = (&'a str, Option<&'a [u8]>);

/// Key → mod_revision and value.
pub(super) const DATA: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("data");
/// Revision and place in its transaction → what was written.
pub(super) const LOG: TableDefinition<'_, (u64, u32), Written<'_>> = TableDefinition::new("log");
/// The numbers below.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// The revision of the last transaction.
pub(super) const HEAD: &str = "head";
/// The last revision that the log has forgotten.
pub(super) const COMPACTED: &str = "compacted";
/// How these tables are laid out.
const FORMAT: &str = "format";
const FORMAT_VERSION: u64 = 1;

/// Pages of the file kept in memory, at most. The view holds what is read often.
const CACHE_BYTES: usize = 8 << 20;
/// A file that couldn't be opened again is left alone for this long: somebody may still hold it.
const REOPEN_PAUSE: Duration = Duration::from_millis(50);

/// One database file, open or about to be opened again.
pub(super) struct StoreFile {
    path: PathBuf,
    state: Mutex<State>,
}

enum State {
    Open(Arc<Database>),
    Broken { not_before: Instant, why: StoreError },
}

impl StoreFile {
    /// Opens the file, or makes it. Reads all of it once: a damaged page is found here, not later.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let database = open_database(path, true)?;
        let state = Mutex::new(State::Open(Arc::new(database)));
        Ok(Self { path: path.to_owned(), state })
    }

    /// The database. It is held for one transaction only, because a file can't be opened again
    /// while somebody holds it.
    pub(super) fn database(&self) -> Result<Arc<Database>, StoreError> {
        let mut state = self.state.lock();
        match &*state {
            State::Open(database) => return Ok(database.clone()),
            State::Broken { not_before, why } if Instant::now() < *not_before => {
                return Err(why.clone());
            }
            State::Broken { .. } => {}
        }
        match open_database(&self.path, false) {
            Ok(database) => {
                let database = Arc::new(database);
                *state = State::Open(database.clone());
                tracing::warn!(file = %self.path.display(), "store file opened again");
                Ok(database)
            }
            Err(why) => {
                let not_before = Instant::now() + REOPEN_PAUSE;
                *state = State::Broken { not_before, why: why.clone() };
                Err(why)
            }
        }
    }

    /// A view of the file at its last revision.
    pub(super) fn read(&self) -> Result<ReadTransaction, StoreError> {
        let database = self.database()?;
        database.begin_read().map_err(|error| self.failed(&database, error.into()))
    }

    /// Says what an error means. After an I/O error this use of the file is over.
    pub(super) fn failed(&self, database: &Arc<Database>, error: redb::Error) -> StoreError {
        let lost = matches!(
            error,
            redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::LockPoisoned(_)
        );
        let why = self.explain(error);
        let mut state = self.state.lock();
        if lost && matches!(&*state, State::Open(current) if Arc::ptr_eq(current, database)) {
            tracing::error!(error = %why, "store file can't be used");
            *state = State::Broken { not_before: Instant::now(), why: why.clone() };
        }
        why
    }

    /// Says what an error means, naming the file.
    pub(super) fn explain(&self, error: redb::Error) -> StoreError {
        explain(&self.path, error)
    }
}

fn open_database(path: &Path, check: bool) -> Result<Database, StoreError> {
    let file = private_file(path).map_err(|error| explain(path, redb::Error::Io(error)))?;
    let backend = FileBackend::new(file).map_err(|error| explain_open(path, error))?;
    let database = Builder::new()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(check)
        .create_with_backend(backend)
        .map_err(|error| explain_open(path, error))?;
    match format_of(&database).map_err(|error| explain(path, error))? {
        Some(FORMAT_VERSION) => {}
        None => make_tables(&database).map_err(|error| explain(path, error))?,
        Some(other) => {
            let path = path.display();
            return Err(StoreError::Corrupt(format!(
                "{path} has format {other} and this version reads format {FORMAT_VERSION}: run the version that wrote it"
            )));
        }
    }
    Ok(database)
}

/// The file holds hashes of secrets and who is connected with whom: nobody else may read it.
fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn format_of(database: &Database) -> Result<Option<u64>, redb::Error> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => Ok(meta.get(FORMAT)?.map(|format| format.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn make_tables(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(DATA)?;
    transaction.open_table(LOG)?;
    let mut meta = transaction.open_table(META)?;
    meta.insert(FORMAT, FORMAT_VERSION)?;
    meta.insert(HEAD, 0)?;
    meta.insert(COMPACTED, 0)?;
    drop(meta);
    Ok(transaction.commit()?)
}

fn explain_open(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StoreError::Unavailable(format!(
                "{} is in use by another process: one control plane runs on a data directory at a time",
                path.display()
            ))
        }
        // What redb says of a file that isn't a database, or is cut short.
        DatabaseError::Storage(StorageError::Io(error))
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            damaged(path, &error)
        }
        other => explain(path, other.into()),
    }
}

fn explain(path: &Path, error: redb::Error) -> StoreError {
    match error {
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::TableTypeMismatch { .. } => damaged(path, &error),
        other => StoreError::Unavailable(format!("{}: {other}", path.display())),
    }
}

fn damaged(path: &Path, error: &dyn std::error::Error) -> StoreError {
    StoreError::Corrupt(format!(
        "{} is damaged or not a store file ({error}): put back a copy of it",
        path.display()
    ))
}
