//! The committed set, in memory and on disk together.

use std::{io, sync::Arc};

use parking_lot::Mutex;
use tokio::task::spawn_blocking;
use wattle_model::Revision;

use super::{
    committed::{CommittedLog, Record},
    held::{Batch, Difference, Held},
};

/// What the agent holds, kept. A disk that fails stops nothing: the data plane matters more, and
/// the next commit writes the whole set again.
#[derive(Debug)]
pub(crate) struct CommittedSet {
    held: Held,
    log: Arc<Mutex<CommittedLog>>,
    error: Option<String>,
}

impl CommittedSet {
    /// What [`super::StateDir::committed`] found.
    pub(crate) fn new(log: CommittedLog, held: Held) -> Self {
        Self { held, log: Arc::new(Mutex::new(log)), error: None }
    }

    /// The set.
    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    /// Why the set on disk is older than the one in memory, where it is.
    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Takes a batch, and returns what it changes. An agent killed from here on begins with it; to
    /// outlive a power cut, call [`Self::sync`].
    pub(crate) async fn commit(&mut self, batch: &Batch) -> Difference {
        let difference = self.held.difference(batch);
        self.held.advance(batch.epoch, batch.revision, batch.config_hash, &difference);
        self.write(&difference).await;
        difference
    }

    /// The same set is also that of a later revision.
    pub(crate) async fn moved(&mut self, revision: Revision) {
        let Some(epoch) = self.held.epoch() else { return };
        let nothing = Difference::default();
        self.held.advance(epoch, revision, None, &nothing);
        self.write(&nothing).await;
    }

    /// Waits until the disk has everything.
    pub(crate) async fn sync(&self) -> io::Result<()> {
        let log = self.log.clone();
        blocking(move || log.lock().sync()).await
    }

    async fn write(&mut self, difference: &Difference) {
        let anew = self.log.lock().wants_rewrite();
        let record =
            if anew { Record::whole(&self.held) } else { Record::commit(&self.held, difference) };
        let log = self.log.clone();
        let written = blocking(move || {
            let mut log = log.lock();
            if anew { log.rewrite(&record) } else { log.append(&record) }
        });
        let error = written.await.err().map(|error| format!("the committed set: {error}"));
        if let Some(error) = error.as_ref().filter(|_| self.error.is_none()) {
            tracing::warn!(%error, "a restart would begin with an older set");
        }
        self.error = error;
    }
}

async fn blocking(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
