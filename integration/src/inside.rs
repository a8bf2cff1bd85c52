//! A thread of this program on a host: whatever it opens is opened in the host's network. Proxies run
//! there, and agents and operators that the tests play themselves.

use std::{
    fs::File,
    sync::mpsc,
    thread::{Builder, JoinHandle},
};

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};
use tokio::{
    runtime::{self, Handle},
    sync::oneshot,
};

use crate::Host;

/// A runtime on a host. Dropping it ends what runs there.
#[derive(Debug)]
pub struct Inside {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Inside {
    /// Starts a thread on `host`.
    pub fn new(host: &Host) -> Result<Self> {
        let namespace = File::open(host.namespace()).context("the host's namespace")?;
        let (started, starting) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let name = format!("on-{}", host.name());
        let thread = Builder::new().name(name).spawn(move || {
            let runtime = setns(&namespace, CloneFlags::CLONE_NEWNET)
                .map_err(anyhow::Error::from)
                .and_then(|()| Ok(runtime::Builder::new_current_thread().enable_all().build()?));
            let handle = runtime.as_ref().map(|runtime| runtime.handle().clone());
            let handle = handle.map_err(|error| anyhow!("{error:#}"));
            // Who asked is waiting for it.
            let _ = started.send(handle);
            if let Ok(runtime) = runtime {
                // Ends with the guard.
                let _ = runtime.block_on(stopped);
            }
        })?;
        let handle = starting.recv().context("the thread ended")?.context("entering the host")?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Runs something there to its end.
    pub fn run<T: Send + 'static>(
        &self,
        what: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        let (send, receive) = mpsc::channel();
        // Spawned, because a future runs on the thread that waits for it, and this isn't the one.
        self.handle.spawn(async move {
            let _ = send.send(what.await);
        });
        receive.recv().context("what ran on the host panicked")
    }

    /// Starts something there; it ends with this.
    pub fn spawn(&self, what: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(what);
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has said why, if it panicked.
            let _ = thread.join();
        }
    }
}
