//! Ending well, in three beats: ask every task to end, let them finish within a grace period, cut
//! what is left. Every task of a program is spawned here, so none outlives its owner unseen.

use std::{io, panic::AssertUnwindSafe, time::Duration};

use futures::FutureExt as _;
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFuture},
    task::TaskTracker,
};
use tracing::Instrument as _;

/// How long tasks get to unwind once they were cut.
const CUT: Duration = Duration::from_secs(1);

/// A program's tasks and the wish to end them. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    asked: CancellationToken,
    cut: CancellationToken,
    tasks: TaskTracker,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every task ended by itself.
    All,
    /// The grace period ran out; this many were cut.
    Cut(usize),
}

impl Shutdown {
    /// A shutdown that nobody has asked for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the program is asked to end: an arm of every loop.
    pub fn token(&self) -> CancellationToken {
        self.asked.clone()
    }

    /// Resolves when the program is asked to end.
    pub fn requested(&self) -> WaitForCancellationFuture<'_> {
        self.asked.cancelled()
    }

    /// Asks every task to end. Doesn't wait: [`Shutdown::drain`] does.
    pub fn begin(&self) {
        self.asked.cancel();
    }

    /// Runs a task until it ends or is cut. One that panics takes the program down in order: a
    /// program without one of its parts would only seem to work.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let (asked, cut) = (self.asked.clone(), self.cut.clone());
        let watched = async move {
            select! {
                () = cut.cancelled() => tracing::debug!("cut"),
                end = AssertUnwindSafe(task).catch_unwind() => if end.is_err() {
                    tracing::error!("the task {name} panicked: shutting down");
                    asked.cancel();
                },
            }
        };
        self.tasks.spawn(watched.instrument(tracing::info_span!("task", name)));
    }

    /// Asks every task to end, waits for them for `grace`, then cuts the rest.
    pub async fn drain(&self, grace: Duration) -> Drained {
        self.begin();
        self.tasks.close();
        if timeout(grace, self.tasks.wait()).await.is_ok() {
            return Drained::All;
        }
        let left = self.tasks.len();
        self.cut.cancel();
        // A task that blocks its thread can't be cut; the program ends without it.
        let _ = timeout(CUT, self.tasks.wait()).await;
        Drained::Cut(left)
    }
}

/// Resolves with the name of the first SIGTERM or SIGINT.
pub async fn signals() -> io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn tasks_that_listen_end_by_themselves() {
        let shutdown = Shutdown::new();
        let token = shutdown.token();
        shutdown.spawn("listens", async move { token.cancelled().await });
        assert_eq!(shutdown.drain(Duration::from_secs(5)).await, Drained::All);
    }

    #[tokio::test]
    async fn tasks_that_dont_listen_are_cut() {
        let shutdown = Shutdown::new();
        shutdown.spawn("deaf", pending());
        assert_eq!(shutdown.drain(Duration::from_millis(20)).await, Drained::Cut(1));
        assert!(shutdown.tasks.is_empty());
    }

    #[tokio::test]
    async fn a_panic_ends_the_program_in_order() {
        let shutdown = Shutdown::new();
        shutdown.spawn("breaks", async { panic!("on purpose") });
        shutdown.requested().await;
    }
}
