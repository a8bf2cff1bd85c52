//! Agents that have opened streams here, for whoever tells the other replicas of them. Told late or
//! never, a dead stream elsewhere lives a little longer: the replicas compare their streams from
//! time to time, too. So where the list is full, the rest is dropped and counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;
use wattle_model::NodeId;

use super::claim::Claim;

/// Agents that wait to be told of.
pub const MAX_ARRIVALS: usize = 4096;

/// Who has come and hasn't been told of.
#[derive(Debug, Default)]
pub struct Arrivals {
    /// Somebody will tell of them.
    wanted: AtomicBool,
    waiting: Mutex<Vec<(NodeId, Claim)>>,
    some: Notify,
    dropped: AtomicU64,
}

impl Arrivals {
    /// From now on somebody takes them.
    pub fn begin(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Takes all that there are.
    pub fn take_now(&self) -> Vec<(NodeId, Claim)> {
        std::mem::take(&mut *self.waiting.lock())
    }

    /// Waits until there are some, and takes all.
    pub async fn take(&self) -> Vec<(NodeId, Claim)> {
        loop {
            let taken = self.take_now();
            if !taken.is_empty() {
                return taken;
            }
            self.some.notified().await;
        }
    }

    /// So many were dropped because too many waited, or because nobody could be told.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Somebody couldn't be told of so many.
    pub fn count_dropped(&self, more: usize) {
        self.dropped.fetch_add(more as u64, Ordering::Relaxed);
    }

    pub(super) fn add(&self, node: NodeId, claim: Claim) {
        if !self.wanted.load(Ordering::Relaxed) {
            return;
        }
        let mut waiting = self.waiting.lock();
        if waiting.len() == MAX_ARRIVALS {
            drop(waiting);
            return self.count_dropped(1);
        }
        waiting.push((node, claim));
        drop(waiting);
        self.some.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;
    use wattle_model::InstanceId;

    use super::*;

    fn claim() -> Claim {
        Claim { online: true, instance: InstanceId::default(), stream: 1, at: Instant::now() }
    }

    #[tokio::test]
    async fn what_doesnt_fit_is_counted() {
        let arrivals = Arrivals::default();
        arrivals.add(NodeId::new([1; 16]), claim());
        arrivals.begin();
        for _ in 0..MAX_ARRIVALS + 5 {
            arrivals.add(NodeId::new([2; 16]), claim());
        }
        let taken = arrivals.take().await;
        assert!(taken.iter().all(|(node, _)| *node == NodeId::new([2; 16])), "nobody wanted one");
        assert_eq!((taken.len(), arrivals.dropped()), (MAX_ARRIVALS, 5));
    }
}
