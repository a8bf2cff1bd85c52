//! What one agent says of where its peers are, on its way to the store: the latest of each peer, one
//! at a time, and at no more than a steady pace. The rule itself is `nodes/mapping.rs`'s.

use std::{collections::BTreeMap, time::Duration};

use tokio::{sync::oneshot, time::Instant};
use wattle_model::{Endpoint, NodeId};

use super::convert::Observation;

/// WireGuard refuses a session of this age: whoever spoke with the peer no later knows nothing.
const FRESH: Duration = Duration::from_secs(180);
/// Peers of whom something may wait. What is said of others meanwhile is dropped: an honest agent
/// says no more than fits.
const MAX_WAITING: usize = 128;
/// Between two of one agent's that are looked into.
const EVERY: Duration = Duration::from_millis(31);
/// Before one that the store didn't take is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What an agent has said of one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) peer: NodeId,
    pub(super) endpoint: Endpoint,
    /// When they spoke last.
    handshake: Instant,
}

impl Seen {
    /// An agent says so now; `None` where it hasn't spoken with the peer lately.
    pub(super) fn now(said: Observation) -> Option<Self> {
        let Observation { peer, endpoint, handshake } = said;
        let handshake = Instant::now().checked_sub(handshake)?;
        Some(Self { peer, endpoint, handshake }).filter(Self::is_fresh)
    }

    /// Whether the session it was learnt from still holds.
    pub(super) fn is_fresh(&self) -> bool {
        self.handshake.elapsed() < FRESH
    }
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is settled, one way or the other.
    Done,
    /// Not yet: after this long.
    Later(Duration),
    /// Nobody knows.
    Failed,
}

/// One agent's observations.
#[derive(Debug)]
pub(super) struct Observations {
    waiting: BTreeMap<NodeId, Waiting>,
    asking: Option<(Seen, oneshot::Receiver<Answer>)>,
    not_before: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    seen: Seen,
    not_before: Instant,
}

impl Observations {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { waiting: BTreeMap::new(), asking: None, not_before: Instant::now() }
    }

    /// The agent said so. What it said of the same peer before is out of date. Says whether there was
    /// room.
    pub(super) fn offer(&mut self, seen: Seen) -> bool {
        let room = self.waiting.len() < MAX_WAITING;
        if let Some(waiting) = self.waiting.get_mut(&seen.peer) {
            waiting.seen = seen;
            return true;
        }
        if room {
            self.waiting.insert(seen.peer, Waiting { seen, not_before: Instant::now() });
        }
        room
    }

    /// The agent says what is known. What it said of the same peer before is out of date, and when the
    /// peer may be asked about again stays.
    pub(super) fn supersede(&mut self, seen: Seen) {
        if let Some(waiting) = self.waiting.get_mut(&seen.peer) {
            waiting.seen = seen;
        }
    }

    /// When there is something to look into, if there is.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.asking.is_some() {
            return None;
        }
        let first = self.waiting.values().map(|waiting| waiting.not_before).min()?;
        Some(first.max(self.not_before))
    }

    /// What to look into now, and where to say what became of it.
    pub(super) fn begin(&mut self) -> Option<(Seen, oneshot::Sender<Answer>)> {
        let now = Instant::now();
        if self.due().is_none_or(|due| due > now) {
            return None;
        }
        let due = self.waiting.iter().find(|(_, waiting)| waiting.not_before <= now);
        let peer = due.map(|(peer, _)| *peer)?;
        let seen = self.waiting.remove(&peer)?.seen;
        let (answer, answered) = oneshot::channel();
        self.asking = Some((seen, answered));
        self.not_before = now + EVERY;
        Some((seen, answer))
    }

    /// Returns when something was looked into; never, where nothing is.
    pub(super) async fn ended(&mut self) {
        let Some((_, answered)) = &mut self.asking else { return std::future::pending().await };
        let answer = answered.await.unwrap_or(Answer::Failed);
        let Some((seen, _)) = self.asking.take() else { return };
        let wait = match answer {
            Answer::Done => return,
            Answer::Later(wait) => wait,
            Answer::Failed => RETRY_AFTER,
        };
        let not_before = Instant::now() + wait;
        let waiting = self.waiting.entry(seen.peer).or_insert(Waiting { seen, not_before });
        waiting.not_before = not_before;
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::time::advance;

    use super::*;

    fn said(peer: u8, port: u16) -> Observation {
        let endpoint = Endpoint::new(SocketAddr::from(([192, 0, 2, peer], port))).unwrap();
        Observation { peer: NodeId::new([peer; 16]), endpoint, handshake: Duration::from_secs(1) }
    }

    fn seen(peer: u8, port: u16) -> Seen {
        Seen::now(said(peer, port)).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_counts_until_its_session_ends() {
        advance(Duration::from_secs(1000)).await;
        let aged = |secs| Observation { handshake: Duration::from_secs(secs), ..said(1, 1) };
        assert!(Seen::now(aged(180)).is_none());
        assert!(Seen::now(Observation { handshake: Duration::MAX, ..said(1, 1) }).is_none());
        let seen = Seen::now(aged(179)).unwrap();
        advance(Duration::from_secs(2)).await;
        assert!(!seen.is_fresh(), "it gets older while it waits");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_looked_into_at_a_steady_pace_and_kept_within_bounds() {
        advance(Duration::from_secs(1000)).await;
        let (mut observations, mut dropped, mut asked) = (Observations::new(), 0, 0);
        for n in 0..10_000_u32 {
            let (peer, port) = ((n % 200) as u8, (n % 60_000) as u16 + 1);
            dropped += u32::from(!observations.offer(seen(peer, port)));
            assert!(observations.waiting.len() <= MAX_WAITING);
            if let Some((_, answer)) = observations.begin() {
                asked += 1;
                answer.send(Answer::Done).unwrap();
                observations.ended().await;
            }
            advance(Duration::from_micros(100)).await;
        }
        assert!((30..=34).contains(&asked), "{asked} in a second");
        assert!(dropped > 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_too_soon_waits_and_the_latest_word_counts() {
        advance(Duration::from_secs(1000)).await;
        let mut observations = Observations::new();
        assert!(observations.offer(seen(1, 1)));
        let (_, answer) = observations.begin().unwrap();
        assert!(observations.due().is_none(), "one at a time");
        answer.send(Answer::Later(Duration::from_secs(30))).unwrap();
        observations.ended().await;
        for port in 2..100 {
            assert!(observations.offer(seen(1, port)));
            advance(Duration::from_millis(100)).await;
            assert!(observations.begin().is_none(), "too soon");
        }
        observations.supersede(seen(1, 100));
        assert!(observations.begin().is_none(), "too soon");
        advance(Duration::from_secs(21)).await;
        let (latest, answer) = observations.begin().unwrap();
        assert_eq!(latest.endpoint, seen(1, 100).endpoint);
        drop(answer);
        observations.ended().await;
        assert_eq!(observations.due(), Some(Instant::now() + RETRY_AFTER), "the store failed");
    }
}
