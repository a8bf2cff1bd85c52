//! Clocks that tests set, one a machine: several machines of a test may share a process, each with
//! threads of its own, and disagree about the time. Not compiled into any product.

use std::{cell::RefCell, time::Duration};

use tokio::{sync::watch, time::sleep};

/// One machine's clock. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct TestClock(watch::Sender<Duration>);

thread_local! {
    static OF_THIS_THREAD: RefCell<Option<TestClock>> = const { RefCell::new(None) };
}

impl Default for TestClock {
    fn default() -> Self {
        Self(watch::Sender::new(Duration::ZERO))
    }
}

impl TestClock {
    /// Makes this the clock of the calling thread.
    pub fn install(&self) {
        OF_THIS_THREAD.set(Some(self.clone()));
    }

    /// Sets it this far ahead of the real clock; back, where it was further.
    pub fn set_ahead(&self, ahead: Duration) {
        self.0.send_replace(ahead);
    }

    /// How far it is ahead of the real clock.
    pub fn ahead(&self) -> Duration {
        *self.0.borrow()
    }
}

/// How far this thread's clock is ahead of the real one.
pub(super) fn ahead() -> Duration {
    OF_THIS_THREAD.with_borrow(|clock| clock.as_ref().map_or(Duration::ZERO, TestClock::ahead))
}

/// The moves of this thread's clock.
#[derive(Debug)]
pub(super) struct Moves(Option<watch::Receiver<Duration>>);

impl Moves {
    pub(super) fn begin() -> Self {
        Self(OF_THIS_THREAD.with_borrow(|clock| clock.as_ref().map(|clock| clock.0.subscribe())))
    }

    /// Waits, but not past a move since the last call.
    pub(super) async fn next(&mut self, wait: Duration) {
        let Some(moves) = &mut self.0 else { return sleep(wait).await };
        tokio::select! {
            () = sleep(wait) => {}
            Ok(()) = moves.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::SystemTime};

    use super::*;
    use crate::clock;

    #[tokio::test]
    async fn each_machine_has_its_own_and_a_jump_is_seen_at_once() {
        let clock = TestClock::default();
        clock.install();
        let day = Duration::from_hours(24);
        clock.set_ahead(day);
        assert!(clock::now() > SystemTime::now() + day / 2);
        thread::spawn(move || assert!(clock::now() < SystemTime::now() + day / 2)).join().unwrap();

        let mut moves = Moves::begin();
        clock.set_ahead(Duration::ZERO);
        let moved = tokio::time::timeout(Duration::from_secs(5), moves.next(day)).await;
        moved.unwrap();
    }
}
