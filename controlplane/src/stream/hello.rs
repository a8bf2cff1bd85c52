//! How a stream begins: what the agent has against what this replica knows decides between a
//! resume, a full set, and "not here". Pure; the loop gathers the facts.

use std::time::Duration;

use wattle_model::{Digest, Epoch, Revision};
use wattle_proto::sync::retry::Reason;

use super::convert::Hello;

/// Why an agent was sent everything it may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FullSet {
    /// It had nothing.
    First,
    /// It had a set of another store, or of this one before it was restored.
    OtherEpoch,
    /// It had a revision that the store hasn't reached: the store was set back.
    StoreBehind,
    /// It had a revision so old that nobody knows any more what it saw.
    BelowHorizon,
    /// Its digest was wrong when it came.
    WrongDigest,
    /// It found its digest wrong and asked.
    Resync,
}

impl FullSet {
    /// The name that status and metrics show.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::OtherEpoch => "other-epoch",
            Self::StoreBehind => "store-behind",
            Self::BelowHorizon => "below-horizon",
            Self::WrongDigest => "wrong-digest",
            Self::Resync => "resync",
        }
    }
}

/// What this replica knows when an agent says hello.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) epoch: Epoch,
    pub(super) head: Revision,
    pub(super) horizon: Revision,
    /// Of what the agent may see at head.
    pub(super) digest: Digest,
    /// The replica can't see the store.
    pub(super) stale: bool,
}

/// What to do with an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Go on after this revision.
    Resume(Revision),
    /// Send everything.
    Everything(FullSet),
    /// The agent has seen more than this replica: ask the store who is right.
    Ahead(Revision),
    /// Not here, or not now.
    Retry(Reason),
}

/// Decides.
pub(super) fn decide(hello: &Hello, facts: &Facts) -> Decision {
    let Some(have) = hello.have else { return everything(FullSet::First, hello, facts) };
    if have.epoch != facts.epoch {
        return everything(FullSet::OtherEpoch, hello, facts);
    }
    if have.revision > facts.head {
        return Decision::Ahead(have.revision);
    }
    if have.revision < facts.horizon {
        return everything(FullSet::BelowHorizon, hello, facts);
    }
    // At other revisions nobody knows what the digest should be: the next commit will tell.
    if have.revision == facts.head && have.digest != facts.digest {
        return everything(FullSet::WrongDigest, hello, facts);
    }
    Decision::Resume(have.revision)
}

/// A full set is the one thing that a stale replica may have wrong in a way that hurts: it would
/// take away peers that it hasn't heard of.
pub(super) fn everything(reason: FullSet, hello: &Hello, facts: &Facts) -> Decision {
    if facts.stale && !hello.accept_stale {
        return Decision::Retry(Reason::Stale);
    }
    Decision::Everything(reason)
}

/// How long an agent is asked to wait, at least, before it comes again.
pub(super) const fn patience(reason: Reason) -> Duration {
    match reason {
        Reason::Displaced => Duration::from_secs(60),
        Reason::Stale => Duration::from_secs(2),
        Reason::Behind | Reason::Busy | Reason::Unspecified => Duration::from_secs(1),
    }
}

#[cfg(test)]
mod tests {
    use wattle_model::{Generation, InstanceId};

    use super::*;
    use crate::stream::convert::Have;

    const EPOCH: Epoch = Epoch::new([1; 16]);
    const FACTS: Facts = Facts {
        epoch: EPOCH,
        head: Revision(100),
        horizon: Revision(40),
        digest: Digest::EMPTY,
        stale: false,
    };

    fn hello(revision: u64) -> Hello {
        let have = (revision > 0).then_some(Have {
            epoch: EPOCH,
            revision: Revision(revision),
            digest: Digest::EMPTY,
        });
        Hello {
            instance: InstanceId::new([7; 16]),
            have,
            config_hash: None,
            accept_stale: false,
            agent_version: String::new(),
            stream: 0,
            public_key: None,
            secret_generation: Generation::NONE,
        }
    }

    #[test]
    fn an_agent_goes_on_where_it_was() {
        for revision in [40, 99, 100] {
            assert_eq!(decide(&hello(revision), &FACTS), Decision::Resume(Revision(revision)));
        }
    }

    #[test]
    fn a_full_set_has_a_reason() {
        let reason = |hello: Hello| match decide(&hello, &FACTS) {
            Decision::Everything(reason) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(reason(hello(0)), FullSet::First);
        assert_eq!(reason(hello(39)), FullSet::BelowHorizon);
        let with = |revision, change: fn(&mut Have)| {
            let mut hello = hello(revision);
            change(hello.have.as_mut().unwrap());
            hello
        };
        let epoch = with(100, |have| have.epoch = Epoch::new([2; 16]));
        assert_eq!(reason(epoch), FullSet::OtherEpoch);
        let wrong: fn(&mut Have) =
            |have| have.digest = Digest::of(wattle_model::NodeId::new([1; 16]), b"x");
        assert_eq!(reason(with(100, wrong)), FullSet::WrongDigest);
        // At an older revision nobody can tell.
        assert_eq!(decide(&with(99, wrong), &FACTS), Decision::Resume(Revision(99)));
    }

    #[test]
    fn who_has_seen_more_is_checked_against_the_store() {
        assert_eq!(decide(&hello(101), &FACTS), Decision::Ahead(Revision(101)));
    }

    #[test]
    fn a_stale_replica_gives_no_full_set_unasked() {
        let stale = Facts { stale: true, ..FACTS };
        assert_eq!(decide(&hello(0), &stale), Decision::Retry(Reason::Stale));
        assert_eq!(decide(&hello(90), &stale), Decision::Resume(Revision(90)));
        let desperate = Hello { accept_stale: true, ..hello(0) };
        assert_eq!(decide(&desperate, &stale), Decision::Everything(FullSet::First));
    }
}
