//! How fast recent revisions came from the store to the streams.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;
use wattle_model::Revision;

use crate::store::Moment;

/// Revisions remembered.
const KEPT: usize = 4096;

/// One revision's way through this replica.
#[derive(Debug, Clone, Copy)]
pub struct Passage {
    /// When its commit returned, where this replica made it.
    pub committed: Option<Moment>,
    /// When it could be read in the index.
    pub indexed: Instant,
    /// When every waiting stream had been woken.
    pub handed: Option<Instant>,
}

impl Passage {
    /// Since when it is under way, as far as this replica knows.
    pub fn since(&self) -> Instant {
        self.committed.map_or(self.indexed, |moment| moment.at.into())
    }

    /// From the commit until every waiting stream had been woken.
    pub fn handed_after(&self) -> Option<Duration> {
        let (committed, handed) = (self.committed?, self.handed?);
        Some(handed.saturating_duration_since(committed.at.into()))
    }
}

/// Recent passages, rising.
#[derive(Debug, Default)]
pub(super) struct Passages(VecDeque<(Revision, Passage)>);

impl Passages {
    /// A revision came. One that isn't above the last begins anew: another store, other revisions.
    pub(super) fn indexed(&mut self, revision: Revision, passage: Passage) {
        if self.0.back().is_some_and(|(last, _)| *last >= revision) {
            self.0.clear();
        }
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back((revision, passage));
    }

    /// The last `revisions` were told to everybody who waits.
    pub(super) fn handed(&mut self, revisions: usize, at: Instant) {
        for (_, passage) in self.0.iter_mut().rev().take(revisions) {
            passage.handed = Some(at);
        }
    }

    /// A revision's passage, where that isn't long ago.
    pub(super) fn of(&self, revision: Revision) -> Option<Passage> {
        let place = self.0.binary_search_by_key(&revision, |(revision, _)| *revision).ok()?;
        self.0.get(place).map(|(_, passage)| *passage)
    }
}
