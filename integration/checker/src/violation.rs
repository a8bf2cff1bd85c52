//! What can be wrong.

use std::fmt;

/// A guarantee of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guarantee {
    /// Revisions never go back.
    Ordered,
    /// Nothing comes twice.
    Unique,
    /// Whole transactions only.
    Atomic,
    /// Nothing is left out, and nothing is there that shouldn't be.
    Reliable,
    /// A stream goes on where the last one was cut, without a full set.
    Resumable,
    /// Both sides agree on the digest.
    Digest,
    /// What was answered is in the store.
    Durable,
    /// What was refused isn't, and what was done was done once.
    OnceOrNever,
    /// Answers fit one order that fits real time.
    Linearizable,
    /// No address, name or key has two owners.
    OneOwner,
    /// No token lets more in than it says.
    TokenUses,
    /// The keys of a node come and go together.
    Whole,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{guarantee:?}: {subject}: {what}")]
pub struct Violation {
    /// Of what.
    pub guarantee: Guarantee,
    /// Whose: an agent, a call, a key.
    pub subject: String,
    /// What is wrong.
    pub what: String,
}

/// Gathers violations of one subject.
pub(crate) struct Finds<'a> {
    pub(crate) subject: String,
    pub(crate) all: &'a mut Vec<Violation>,
}

impl Finds<'_> {
    pub(crate) fn find(&mut self, guarantee: Guarantee, what: impl fmt::Display) {
        let (subject, what) = (self.subject.clone(), what.to_string());
        self.all.push(Violation { guarantee, subject, what });
    }

    /// Says what is wrong unless `holds`.
    pub(crate) fn demand(
        &mut self,
        guarantee: Guarantee,
        holds: bool,
        what: impl FnOnce() -> String,
    ) {
        if !holds {
            self.find(guarantee, what());
        }
    }
}
