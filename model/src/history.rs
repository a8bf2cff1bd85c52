//! History: the present and past bodies of one record that shapes sight, each with the revision it
//! held from. With it, who saw whom at any revision is a function of the current keys alone, so a
//! replica that has just started can resume an agent that another one served.

use crate::Revision;

/// Past bodies kept in one record; beyond it the oldest goes and the record's floor rises.
pub const MAX_PAST: usize = 32;

/// One body and the revision it held from. `None` is "no such thing": not yet made, or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version<T> {
    /// The first revision at which this body held.
    pub from: Revision,
    /// The body.
    pub body: Option<T>,
}

/// What a record said at a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum At<T> {
    /// It said this.
    Known(Option<T>),
    /// The record has forgotten: the revision lies below its floor.
    Unknown,
}

/// All that one record remembers, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History<T> {
    floor: Revision,
    past: Vec<Version<T>>,
    present: Version<T>,
}

impl<T> History<T> {
    /// A record whose first body holds from `from`; before that there was nothing.
    pub const fn first(from: Revision, body: T) -> Self {
        Self {
            floor: Revision::ZERO,
            past: Vec::new(),
            present: Version { from, body: Some(body) },
        }
    }

    /// Puts together what a store record holds. `past` is oldest first; `None` when its revisions
    /// don't rise strictly up to `present.from`, or lie below `floor`.
    pub fn from_parts(floor: Revision, past: Vec<Version<T>>, present: Version<T>) -> Option<Self> {
        let mut revisions = past.iter().map(|v| v.from).chain([present.from]);
        let mut last = revisions.next()?;
        if last < floor {
            return None;
        }
        for next in revisions {
            if next <= last {
                return None;
            }
            last = next;
        }
        Some(Self { floor, past, present })
    }

    /// The body that holds now.
    pub const fn present(&self) -> &Version<T> {
        &self.present
    }

    /// Bodies that held before, oldest first.
    pub fn past(&self) -> &[Version<T>] {
        &self.past
    }

    /// Below this revision the record doesn't know what it said. Zero: it has forgotten nothing.
    pub const fn floor(&self) -> Revision {
        self.floor
    }

    /// What the record said at `revision`.
    pub fn at(&self, revision: Revision) -> At<&T> {
        if revision >= self.present.from {
            return At::Known(self.present.body.as_ref());
        }
        if revision < self.floor {
            return At::Unknown;
        }
        let version = self.past.iter().rev().find(|v| v.from <= revision);
        At::Known(version.and_then(|v| v.body.as_ref()))
    }

    /// The revisions after `revision` at which the record changed, oldest first.
    pub fn changes_after(&self, revision: Revision) -> impl Iterator<Item = Revision> {
        let all = self.past.iter().chain([&self.present]).map(|v| v.from);
        all.filter(move |from| *from > revision)
    }

    /// The record after a change at `revision`: the present body becomes a past one.
    #[must_use]
    pub fn changed(mut self, revision: Revision, body: Option<T>) -> Self {
        self.past.push(self.present);
        self.present = Version { from: revision, body };
        if self.past.len() > MAX_PAST {
            self.past.remove(0);
            self.floor = self.past[0].from;
        }
        self
    }

    /// The same record of another thing that each body says.
    pub fn map<U>(self, mut of: impl FnMut(T) -> U) -> History<U> {
        let mut version = |v: Version<T>| Version { from: v.from, body: v.body.map(&mut of) };
        History {
            floor: self.floor,
            past: self.past.into_iter().map(&mut version).collect(),
            present: version(self.present),
        }
    }

    /// The record without what nobody may ask for any more: bodies that ended at or before
    /// `horizon`. Says whether anything went.
    pub fn trim(&mut self, horizon: Revision) -> bool {
        let ends = self.past.iter().skip(1).map(|v| v.from).chain([self.present.from]);
        let ends = ends.take(self.past.len());
        let stale = ends.take_while(|end| *end <= horizon).count();
        if stale == 0 {
            return false;
        }
        self.past.drain(..stale);
        self.floor = self.past.first().map_or(self.present.from, |v| v.from);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn r(n: u64) -> Revision {
        Revision(n)
    }

    #[test]
    fn remembers_what_held_when() {
        let history = History::first(r(5), 'a').changed(r(8), Some('b')).changed(r(9), None);
        let said: Vec<_> = [4, 5, 7, 8, 9, 99].map(|n| history.at(r(n))).to_vec();
        assert_eq!(
            said,
            [None, Some(&'a'), Some(&'a'), Some(&'b'), None, None].map(At::Known).to_vec()
        );
        assert_eq!(history.changes_after(r(5)).collect::<Vec<_>>(), [r(8), r(9)]);
    }

    #[test]
    fn forgets_the_oldest_and_says_so() {
        let mut history = History::first(r(1), 0_u64);
        for n in 2..=40 {
            history = history.changed(r(n), Some(n));
        }
        assert_eq!(history.past().len(), MAX_PAST);
        assert_eq!(history.floor(), r(8));
        assert_eq!(history.at(r(7)), At::Unknown);
        assert_eq!(history.at(r(8)), At::Known(Some(&8)));
    }

    #[test]
    fn trims_up_to_the_horizon_only() {
        let mut history =
            History::first(r(5), 'a').changed(r(8), Some('b')).changed(r(12), Some('c'));
        assert!(!history.clone().trim(r(7)));
        assert!(history.trim(r(9)));
        assert_eq!((history.at(r(7)), history.at(r(9))), (At::Unknown, At::Known(Some(&'b'))));
        assert!(!History::first(r(5), 'a').trim(r(9)), "what holds now is never trimmed");
        assert!(history.trim(r(12)));
        assert_eq!((history.at(r(11)), history.at(r(12))), (At::Unknown, At::Known(Some(&'c'))));
    }

    #[test]
    fn maps_bodies_and_keeps_revisions() {
        let history = History::first(r(5), 1).changed(r(8), None).changed(r(9), Some(2));
        let mapped = history.map(|n| n * 10);
        assert_eq!(mapped, History::first(r(5), 10).changed(r(8), None).changed(r(9), Some(20)));
    }

    #[test]
    fn refuses_parts_out_of_order() {
        let v = |n, c| Version { from: r(n), body: Some(c) };
        assert!(History::from_parts(r(0), vec![v(2, 'a')], v(3, 'b')).is_some());
        assert!(History::from_parts(r(0), vec![v(3, 'a')], v(3, 'b')).is_none());
        assert!(History::from_parts(r(4), vec![v(3, 'a')], v(5, 'b')).is_none());
    }
}
