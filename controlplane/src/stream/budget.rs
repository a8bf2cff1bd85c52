//! How fast one agent is listened to. Whatever an agent says costs us more than it, so one that says
//! too much is read more slowly, until HTTP/2 stops it.

use std::time::Duration;

use tokio::time::Instant;

/// Messages that an agent may say at once, and how often it may say one for long. An honest agent
/// acks every change where somebody waits, else once a second.
const BURST: u32 = 512;
const EVERY: Duration = Duration::from_millis(4);

/// What one stream's agent may still say: as if each message were due `EVERY` after the one before.
#[derive(Debug)]
pub(super) struct Budget(Instant);

impl Budget {
    /// All of it.
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }

    /// Whether a message may be read now.
    pub(super) fn allows(&self) -> bool {
        Instant::now() >= self.next()
    }

    /// When the next message may be read.
    pub(super) fn next(&self) -> Instant {
        // Subtracted on the other side: a clock may be younger than the burst.
        self.0.checked_sub(EVERY * BURST).unwrap_or(self.0)
    }

    /// A message was read.
    pub(super) fn spend(&mut self) {
        self.0 = self.0.max(Instant::now()) + EVERY;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn flood(budget: &mut Budget) -> u32 {
        let mut read = 0;
        while budget.allows() {
            budget.spend();
            read += 1;
        }
        read
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_read_at_its_rate() {
        advance(Duration::from_secs(60)).await;
        let mut budget = Budget::new();
        assert_eq!(flood(&mut budget), BURST + 1);
        advance(EVERY * 10).await;
        assert_eq!(flood(&mut budget), 10);
        advance(Duration::from_secs(3600)).await;
        assert_eq!(flood(&mut budget), BURST + 1, "what wasn't used doesn't add up");
    }
}
