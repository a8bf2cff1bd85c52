//! A machine: threads of its own, a clock of its own, and a plug that can be pulled. Whatever runs
//! on it ends where it stands, as with a kill; what it wrote to disk stays.

use std::{
    panic::resume_unwind,
    thread::{self, JoinHandle},
};

use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;
use wattle_runtime::clock::TestClock;

/// A machine with one program on it.
pub(crate) struct Machine<T> {
    power: CancellationToken,
    thread: JoinHandle<Option<T>>,
}

impl<T: Send + 'static> Machine<T> {
    /// Runs a program.
    pub(crate) fn start<F>(clock: &TestClock, program: impl FnOnce() -> F + Send + 'static) -> Self
    where
        F: Future<Output = T>,
    {
        let (power, clock) = (CancellationToken::new(), clock.clone());
        let plug = power.clone();
        let thread = thread::spawn(move || {
            clock.install();
            let runtime = Builder::new_current_thread()
                .enable_all()
                .on_thread_start(move || clock.install())
                .build()
                .unwrap();
            runtime.block_on(async { plug.run_until_cancelled(program()).await })
            // Here the runtime goes, and every task with it.
        });
        Self { power, thread }
    }

    /// Whether the program ended by itself.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// How the program ended.
    pub(crate) async fn end(self) -> T {
        self.join().await.expect("nobody pulled the plug")
    }

    /// Ends the program wherever it is.
    pub(crate) async fn pull_the_plug(self) -> Option<T> {
        self.power.cancel();
        self.join().await
    }

    async fn join(self) -> Option<T> {
        let joined = tokio::task::spawn_blocking(|| self.thread.join()).await;
        joined.unwrap().unwrap_or_else(|panic| resume_unwind(panic))
    }
}
