//! Whether the agent holds what the control plane thinks it holds, and when to ask for all of it.

use wattle_model::{Digest, Revision};

/// What is known of it. A full set is asked for once for each time that the two came apart: if it
/// doesn't help, asking again would only send it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Agreement {
    /// The digests were the same when last compared.
    #[default]
    Agreed,
    /// A full set is on its way.
    Asked,
    /// A full set came and didn't help.
    Unresolved,
}

impl Agreement {
    /// Compares what is held with what should be. True: ask for a full set now.
    pub(super) fn compare(
        &mut self,
        held: Digest,
        expected: Digest,
        full_set: bool,
        revision: Revision,
    ) -> bool {
        if held == expected {
            *self = Self::Agreed;
            return false;
        }
        match self {
            Self::Agreed => {
                tracing::warn!(%revision, %held, %expected, "digests differ: asking for a full set");
                *self = Self::Asked;
                true
            }
            Self::Asked if full_set => {
                tracing::error!(%revision, %held, %expected, "a full set's digest differs too");
                *self = Self::Unresolved;
                false
            }
            Self::Asked | Self::Unresolved => false,
        }
    }

    /// The stream was cut: what was asked for won't come.
    pub(super) fn cut(&mut self) {
        if *self == Self::Asked {
            *self = Self::Agreed;
        }
    }

    /// The store is another one: whatever differed, differs no more.
    pub(super) fn new_epoch(&mut self) {
        *self = Self::Agreed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wattle_model::NodeId;

    #[test]
    fn a_full_set_is_asked_for_once_until_they_agree_again() {
        let (right, wrong) = (Digest::EMPTY, Digest::of(NodeId::default(), b"x"));
        let mut agreement = Agreement::default();
        let mut ask = |held, full_set| agreement.compare(held, right, full_set, Revision(1));
        assert!(ask(wrong, false));
        assert!(!ask(wrong, false), "one is on its way");
        assert!(!ask(wrong, true), "it came and didn't help");
        assert!(!ask(wrong, false));
        assert!(!ask(right, false));
        assert!(ask(wrong, false), "they had agreed meanwhile");
    }

    #[test]
    fn a_cut_stream_takes_the_question_with_it() {
        let (right, wrong) = (Digest::EMPTY, Digest::of(NodeId::default(), b"x"));
        let mut agreement = Agreement::default();
        assert!(agreement.compare(wrong, right, false, Revision(1)));
        agreement.cut();
        assert!(agreement.compare(wrong, right, false, Revision(1)));
    }
}
