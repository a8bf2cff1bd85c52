//! The wall clock: what it says, how long to wait for it, and its time as the store and the wire
//! carry it.
//!
//! Everything that a date decides asks [`now`]: tokens, certificates, the horizon. It jumps, on
//! machines that were asleep or had the wrong time, and tests make it jump with `TestClock`.

#[cfg(feature = "test-clock")]
mod test_clock;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{pki_types::UnixTime, time_provider::TimeProvider};

#[cfg(feature = "test-clock")]
pub use self::test_clock::TestClock;

/// What this machine's clock says.
pub fn now() -> SystemTime {
    let now = SystemTime::now();
    #[cfg(feature = "test-clock")]
    let now = now + test_clock::ahead();
    now
}

/// Looking at the clock again and again: a timer doesn't see it jump, so whoever waits for a date
/// looks often. A jump that a test makes ends the wait at once.
#[derive(Debug)]
pub struct Looks {
    #[cfg(feature = "test-clock")]
    moves: test_clock::Moves,
}

impl Looks {
    /// Begins: from here on, no jump is missed.
    pub fn begin() -> Self {
        Self {
            #[cfg(feature = "test-clock")]
            moves: test_clock::Moves::begin(),
        }
    }

    /// Waits until the clock is to be looked at again.
    pub async fn next(&mut self, wait: Duration) {
        #[cfg(feature = "test-clock")]
        self.moves.next(wait).await;
        #[cfg(not(feature = "test-clock"))]
        tokio::time::sleep(wait).await;
    }
}

/// The same clock for handshakes, which look at certificates' dates.
pub fn for_handshakes() -> Arc<dyn TimeProvider> {
    Arc::new(Handshakes)
}

#[derive(Debug)]
struct Handshakes;

impl TimeProvider for Handshakes {
    fn current_time(&self) -> Option<UnixTime> {
        now().duration_since(UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

/// Milliseconds since 1970; zero before.
pub fn unix_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The time that [`unix_millis`] gave. What no clock can show becomes 1970.
pub fn from_unix_millis(millis: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_never_fails() {
        assert_eq!(unix_millis(from_unix_millis(1_700_000_000_123)), 1_700_000_000_123);
        assert_eq!(unix_millis(UNIX_EPOCH - Duration::from_secs(1)), 0);
        let _ = from_unix_millis(u64::MAX);
    }
}
