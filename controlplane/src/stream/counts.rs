//! What happened with agents since this replica started, and how often.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counts {
    ($($(#[$doc:meta])* $field:ident, $count:ident;)*) => {
        /// What happened with agents since this replica started.
        #[derive(Debug, Default)]
        pub struct Counts {
            $($field: AtomicU64,)*
        }

        impl Counts {
            $(
                $(#[$doc])*
                pub fn $field(&self) -> u64 {
                    self.$field.load(Ordering::Relaxed)
                }

                pub(super) fn $count(&self, more: u64) {
                    self.$field.fetch_add(more, Ordering::Relaxed);
                }
            )*
        }
    };
}

counts! {
    /// Streams that went on from where their agents were.
    resumes, count_resume;
    /// Acks whose digest wasn't the one sent.
    digest_mismatches, count_digest_mismatch;
    /// Streams closed because nothing could be written to them.
    stalled, count_stalled;
    /// Agents told to go to another replica because this one had too many.
    shed, count_shed;
    /// Streams closed because another machine came with the same identity.
    displaced, count_displaced;
    /// Full sets refused because the agent had just asked for one.
    resyncs_refused, count_resync_refused;
    /// Full sets put off because too many others were being sent.
    full_sets_put_off, count_full_set_put_off;
    /// Streams ended because the agent broke the protocol.
    protocol_errors, count_protocol_error;
    /// What nodes said of others' endpoints and is so.
    observations_accepted, count_observation_accepted;
    /// What nodes said of others that they don't see.
    observations_unseen, count_observation_unseen;
    /// What nodes said of others with whom they haven't spoken lately.
    observations_old, count_observation_old;
    /// What nodes said of others at addresses that those don't come from.
    observations_elsewhere, count_observation_elsewhere;
    /// What nodes said of others that say it themselves.
    observations_own_word, count_observation_own_word;
    /// What nodes said of others of whom something else was accepted a short while ago.
    observations_too_soon, count_observation_too_soon;
    /// What nodes said beyond what may wait.
    observations_dropped, count_observation_dropped;
}
