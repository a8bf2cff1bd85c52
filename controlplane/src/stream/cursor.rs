//! Where one agent stands: the whole of what the control plane remembers of what it has sent.
//!
//! A batch walks the view from the cursor's revision, in the order of last changes, and ends with
//! a commit once nothing is left after its position. Pure.

use wattle_model::Revision;
use wattle_view::Position;

/// Where an agent stands.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    /// The agent has, or will have at the last commit sent, its sight at this revision. Zero:
    /// nothing counts, a full set is on its way.
    from: Revision,
    /// How far the batch in hand has come.
    after: Position,
    /// The agent needs a commit even if nothing more is to be said: it was sent a part of a
    /// batch, or waits for a full set.
    owes_commit: bool,
    /// A full set begins when the batch in hand is through. Not before: the agent would take the
    /// beginning of that batch for a part of the full set.
    full_set_next: bool,
}

impl Cursor {
    /// The agent has its sight at `from`.
    pub(super) const fn resume(from: Revision) -> Self {
        Self { from, after: Position::START, owes_commit: false, full_set_next: false }
    }

    /// Nothing that the agent has counts.
    pub(super) const fn full_set() -> Self {
        Self {
            from: Revision::ZERO,
            after: Position::START,
            owes_commit: true,
            full_set_next: false,
        }
    }

    /// The revision that the batch starts from.
    pub(super) const fn from(&self) -> Revision {
        self.from
    }

    /// What was sent last of this batch.
    pub(super) const fn after(&self) -> Position {
        self.after
    }

    /// Whether a page that says nothing must be sent all the same, for its commit.
    pub(super) const fn owes_commit(&self) -> bool {
        self.owes_commit
    }

    /// Whether a batch has begun and isn't through.
    pub(super) fn in_batch(&self) -> bool {
        !self.after.is_start()
    }

    /// Something was sent that the agent applies at the next commit.
    pub(super) const fn owe_commit(&mut self) {
        self.owes_commit = true;
    }

    /// The agent must get everything again.
    pub(super) fn resync(&mut self) {
        if self.after == Position::START {
            *self = Self::full_set();
        } else {
            self.full_set_next = true;
        }
    }

    /// A page went out that doesn't end the batch.
    pub(super) const fn sent_page(&mut self, last: Position) {
        self.after = last;
        self.owes_commit = true;
    }

    /// A commit went out, or there was nothing to say up to `to`.
    pub(super) const fn committed(&mut self, to: Revision) {
        *self = if self.full_set_next { Self::full_set() } else { Self::resume(to) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn middle() -> Cursor {
        let mut cursor = Cursor::resume(Revision(5));
        cursor.sent_page(Position::START);
        cursor
    }

    #[test]
    fn an_idle_agent_is_owed_nothing() {
        let mut cursor = Cursor::resume(Revision(5));
        assert!(!cursor.owes_commit());
        cursor.committed(Revision(9));
        assert_eq!((cursor.from(), cursor.owes_commit()), (Revision(9), false));
    }

    #[test]
    fn a_started_batch_or_a_full_set_is_owed_a_commit() {
        let mut cursor = middle();
        assert!(cursor.owes_commit());
        cursor.committed(Revision(9));
        assert!(!cursor.owes_commit());
        let mut cursor = Cursor::full_set();
        assert!(cursor.owes_commit());
        cursor.committed(Revision(9));
        assert_eq!((cursor.from(), cursor.owes_commit()), (Revision(9), false));
    }
}
