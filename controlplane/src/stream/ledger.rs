//! What one agent was sent and what it says it has: commits and heartbeats on one side, acks on
//! the other. An ack of something that was never sent, or one that goes back, is a protocol error.

use std::collections::VecDeque;

use wattle_model::{Digest, Revision};

/// Revisions remembered until they are acked. Past it the oldest is forgotten: an ack of it still
/// counts, but its digest can't be checked any more.
const MAX_SENT: usize = 64;

#[derive(Debug, Clone, Copy)]
struct Sent {
    revision: Revision,
    digest: Digest,
    commit: bool,
}

/// What an ack means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acked {
    /// The agent's digest is the one that was sent.
    pub(super) digest_matches: bool,
    /// It acks a batch for the first time: what it says of rejections is about that batch.
    pub(super) commit: bool,
    /// Acked before this one.
    pub(super) since: Revision,
}

/// An ack that no honest agent sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidAck {
    #[error("ack.revision: {0} was never sent on this stream")]
    NeverSent(Revision),
    #[error("ack.revision: {got} comes after {last}")]
    GoesBack { got: Revision, last: Revision },
}

/// The account of one stream.
#[derive(Debug)]
pub(super) struct Ledger {
    acked: Revision,
    sent: VecDeque<Sent>,
    /// The highest revision dropped from `sent` without an ack.
    forgotten: Revision,
    /// The highest revision sent with a wish for an ack.
    asked: Revision,
}

impl Ledger {
    /// The account of an agent that has `acked` already.
    pub(super) fn new(acked: Revision) -> Self {
        Self { acked, sent: VecDeque::new(), forgotten: Revision::ZERO, asked: Revision::ZERO }
    }

    /// The last revision acked.
    pub(super) const fn acked(&self) -> Revision {
        self.acked
    }

    /// Whether somebody who waits for `revision` needs the agent to be asked.
    pub(super) fn must_ask(&self, revision: Revision) -> bool {
        revision > self.acked && revision > self.asked
    }

    /// Whether the agent can have been at `revision` on this stream, as far as that is still known.
    pub(super) fn knows(&self, revision: Revision) -> bool {
        revision == self.acked
            || revision <= self.forgotten
            || self.sent.iter().any(|sent| sent.revision == revision)
    }

    /// A commit or a heartbeat went out.
    pub(super) fn sent(&mut self, revision: Revision, digest: Digest, commit: bool, asks: bool) {
        if asks {
            self.asked = self.asked.max(revision);
        }
        match self.sent.back_mut() {
            // A heartbeat that repeats a commit says nothing new.
            Some(last) if last.revision == revision => last.commit |= commit,
            _ => self.sent.push_back(Sent { revision, digest, commit }),
        }
        if self.sent.len() > MAX_SENT
            && let Some(oldest) = self.sent.pop_front()
        {
            self.forgotten = oldest.revision;
        }
    }

    /// The agent acks.
    pub(super) fn ack(&mut self, revision: Revision, digest: Digest) -> Result<Acked, InvalidAck> {
        let since = self.acked;
        if revision < since {
            return Err(InvalidAck::GoesBack { got: revision, last: since });
        }
        let at = self.sent.iter().position(|sent| sent.revision == revision);
        let Some(sent) = at.and_then(|at| self.sent.get(at)).copied() else {
            // Again what was acked before, with a later verification; or something forgotten.
            if revision == since || revision <= self.forgotten {
                self.acked = revision;
                return Ok(Acked { digest_matches: true, commit: false, since });
            }
            return Err(InvalidAck::NeverSent(revision));
        };
        self.acked = revision;
        // The one acked stays: the agent may ack it again.
        while self.sent.front().is_some_and(|first| first.revision < revision) {
            self.sent.pop_front();
        }
        let commit = sent.commit && revision > since;
        Ok(Acked { digest_matches: sent.digest == digest, commit, since })
    }
}

#[cfg(test)]
mod tests {
    use wattle_model::NodeId;

    use super::*;

    fn digest(n: u8) -> Digest {
        Digest::of(NodeId::new([n; 16]), b"")
    }

    #[test]
    fn only_what_was_sent_can_be_acked() {
        let mut ledger = Ledger::new(Revision(5));
        ledger.sent(Revision(7), digest(7), true, false);
        ledger.sent(Revision(9), digest(9), false, false);
        for never in [6, 8, 10, u64::MAX] {
            assert_eq!(
                ledger.ack(Revision(never), digest(7)),
                Err(InvalidAck::NeverSent(Revision(never)))
            );
        }
        let acked = ledger.ack(Revision(7), digest(7)).unwrap();
        assert_eq!(acked, Acked { digest_matches: true, commit: true, since: Revision(5) });
        let again = ledger.ack(Revision(7), digest(7)).unwrap();
        assert!(again.digest_matches && !again.commit && again.since == Revision(7));
        let back = InvalidAck::GoesBack { got: Revision(5), last: Revision(7) };
        assert_eq!(ledger.ack(Revision(5), digest(5)), Err(back));
        let heartbeat = ledger.ack(Revision(9), digest(8)).unwrap();
        assert!(!heartbeat.digest_matches && !heartbeat.commit);
    }

    #[test]
    fn an_agent_that_never_acks_costs_a_bounded_account() {
        let mut ledger = Ledger::new(Revision::ZERO);
        for revision in 1..=1000 {
            ledger.sent(Revision(revision), digest(0), true, false);
        }
        assert_eq!(ledger.sent.len(), MAX_SENT);
        assert!(ledger.ack(Revision(3), digest(9)).unwrap().digest_matches, "not known any more");
        assert!(!ledger.ack(Revision(990), digest(9)).unwrap().digest_matches);
        assert!(ledger.ack(Revision(1001), digest(0)).is_err());
    }

    #[test]
    fn an_ack_is_asked_for_once() {
        let mut ledger = Ledger::new(Revision(5));
        assert!(!ledger.must_ask(Revision(5)) && ledger.must_ask(Revision(7)));
        ledger.sent(Revision(8), digest(8), false, true);
        assert!(!ledger.must_ask(Revision(7)) && ledger.must_ask(Revision(9)));
    }
}
