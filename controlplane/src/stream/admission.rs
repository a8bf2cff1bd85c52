//! Full sets, so many at a time. After an outage thousands of agents may come with nothing at once;
//! served all together they would take memory for each and finish all at the end. Agents that
//! resume need no place, so they pass all who wait here.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::body::Gate;

/// Full sets being sent at the same time: enough to keep every core and the network busy.
pub(super) const PLACES: usize = 64;
/// How long an agent waits for a place. Less than the three heartbeats after which it gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Whoever hasn't read for so long goes on without a place: it holds up nobody who would read.
const SLOW: Duration = Duration::from_secs(1);

/// All places of a replica. Clones are one.
#[derive(Clone)]
pub(super) struct Admission(Arc<Places>);

struct Places {
    free: Arc<Semaphore>,
    taken: Mutex<HashMap<u64, Taken>>,
    next: AtomicU64,
}

struct Taken {
    _place: OwnedSemaphorePermit,
    gate: Arc<Gate>,
}

impl Admission {
    /// All places are free.
    pub(super) fn new() -> Self {
        Self(Arc::new(Places {
            free: Arc::new(Semaphore::new(PLACES)),
            taken: Mutex::default(),
            next: AtomicU64::new(0),
        }))
    }

    /// A stream's turns, one full set after the other.
    pub(super) fn turn(&self, gate: Arc<Gate>) -> Turn {
        Turn { admission: self.clone(), gate, state: State::Idle }
    }

    /// Frees the places of those who don't read.
    pub(super) fn pass_slow(&self) {
        let slow = |taken: &Taken| taken.gate.stalled().is_some_and(|stalled| stalled >= SLOW);
        self.0.taken.lock().retain(|_, taken| !slow(taken));
    }

    fn take(&self, place: OwnedSemaphorePermit, gate: &Arc<Gate>) -> State {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.taken.lock().insert(number, Taken { _place: place, gate: Arc::clone(gate) });
        State::Going(number)
    }
}

/// One stream's place among the full sets.
pub(super) struct Turn {
    admission: Admission,
    gate: Arc<Gate>,
    state: State,
}

type Place = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

enum State {
    Idle,
    Waiting { place: Place, until: Instant },
    Going(u64),
}

impl Turn {
    /// Whether the stream may send a part of a full set now. Where not, it waits from here on.
    pub(super) fn may_go(&mut self) -> bool {
        if let State::Idle = self.state {
            let free = &self.admission.0.free;
            self.state = match Arc::clone(free).try_acquire_owned() {
                Ok(place) => self.admission.take(place, &self.gate),
                Err(_) => State::Waiting {
                    place: Box::pin(Arc::clone(free).acquire_owned()),
                    until: Instant::now() + PATIENCE,
                },
            };
        }
        matches!(self.state, State::Going(_))
    }

    /// Returns when a place has become free; never where none is waited for. Safe to drop and call
    /// again.
    pub(super) async fn granted(&mut self) {
        let State::Waiting { place, .. } = &mut self.state else {
            return std::future::pending().await;
        };
        if let Ok(place) = place.await {
            self.state = self.admission.take(place, &self.gate);
        }
    }

    /// When the stream has waited for long enough; `None` where it doesn't wait.
    pub(super) const fn until(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until, .. } => Some(until),
            _ => None,
        }
    }

    /// The full set is through.
    pub(super) fn done(&mut self) {
        if let State::Going(number) = std::mem::replace(&mut self.state, State::Idle) {
            self.admission.0.taken.lock().remove(&number);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.done();
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    fn crowd(admission: &Admission) -> Vec<Turn> {
        let mut turns: Vec<_> = (0..PLACES).map(|_| admission.turn(Arc::default())).collect();
        assert!(turns.iter_mut().all(Turn::may_go));
        turns
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_late_waits_in_line() {
        let admission = Admission::new();
        let mut turns = crowd(&admission);
        let mut late = admission.turn(Arc::default());
        assert!(!late.may_go() && late.until() == Some(Instant::now() + PATIENCE));
        assert!(timeout(PATIENCE, late.granted()).await.is_err());
        turns[3].done();
        late.granted().await;
        assert!(late.may_go() && late.until().is_none());
        assert!(!turns[3].may_go(), "the next full set of the same stream waits as well");
        drop(late);
        turns[3].granted().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stands_still_loses_its_place_and_no_more() {
        let admission = Admission::new();
        let mut turns = crowd(&admission);
        let mut late = admission.turn(Arc::default());
        assert!(!late.may_go());
        turns[5].gate.hand_over();
        advance(SLOW).await;
        admission.pass_slow();
        late.granted().await;
        assert!(turns[5].may_go(), "it goes on, once it reads");
        turns[5].done();
        assert!(!turns[5].may_go(), "its place was given on once, not twice");
    }
}
