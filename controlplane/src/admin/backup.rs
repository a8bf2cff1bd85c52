//! A backup of the running control plane: what the store holds at one revision, a message at a time.
//! Nothing is read before the last message has left.

use std::{collections::VecDeque, sync::Arc};

use futures::{StreamExt as _, stream::BoxStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use wattle_proto::admin::{
    BackupEnd, BackupHeader, BackupRecord, BackupRecords, BackupResponse, backup_response::Part,
};
use wattle_runtime::clock;

use crate::{
    moving::{MoveError, source::Source},
    nodes::store_failed,
    store::Store,
};

/// Backups at one time on one replica: each holds a view of the store open.
const MAX_BACKUPS: usize = 2;
/// Bytes of keys and values in one message, about.
const MESSAGE: usize = 64 << 10;

/// What a backup sends.
pub(super) type Responses = BoxStream<'static, Result<BackupResponse, Status>>;

/// Makes backups, so many and no more.
pub(super) struct Backups {
    store: Arc<dyn Store>,
    places: Arc<Semaphore>,
    drain: CancellationToken,
}

impl Backups {
    /// All of them end, with an error, when `drain` is cancelled.
    pub(super) fn new(store: Arc<dyn Store>, drain: CancellationToken) -> Self {
        Self { store, places: Arc::new(Semaphore::new(MAX_BACKUPS)), drain }
    }

    pub(super) async fn open(&self) -> Result<Responses, Status> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!(
                "{MAX_BACKUPS} backups are being made, the most there may be: wait for one"
            ))
        })?;
        let source = Source::open(&*self.store).await.map_err(failed)?;
        let header = BackupHeader {
            epoch: source.header.epoch.as_bytes().to_vec().into(),
            revision: source.header.revision.0,
            trust_domain: source.header.trust_domain.clone(),
            at: Some(clock::now().into()),
        };
        let ready = VecDeque::from([Part::Header(header)]);
        let backup =
            Backup { source: Some(source), ready, drain: self.drain.clone(), _place: place };
        Ok(futures::stream::unfold(Some(backup), next).boxed())
    }
}

struct Backup {
    /// Gone once it is read.
    source: Option<Source>,
    ready: VecDeque<Part>,
    drain: CancellationToken,
    _place: OwnedSemaphorePermit,
}

/// The next message; after an error, or the end, none.
async fn next(backup: Option<Backup>) -> Option<(Result<BackupResponse, Status>, Option<Backup>)> {
    let mut backup = backup?;
    let stopped = || Status::unavailable("the replica is stopping: make the backup again");
    let drain = backup.drain.clone();
    let part = drain.run_until_cancelled(backup.next()).await;
    match part.unwrap_or_else(|| Err(stopped())) {
        Ok(Some(part)) => Some((Ok(BackupResponse { part: Some(part) }), Some(backup))),
        Ok(None) => None,
        Err(status) => Some((Err(status), None)),
    }
}

impl Backup {
    async fn next(&mut self) -> Result<Option<Part>, Status> {
        if let Some(part) = self.ready.pop_front() {
            return Ok(Some(part));
        }
        let Some(source) = &mut self.source else { return Ok(None) };
        let (mut records, mut bytes) = (Vec::new(), 0);
        while bytes < MESSAGE {
            let Some(record) = source.next().await.map_err(failed)? else { break };
            let (key, value) = (record.key.to_string(), record.value);
            bytes += key.len() + value.len();
            records.push(BackupRecord { key, value });
        }
        if bytes >= MESSAGE {
            return Ok(Some(Part::Records(BackupRecords { records })));
        }
        if let Some(source) = self.source.take() {
            let tally = source.tally();
            let digest = tally.digest.to_vec().into();
            self.ready.push_back(Part::Records(BackupRecords { records }));
            self.ready.push_back(Part::End(BackupEnd { records: tally.records, digest }));
        }
        Ok(self.ready.pop_front())
    }
}

fn failed(error: MoveError) -> Status {
    match error {
        MoveError::Store(error) => store_failed(error),
        other => {
            tracing::error!(error = %other, "no backup");
            Status::data_loss(other.to_string())
        }
    }
}
