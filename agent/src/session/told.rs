//! Which of its peers behind NAT the control plane was told of on this stream: each endpoint once,
//! and so many a second that the control plane drops none.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::reconcile::Sighting;

/// Between two messages.
const EVERY: Duration = Duration::from_secs(1);
/// Peers in one message. The control plane looks into as many a second; the rest has to wait.
const AT_ONCE: usize = 32;

/// What was told on one stream.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// All up to this number.
    number: u64,
    next: Option<Instant>,
    more: bool,
}

impl Told {
    /// What to tell now. Those that were told stay told, whatever the control plane made of it: two
    /// nodes that see a peer at two ports would contradict each other for ever.
    pub(super) fn tell(&mut self, sightings: &[Sighting]) -> Vec<Sighting> {
        let mut new: Vec<_> =
            sightings.iter().filter(|s| s.number > self.number).copied().collect();
        self.more = !new.is_empty();
        if new.is_empty() || self.next.is_some_and(|next| next > Instant::now()) {
            return Vec::new();
        }
        new.sort_by_key(|sighting| sighting.number);
        self.more = new.len() > AT_ONCE;
        new.truncate(AT_ONCE);
        self.number = new.last().map_or(self.number, |last| last.number);
        self.next = Some(Instant::now() + EVERY);
        new
    }

    /// Waits until more may be told; for ever where there is nothing. Safe to drop and call again.
    pub(super) async fn due(&self) {
        match self.next.filter(|_| self.more) {
            Some(next) => sleep_until(next).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::time::timeout;
    use wattle_model::{Endpoint, NodeId};

    use super::*;

    fn sightings(numbers: impl IntoIterator<Item = u64>) -> Vec<Sighting> {
        let endpoint = Endpoint::new(SocketAddr::from(([192, 0, 2, 1], 4000))).unwrap();
        let (node, handshake) = (NodeId::new([1; 16]), Instant::now());
        let sighting = |number| Sighting { node, endpoint, handshake, number };
        numbers.into_iter().map(sighting).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_is_told_once_and_so_many_a_second() {
        let (mut told, all) = (Told::default(), sightings((1..=100).rev()));
        let (begun, mut numbers, mut messages) = (Instant::now(), Vec::new(), 0);
        loop {
            let new = told.tell(&all);
            messages += usize::from(!new.is_empty());
            numbers.extend(new.iter().map(|sighting| sighting.number));
            if timeout(10 * EVERY, told.due()).await.is_err() {
                break;
            }
        }
        assert_eq!(numbers, (1..=100).collect::<Vec<_>>());
        assert_eq!(messages, 4);
        assert!(begun.elapsed() < 14 * EVERY);
        assert_eq!(told.tell(&sightings([100])), []);
        assert_eq!(told.tell(&sightings([100, 101])).len(), 1);
    }
}
