//! Whole transactions out of a watch's responses. Pure.
//!
//! etcd never cuts a revision in two by itself: a catch-up response ends between revisions
//! (`eventBatch.add` in its `watcher_group.go`, since 3.0), and a live one is one revision. Only a
//! response that is larger than etcd's request limit is cut anywhere, into *fragments*, and each but
//! the last of them says so. So the last revision of a fragment is held back until the next piece
//! shows that it is whole; everything else is passed on at once.

use wattle_model::Revision;

use crate::store::{Change, Operation};

/// Where a watch is.
#[derive(Debug)]
pub(super) struct Assembly {
    /// Events below it were told already, or weren't asked for.
    next: Revision,
    /// A revision of which more may come.
    held: Option<Change>,
}

impl Assembly {
    /// A watch that begins after a revision.
    pub(super) const fn after(revision: Revision) -> Self {
        Self { next: revision.next(), held: None }
    }

    /// Takes a response's events; `more` where it is a fragment that others follow. Passes whole
    /// transactions on, in order. Old events and repeated ones are dropped.
    pub(super) fn take(
        &mut self,
        events: impl IntoIterator<Item = (Revision, Operation)>,
        more: bool,
    ) -> Vec<Change> {
        let mut whole = Vec::new();
        for (revision, operation) in events {
            let newest = self.held.as_ref().map_or(self.next, |held| held.revision);
            if revision < newest {
                continue;
            }
            match &mut self.held {
                Some(held) if held.revision == revision => {
                    // A transaction writes no key twice: it is the same event again.
                    if held.operations.iter().all(|known| known.key() != operation.key()) {
                        held.operations.push(operation);
                    }
                }
                _ => {
                    self.pass(&mut whole);
                    self.held = Some(Change { revision, operations: vec![operation] });
                }
            }
        }
        if !more {
            self.pass(&mut whole);
        }
        whole
    }

    fn pass(&mut self, whole: &mut Vec<Change>) {
        if let Some(change) = self.held.take() {
            self.next = change.revision.next();
            whole.push(change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Key;

    fn events(list: &[(u64, &str)]) -> Vec<(Revision, Operation)> {
        let event = |(revision, key): &(u64, &str)| {
            (Revision(*revision), Operation::Delete(Key::new(*key)))
        };
        list.iter().map(event).collect()
    }

    fn told(changes: &[Change]) -> Vec<(u64, usize)> {
        changes.iter().map(|change| (change.revision.0, change.operations.len())).collect()
    }

    #[test]
    fn a_response_is_passed_on_at_once_and_whole() {
        let mut assembly = Assembly::after(Revision(4));
        let changes = assembly.take(events(&[(5, "a"), (5, "b"), (7, "a")]), false);
        assert_eq!(told(&changes), [(5, 2), (7, 1)]);
    }

    #[test]
    fn a_revision_cut_by_a_fragment_is_told_once_it_is_whole() {
        let mut assembly = Assembly::after(Revision(4));
        assert_eq!(told(&assembly.take(events(&[(5, "a"), (6, "a")]), true)), [(5, 1)]);
        assert_eq!(told(&assembly.take(events(&[(6, "b")]), true)), []);
        let last = assembly.take(events(&[(6, "c"), (8, "a")]), false);
        assert_eq!(told(&last), [(6, 3), (8, 1)]);
        // A fragment that happens to end with a revision's last event.
        assert_eq!(told(&assembly.take(events(&[(9, "a")]), true)), []);
        assert_eq!(told(&assembly.take(events(&[(10, "a")]), false)), [(9, 1), (10, 1)]);
    }

    #[test]
    fn what_is_old_or_comes_twice_is_dropped() {
        let mut assembly = Assembly::after(Revision(4));
        let twice = assembly.take(events(&[(3, "a"), (4, "b"), (5, "a"), (5, "a")]), false);
        assert_eq!(told(&twice), [(5, 1)]);
        assert_eq!(told(&assembly.take(events(&[(5, "a"), (4, "a"), (6, "a")]), false)), [(6, 1)]);
        // Backwards within one response.
        assert_eq!(told(&assembly.take(events(&[(8, "a"), (7, "a")]), false)), [(8, 1)]);
    }
}
