//! When to ack. Thousands of agents that ack each of a hundred changes a second would cost the
//! control plane more than the changes do, so an agent acks at most once a second, with what it has
//! by then; at once only where somebody waits for it.

use std::time::Duration;

use rand::RngExt as _;
use tokio::time::{Instant, sleep_until};

/// Between two acks that nobody waits for.
const EVERY: Duration = Duration::from_secs(1);

/// What one stream still has to ack.
#[derive(Debug, Default)]
pub(super) struct Acks {
    last: Option<Instant>,
    owed: Option<Owed>,
}

#[derive(Debug)]
struct Owed {
    due: Instant,
    took: Duration,
}

impl Acks {
    /// A batch was applied.
    pub(super) fn applied(&mut self, took: Duration) {
        self.owe().took = took;
    }

    /// There is something new to say of what was applied.
    pub(super) fn verified(&mut self) {
        self.owe();
    }

    /// An ack goes out now. Returns how long the last batch took, where that wasn't said yet.
    pub(super) fn sent(&mut self) -> Duration {
        self.last = Some(Instant::now());
        self.owed.take().map_or(Duration::ZERO, |owed| owed.took)
    }

    /// Whether an ack is due.
    pub(super) fn are_due(&self) -> bool {
        self.owed.as_ref().is_some_and(|owed| owed.due <= Instant::now())
    }

    /// Waits until an ack is due; for ever where none is owed. Safe to drop and call again.
    pub(super) async fn due(&self) {
        match &self.owed {
            Some(owed) => sleep_until(owed.due).await,
            None => std::future::pending().await,
        }
    }

    /// All agents get a change at the same moment; their acks are spread over what follows.
    fn owe(&mut self) -> &mut Owed {
        let last = self.last;
        self.owed.get_or_insert_with(|| {
            let spread = Instant::now() + EVERY.mul_f64(rand::rng().random());
            let due = last.map_or(spread, |last| spread.max(last + EVERY));
            Owed { due, took: Duration::ZERO }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hundred_changes_a_second_are_acked_once_a_second() {
        let (mut acks, begin, mut sent) = (Acks::default(), Instant::now(), 0);
        for n in 1..=1000 {
            let next = begin + Duration::from_millis(10) * n;
            acks.applied(Duration::from_millis(3));
            tokio::select! {
                () = sleep_until(next) => {}
                () = acks.due() => {
                    assert_eq!(acks.sent(), Duration::from_millis(3));
                    sent += 1;
                    sleep_until(next).await;
                }
            }
        }
        assert!((5..=10).contains(&sent), "{sent} in ten seconds");
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_is_owed_is_sent_and_then_nothing() {
        let mut acks = Acks::default();
        acks.applied(Duration::from_millis(3));
        acks.verified();
        tokio::time::timeout(EVERY, acks.due()).await.unwrap();
        assert_eq!(acks.sent(), Duration::from_millis(3));
        assert!(tokio::time::timeout(10 * EVERY, acks.due()).await.is_err());
        acks.verified();
        assert_eq!(acks.sent(), Duration::ZERO);
    }
}
