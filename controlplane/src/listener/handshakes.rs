//! Whose handshake is next. A bounded number goes on at a time, of each source a part of it: a
//! machine that opens connections and says nothing holds up its own site, and nobody else.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::places::source;

/// Handshakes at the same time.
const MOST: usize = 256;
/// Of one source. More than keeps every core busy.
const MOST_OF_SOURCE: usize = 64;
/// Sources remembered before those that have gone are forgotten.
const REMEMBERED: usize = 1024;

/// The places of one port.
pub(super) struct Handshakes {
    all: Arc<Semaphore>,
    sources: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

/// A handshake's place; free again when it drops.
pub(super) struct Turn {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Handshakes {
    /// All places are free.
    pub(super) fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(MOST)), sources: Mutex::default() }
    }

    /// Waits for a place. First among its own: a source that waits for itself takes nobody's.
    pub(super) async fn turn(&self, address: IpAddr) -> Result<Turn, AcquireError> {
        let own = self.of(source(address)).acquire_owned().await?;
        let all = Arc::clone(&self.all).acquire_owned().await?;
        Ok(Turn { _own: own, _all: all })
    }

    fn of(&self, source: IpAddr) -> Arc<Semaphore> {
        let mut sources = self.sources.lock();
        if let Some(places) = sources.get(&source).and_then(Weak::upgrade) {
            return places;
        }
        if sources.len() >= REMEMBERED {
            sources.retain(|_, places| places.strong_count() > 0);
        }
        let places = Arc::new(Semaphore::new(MOST_OF_SOURCE));
        sources.insert(source, Arc::downgrade(&places));
        places
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use tokio::time::timeout;

    use super::*;

    fn address(n: u32) -> IpAddr {
        Ipv4Addr::from(n).into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_says_nothing_holds_up_itself_alone() {
        let handshakes = Handshakes::new();
        let mut held = Vec::new();
        for _ in 0..MOST_OF_SOURCE {
            held.push(handshakes.turn(address(1)).await.unwrap());
        }
        let own = handshakes.turn(address(1));
        assert!(timeout(Duration::from_secs(60), own).await.is_err());
        let other = timeout(Duration::from_secs(1), handshakes.turn(address(2)));
        assert!(other.await.is_ok());
        held.pop();
        assert!(handshakes.turn(address(1)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn all_together_have_a_bound_and_leave_nothing_behind() {
        let handshakes = Handshakes::new();
        let mut held = Vec::new();
        for n in 0..MOST as u32 {
            held.push(handshakes.turn(address(n)).await.unwrap());
        }
        let next = handshakes.turn(address(9999));
        assert!(timeout(Duration::from_secs(60), next).await.is_err());
        drop(held);
        for n in 0..10_000 {
            drop(handshakes.turn(address(n)).await);
        }
        assert!(handshakes.sources.lock().len() <= REMEMBERED);
    }
}
