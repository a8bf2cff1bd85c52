//! When agents came to hold what: commits as they happened, and, once it is known when each change
//! was committed in the store, how long each took to each agent.

use std::collections::VecDeque;

use hdrhistogram::Histogram;

use crate::order::{Buckets, Change};

/// The longest latency told apart from longer ones, in microseconds.
const LONGEST: u64 = 600_000_000;

/// An agent went from one revision to another.
#[derive(Debug, Clone, Copy)]
struct Step {
    from: u64,
    to: u64,
    at: u64,
}

/// The commits of all agents of a process.
#[derive(Debug)]
pub(super) struct Log {
    on: bool,
    steps: Vec<Step>,
    /// By revision.
    changes: VecDeque<Change>,
    latencies: Histogram<u64>,
}

impl Default for Log {
    fn default() -> Self {
        let latencies = Histogram::new_with_max(LONGEST, 3).expect("the bounds are sound");
        Self { on: false, steps: Vec::new(), changes: VecDeque::new(), latencies }
    }
}

impl Log {
    /// Begins, or ends and forgets what it doesn't know the times of.
    pub(super) fn record(&mut self, on: bool) {
        self.on = on;
        self.steps = Vec::new();
        self.changes.clear();
        self.latencies.reset();
    }

    /// An agent that held `from` now holds `to`.
    pub(super) fn step(&mut self, from: u64, to: u64, at: u64) {
        if self.on {
            self.steps.push(Step { from, to, at });
        }
    }

    /// These changes were committed, and no others up to `upto`.
    pub(super) fn committed(&mut self, changes: &[Change], upto: u64) {
        self.changes.extend(changes);
        let (ready, later) =
            std::mem::take(&mut self.steps).into_iter().partition(|s| s.to <= upto);
        self.steps = later;
        let ready: Vec<Step> = ready;
        for step in ready {
            let first = self.changes.partition_point(|change| change.revision <= step.from);
            let held = self.changes.range(first..).take_while(|change| change.revision <= step.to);
            for change in held {
                let micros = step.at.saturating_sub(change.committed_at) / 1000;
                self.latencies.saturating_record(micros.max(1));
            }
        }
    }

    /// Latencies so far, in microseconds; they are forgotten here.
    pub(super) fn take(&mut self) -> Buckets {
        let buckets = self.latencies.iter_recorded();
        let buckets = buckets.map(|at| (at.value_iterated_to(), at.count_at_value())).collect();
        self.latencies.reset();
        buckets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: u64, committed_at: u64) -> Change {
        Change { revision, committed_at }
    }

    #[test]
    fn each_change_counts_to_the_first_commit_that_holds_it() {
        let mut log = Log::default();
        log.step(1, 2, 0);
        log.record(true);
        log.step(10, 13, 9_000_000);
        log.step(11, 14, 12_000_000);
        // 12 was somebody else's; 14 isn't known yet.
        log.committed(&[change(11, 1_000_000), change(13, 5_000_000)], 13);
        let seen = log.take();
        assert_eq!(seen.iter().map(|(_, count)| count).sum::<u64>(), 2, "11 and 13: {seen:?}");
        assert!(seen[0].0.abs_diff(4_000) <= 2 && seen[1].0.abs_diff(8_000) <= 4, "{seen:?}");
        log.committed(&[change(14, 11_000_000)], 14);
        let late = log.take();
        assert_eq!(late.iter().map(|(_, count)| count).sum::<u64>(), 2, "13 and 14: {late:?}");
        assert!(late[0].0.abs_diff(1_000) <= 1 && late[1].0.abs_diff(7_000) <= 4, "{late:?}");
        assert_eq!(log.take(), []);
    }
}
