//! Which etcd this is, and how far it was seen to be. Another cluster id, or a revision that goes
//! back, means that it was replaced or restored from a backup: told once, then taken for true.

use etcd_client::ResponseHeader;
use parking_lot::Mutex;
use wattle_model::Revision;

use crate::store::StoreError;

#[derive(Default)]
pub(super) struct Identity(Mutex<State>);

#[derive(Default)]
struct State {
    cluster: Option<u64>,
    /// The highest revision that any answer had.
    seen: Revision,
    /// How often another store was found here.
    replaced: u64,
}

/// What was known when a call began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    seen: Revision,
    replaced: u64,
}

impl Identity {
    /// To be taken before a call whose answer is judged.
    pub(super) fn mark(&self) -> Mark {
        let state = self.0.lock();
        Mark { seen: state.seen, replaced: state.replaced }
    }

    /// The revision of a linearizable answer, which is at least the highest one known before.
    pub(super) fn linear(
        &self,
        header: Option<&ResponseHeader>,
        mark: Mark,
    ) -> Result<Revision, StoreError> {
        let revision = self.same_cluster(header)?;
        let mut state = self.0.lock();
        if revision < mark.seen && state.replaced == mark.replaced {
            let before = std::mem::replace(&mut state.seen, revision);
            state.replaced += 1;
            return Err(replaced(format!("its revision went back from {before} to {revision}")));
        }
        state.seen = state.seen.max(revision);
        Ok(revision)
    }

    /// The revision of an answer that may be old; `None` where something newer was already seen.
    pub(super) fn not_older(
        &self,
        header: Option<&ResponseHeader>,
    ) -> Result<Option<Revision>, StoreError> {
        let revision = self.same_cluster(header)?;
        let mut state = self.0.lock();
        if revision < state.seen {
            return Ok(None);
        }
        state.seen = revision;
        Ok(Some(revision))
    }

    /// Fails where another store is found than the one that the mark was taken of.
    pub(super) fn still(
        &self,
        header: Option<&ResponseHeader>,
        mark: Mark,
    ) -> Result<(), StoreError> {
        self.same_cluster(header)?;
        if self.0.lock().replaced != mark.replaced {
            return Err(replaced("it isn't the one that this began with".to_owned()));
        }
        Ok(())
    }

    /// How often another store was found here.
    pub(super) fn replaced(&self) -> u64 {
        self.0.lock().replaced
    }

    /// It was found out by other means: what was seen counts no more. Where another call has found
    /// it out meanwhile, it was the same.
    pub(super) fn set_back(&self, mark: Mark) {
        let mut state = self.0.lock();
        if state.replaced == mark.replaced {
            (state.seen, state.replaced) = (Revision::ZERO, state.replaced + 1);
        }
    }

    /// A watch told of this revision.
    pub(super) fn told(&self, revision: Revision, mark: Mark) {
        let mut state = self.0.lock();
        if state.replaced == mark.replaced {
            state.seen = state.seen.max(revision);
        }
    }

    fn same_cluster(&self, header: Option<&ResponseHeader>) -> Result<Revision, StoreError> {
        let header = header.ok_or_else(|| StoreError::Unavailable("etcd: no header".to_owned()))?;
        let revision = Revision(u64::try_from(header.revision()).unwrap_or(0));
        let mut state = self.0.lock();
        match state.cluster.replace(header.cluster_id()) {
            Some(before) if before != header.cluster_id() => {
                (state.seen, state.replaced) = (revision, state.replaced + 1);
                Err(replaced(format!("cluster {before:x} is now {:x}", header.cluster_id())))
            }
            _ => Ok(revision),
        }
    }
}

fn replaced(what: String) -> StoreError {
    tracing::warn!(%what, "etcd was replaced or restored");
    StoreError::Replaced(format!("etcd: {what}"))
}
