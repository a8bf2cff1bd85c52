//! When this process committed what: the beginning of every "how long did it take". Only recent
//! revisions are known, and of those only what was committed here.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Instant, SystemTime},
};

use parking_lot::Mutex;
use wattle_model::Revision;
use wattle_runtime::clock;

/// Revisions remembered.
const KEPT: usize = 4096;

/// A commit's return, on the clock that measures and on the one that dates.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// To measure from.
    pub at: Instant,
    /// To tell others.
    pub date: SystemTime,
}

/// The last commits. Clones are one.
#[derive(Debug, Clone, Default)]
pub(super) struct Moments(Arc<Mutex<VecDeque<(Revision, Moment)>>>);

impl Moments {
    /// Everything after the last revision noted, up to `revision`, has just been committed.
    pub(super) fn committed(&self, after: Revision, revision: Revision) {
        let moment = Moment { at: Instant::now(), date: clock::now() };
        let mut moments = self.0.lock();
        for revision in after.0 + 1..=revision.0 {
            if moments.len() == KEPT {
                moments.pop_front();
            }
            moments.push_back((Revision(revision), moment));
        }
    }

    /// One revision has just been committed; others may have been noted that are newer.
    pub(super) fn note(&self, revision: Revision) {
        let moment = Moment { at: Instant::now(), date: clock::now() };
        let mut moments = self.0.lock();
        let place = moments.partition_point(|(known, _)| *known < revision);
        if moments.get(place).is_some_and(|(known, _)| *known == revision) {
            return;
        }
        moments.insert(place, (revision, moment));
        if moments.len() > KEPT {
            moments.pop_front();
        }
    }

    /// When a revision was committed.
    pub(super) fn of(&self, revision: Revision) -> Option<Moment> {
        let moments = self.0.lock();
        let place = moments.binary_search_by_key(&revision, |(revision, _)| *revision).ok()?;
        moments.get(place).map(|(_, moment)| *moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_commits_are_known_and_no_more() {
        let moments = Moments::default();
        moments.committed(Revision(7), Revision(7));
        assert!(moments.of(Revision(7)).is_none(), "nothing was committed");
        moments.committed(Revision(7), Revision(9));
        let (first, second) = (moments.of(Revision(8)).unwrap(), moments.of(Revision(9)).unwrap());
        assert_eq!(first.at, second.at, "one group, one commit");
        moments.committed(Revision(9), Revision(9 + KEPT as u64));
        assert!(moments.of(Revision(9)).is_none() && moments.of(Revision(10)).is_some());
        assert_eq!(moments.0.lock().len(), KEPT);
    }

    #[test]
    fn commits_that_return_out_of_order_are_found() {
        let moments = Moments::default();
        for revision in [9, 5, 7, 5] {
            moments.note(Revision(revision));
        }
        let known: Vec<_> = (0..12).filter(|r| moments.of(Revision(*r)).is_some()).collect();
        assert_eq!(known, [5, 7, 9]);
    }
}
