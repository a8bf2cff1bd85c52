//! Where readings run: on blocking threads, a few at a time, never on the ones that serve.

use std::{
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use redb::{ReadTransaction, ReadableDatabase as _};
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::file::StoreFile;
use crate::store::StoreError;

/// Readings at the same time; the others wait.
const READS: usize = 16;

/// How long a reading waits for a file that a failed write has made unusable until it is opened
/// again, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

/// Runs readings on blocking threads, a few at a time.
#[derive(Clone)]
pub(super) struct Reads {
    file: Arc<StoreFile>,
    permits: Arc<Semaphore>,
}

impl Reads {
    pub(super) fn of(file: Arc<StoreFile>) -> Self {
        Self { file, permits: Arc::new(Semaphore::new(READS)) }
    }

    /// The file as it is now, and for as long as the answer is kept.
    pub(super) async fn pin(&self) -> Result<Arc<ReadTransaction>, StoreError> {
        let file = self.file.clone();
        self.blocking(move || patiently(|| file.read().map(Arc::new))).await
    }

    /// Reads at head.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        read: impl Fn(&ReadTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let file = self.file.clone();
        self.blocking(move || {
            patiently(|| {
                let database = file.database()?;
                let read = || read(&database.begin_read()?);
                read().map_err(|error| file.failed(&database, error))
            })
        })
        .await
    }

    /// Reads what a pinned transaction shows.
    pub(super) async fn run_in<T: Send + 'static>(
        &self,
        pinned: Arc<ReadTransaction>,
        read: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let file = self.file.clone();
        self.blocking(move || read(&pinned).map_err(|error| file.explain(error))).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let work = move || {
            let _permit = permit;
            work()
        };
        spawn_blocking(work).await.unwrap_or_else(|error| {
            Err(StoreError::Unavailable(format!("a read didn't finish: {error}")))
        })
    }
}

/// Reads again where the file was lost meanwhile: a full disk stops writes, not reads.
fn patiently<T>(read: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match read() {
            Err(StoreError::Unavailable(_)) if Instant::now() < give_up => sleep(PAUSE),
            done => return done,
        }
    }
}
