//! What the agents of one process share: the roster, the log, counts, and who waits for what.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{agent::Agent, log::Log, roster::Roster};
use crate::order::{Awaited, Buckets, Census, Held, Who};

/// A process's agents and what they share.
#[derive(Default)]
pub(super) struct World {
    pub(super) agents: Mutex<Vec<Arc<Agent>>>,
    pub(super) roster: Mutex<Roster>,
    pub(super) log: Mutex<Log>,
    gaps: Mutex<Gaps>,
    pub(super) counts: Counts,
    waiting: Mutex<Option<Waiting>>,
    awaited: Notify,
}

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) online: AtomicUsize,
    /// Received on streams.
    pub(super) bytes: Arc<AtomicU64>,
    /// Received on other connections.
    pub(super) other_bytes: Arc<AtomicU64>,
    pub(super) mismatches: AtomicU64,
    pub(super) full_sets: AtomicU64,
    pub(super) resumed: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) entries: AtomicU64,
    pub(super) acks: AtomicU64,
    lost: Mutex<BTreeMap<String, u64>>,
}

impl Counts {
    /// A stream or an enrolment that broke off, and why.
    pub(super) fn lost(&self, why: String) {
        *self.lost.lock().entry(why).or_default() += 1;
    }
}

/// How long agents were without a stream.
struct Gaps(Histogram<u64>);

impl Default for Gaps {
    fn default() -> Self {
        Self(crate::fleet::histogram())
    }
}

/// Somebody waits for agents to hold a revision.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    who: Who,
    revision: u64,
    awaited: Awaited,
}

/// Nanoseconds since the Unix epoch: the clock that the control plane on this machine has, too.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl World {
    /// An agent was without a stream for so many nanoseconds.
    pub(super) fn gap(&self, nanos: u64) {
        self.gaps.lock().0.saturating_record((nanos / 1000).max(1));
    }

    /// Gaps since they were last taken, in microseconds.
    pub(super) fn take_gaps(&self) -> Buckets {
        let mut gaps = self.gaps.lock();
        let buckets = gaps.0.iter_recorded();
        let buckets = buckets.map(|value| (value.value_iterated_to(), value.count_at_value()));
        let buckets = buckets.collect();
        gaps.0.reset();
        buckets
    }

    /// The agents meant.
    pub(super) fn chosen(&self, who: Who) -> Vec<Arc<Agent>> {
        self.agents.lock().iter().filter(|agent| who.includes(agent.number)).cloned().collect()
    }

    /// Agent `number` held `from`, and holds `to`.
    pub(super) fn confirmed(&self, number: usize, from: u64, to: u64, at: u64) {
        let mut waiting = self.waiting.lock();
        let Some(waiting) = waiting.as_mut() else { return };
        if from < waiting.revision && waiting.revision <= to && waiting.who.includes(number) {
            waiting.awaited.done += 1;
            waiting.awaited.last_at = waiting.awaited.last_at.max(at);
            if waiting.awaited.done == waiting.awaited.of {
                self.awaited.notify_one();
            }
        }
    }

    /// Waits until the agents meant hold a revision.
    pub(super) async fn wait(
        &self,
        who: Who,
        revision: u64,
        limit: std::time::Duration,
    ) -> Awaited {
        let chosen = self.chosen(who);
        let (mut awaited, of) = (Awaited::default(), chosen.len());
        awaited.of = of;
        for agent in &chosen {
            let held = agent.confirmed();
            if held.revision >= revision {
                awaited.done += 1;
                awaited.last_at = awaited.last_at.max(held.at);
            }
        }
        if awaited.done == of {
            return awaited;
        }
        // One thread: nothing has happened since the count.
        *self.waiting.lock() = Some(Waiting { who, revision, awaited });
        let _ = tokio::time::timeout(limit, async {
            loop {
                self.awaited.notified().await;
                if self.waiting.lock().is_none_or(|w| w.awaited.done == w.awaited.of) {
                    return;
                }
            }
        })
        .await;
        self.waiting.lock().take().map_or(awaited, |waiting| waiting.awaited)
    }

    /// How everything is; what counts since the last census begins anew.
    pub(super) fn census(&self) -> Census {
        let taken = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        let counts = &self.counts;
        Census {
            online: counts.online.load(Ordering::Relaxed),
            bytes: taken(&counts.bytes),
            mismatches: counts.mismatches.load(Ordering::Relaxed),
            full_sets: taken(&counts.full_sets),
            resumed: taken(&counts.resumed),
            commits: taken(&counts.commits),
            entries: taken(&counts.entries),
            acks: taken(&counts.acks),
            lost: std::mem::take(&mut counts.lost.lock()),
            states: self.states(),
        }
    }

    fn states(&self) -> Vec<Held> {
        let mut seen: BTreeMap<(usize, String, usize), usize> = BTreeMap::new();
        for agent in self.agents.lock().iter() {
            let (digest, entries) = agent.held();
            *seen.entry((agent.group, digest.to_string(), entries)).or_default() += 1;
        }
        let held = |((group, digest, entries), agents)| Held { group, digest, entries, agents };
        seen.into_iter().map(held).collect()
    }
}
