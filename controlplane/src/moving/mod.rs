//! Moving a control plane: from one store to another, into a backup file and out of it.
//!
//! What moves is what the records say now. Revisions are a store's own, so past bodies, which are
//! worth nothing without them, stay behind; the new store begins an epoch of its own with its horizon
//! at its head, and every agent gets one full set. Everything else moves bit for bit, so that nobody
//! enrols anew. [`content`] says what each record becomes, [`source`] reads it, [`target`] writes it,
//! [`mod@file`] keeps it.

pub mod content;
pub mod file;
pub mod source;
pub mod target;

use bytes::Bytes;
use wattle_model::Epoch;

use crate::store::{Key, StoreError};

/// One record on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its key, the same everywhere.
    pub key: Key,
    /// Its value, the same in every store it moves to.
    pub value: Bytes,
}

/// Why something can't be moved.
#[derive(Debug, thiserror::Error)]
pub enum MoveError {
    /// A store can't be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The source holds no control plane.
    #[error("there is no control plane in the source: {0} is missing")]
    Nothing(Key),
    /// The source is itself the half of something.
    #[error("the source is half-way filled from {0}: finish that first")]
    Half(String),
    /// A record can't be read.
    #[error("{key}: {what}: put back a copy of the store")]
    Unreadable {
        /// Which one.
        key: Key,
        /// What is wrong with it.
        what: String,
    },
    /// The target has records.
    #[error("the target isn't empty: it holds {0}; with --replace that is deleted first, for good")]
    NotEmpty(String),
    /// A replica runs on the target.
    #[error(
        "a replica runs on it ({0}): stop every one first; those that were killed are forgotten \
         within 10 seconds"
    )]
    InUse(Key),
    /// Two of these run at once.
    #[error("somebody else is moving records into the target: let one of the two finish")]
    Contended,
    /// What arrived isn't what was sent.
    #[error(
        "the target doesn't hold what the source does: {source_records} records with digest \
         {source_digest} became {target_records} with digest {target_digest}"
    )]
    Differs {
        /// Records sent.
        source_records: u64,
        /// Their digest.
        source_digest: String,
        /// Records found.
        target_records: u64,
        /// Their digest.
        target_digest: String,
    },
    /// A backup file can't be used.
    #[error(transparent)]
    File(#[from] file::FileError),
}

/// How a move ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// What was sent.
    pub source: content::Tally,
    /// What was found afterwards.
    pub target: content::Tally,
    /// The target's new epoch.
    pub epoch: Epoch,
}

/// Told how many records have been moved.
pub type Progress<'a> = &'a mut (dyn FnMut(u64) + Send);
