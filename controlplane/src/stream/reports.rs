//! What an agent says of itself, on its way to the store: at most one write a second, the latest
//! wins, and nothing is written twice.

use std::time::Duration;

use tokio::{sync::oneshot, time::Instant};
use wattle_model::{Endpoint, Generation};

/// Between two writes for one agent.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// Before a write that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Where an agent may be reached, and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reported {
    /// By its own account.
    pub(super) own: Vec<Endpoint>,
    /// Where its stream comes from, with the port that it listens on.
    pub(super) observed: Option<Endpoint>,
    /// The newest of its network's secrets that it holds.
    pub(super) secret_generation: Generation,
}

/// One agent's reports.
#[derive(Debug)]
pub(super) struct Reports {
    wanted: Option<Reported>,
    writing: Option<(Reported, oneshot::Receiver<bool>)>,
    written: Option<Reported>,
    not_before: Instant,
}

impl Reports {
    /// Nothing yet, and nothing to be written before `not_before`.
    pub(super) const fn new(not_before: Instant) -> Self {
        Self { wanted: None, writing: None, written: None, not_before }
    }

    /// When the next write may be.
    pub(super) const fn not_before(&self) -> Instant {
        self.not_before
    }

    /// The agent reported. What waited before is out of date.
    pub(super) fn offer(&mut self, reported: Reported) {
        let underway = self.writing.as_ref().map(|(reported, _)| reported);
        let known = underway.or(self.written.as_ref()) == Some(&reported);
        self.wanted = (!known).then_some(reported);
    }

    /// When there is something to write, if there is.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.wanted.is_some() && self.writing.is_none()).then_some(self.not_before)
    }

    /// What to write now, and where to say whether that went well.
    pub(super) fn begin(&mut self) -> Option<(Reported, oneshot::Sender<bool>)> {
        if self.due().is_none_or(|due| due > Instant::now()) {
            return None;
        }
        let reported = self.wanted.take()?;
        let (done, writing) = oneshot::channel();
        self.writing = Some((reported.clone(), writing));
        self.not_before = Instant::now() + WRITE_EVERY;
        Some((reported, done))
    }

    /// Returns when a write has ended; never, where there is none.
    pub(super) async fn ended(&mut self) {
        let Some((_, writing)) = &mut self.writing else { return std::future::pending().await };
        let went_well = writing.await.unwrap_or(false);
        let Some((reported, _)) = self.writing.take() else { return };
        if went_well {
            self.written = Some(reported);
        } else {
            self.not_before = Instant::now() + RETRY_AFTER;
            self.wanted.get_or_insert(reported);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn endpoints(port: u16) -> Reported {
        let endpoint = Endpoint::new(SocketAddr::from(([192, 0, 2, 1], port)));
        let own = vec![endpoint.unwrap()];
        Reported { own, observed: None, secret_generation: Generation::NONE }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_one_write_a_second_of_the_latest() {
        let (mut reports, mut writes) = (Reports::new(Instant::now()), Vec::new());
        let start = Instant::now();
        for n in 0..2500_u16 {
            reports.offer(endpoints(n + 1));
            if let Some((endpoints, done)) = reports.begin() {
                writes.push(endpoints);
                done.send(true).unwrap();
                reports.ended().await;
            }
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(writes, [endpoints(1), endpoints(1001), endpoints(2001)]);
        assert_eq!(reports.due(), Some(start + Duration::from_secs(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_written_is_not_written_again_and_a_failure_is() {
        let mut reports = Reports::new(Instant::now());
        reports.offer(endpoints(1));
        let (_, done) = reports.begin().unwrap();
        reports.offer(endpoints(1));
        assert_eq!(reports.due(), None, "it is being written");
        drop(done);
        reports.ended().await;
        assert_eq!(reports.due(), Some(Instant::now() + RETRY_AFTER));
        assert!(reports.begin().is_none());
        tokio::time::advance(RETRY_AFTER).await;
        let (_, done) = reports.begin().unwrap();
        done.send(true).unwrap();
        reports.ended().await;
        reports.offer(endpoints(1));
        assert_eq!(reports.due(), None);
    }
}
