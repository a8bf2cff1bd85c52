//! The feed's proof that its watch is alive: a heartbeat in the store, which the watch must bring.
//! Whatever else the watch brings proves nothing, for it may be old; and progress that a server
//! reports has been wrong.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until, timeout};
use wattle_model::Revision;

use super::live::Live;
use crate::store::{Store, StoreError};

/// How closely a feed looks at its watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// Between heartbeats.
    pub every: Duration,
    /// An index for which none has come for so long is stale.
    pub stale_after: Duration,
    /// Between comparisons of what the feed has seen with what the store holds.
    pub audit_every: Duration,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(2),
            stale_after: Duration::from_secs(10),
            audit_every: Duration::from_secs(300),
        }
    }
}

impl Pulse {
    /// How long the store may take to answer.
    fn patience(self) -> Duration {
        self.stale_after * 3 / 10
    }

    /// How long a heartbeat may take through the watch. With the interval and the patience it is
    /// less than what makes an index stale: a silent watch is given up before.
    fn silence(self) -> Duration {
        self.stale_after * 4 / 10
    }
}

/// The heartbeats of one watch.
pub(super) struct Beats {
    store: Arc<dyn Store>,
    live: Live,
    pulse: Pulse,
    state: State,
}

type Answer = BoxFuture<'static, Result<Revision, StoreError>>;

enum State {
    Waiting { until: Instant },
    Asking { since: Instant, answer: Answer },
    Expecting { since: Instant, revision: Revision },
}

impl Beats {
    /// The first one comes at once: until then nobody knows whether the watch has caught up.
    pub(super) fn begin(store: Arc<dyn Store>, live: Live, pulse: Pulse) -> Self {
        Self { store, live, pulse, state: State::Waiting { until: Instant::now() } }
    }

    /// Goes on with the next heartbeat; `head` is how far the watch has come. Fails where it hasn't
    /// brought one in time, or where the store is another. May be dropped at any time and called
    /// again.
    pub(super) async fn go_on(&mut self, head: Revision) -> Result<(), StoreError> {
        match &mut self.state {
            State::Waiting { until } => {
                sleep_until(*until).await;
                let answer = beaten(self.store.clone(), self.pulse.patience(), head);
                let since = Instant::now();
                self.state = State::Asking { since, answer: Box::pin(answer) };
                Ok(())
            }
            State::Asking { since, answer } => {
                let since = *since;
                match answer.await {
                    Ok(revision) => self.state = State::Expecting { since, revision },
                    Err(error @ StoreError::Replaced(_)) => return Err(error),
                    Err(error) => {
                        tracing::debug!(%error, "no heartbeat");
                        self.live.failed(&error);
                        self.state = State::Waiting { until: Instant::now() + self.pulse.every };
                    }
                }
                Ok(())
            }
            State::Expecting { since, .. } => {
                sleep_until(*since + self.pulse.patience() + self.pulse.silence()).await;
                Err(StoreError::Unavailable("the watch is silent".to_owned()))
            }
        }
    }

    /// The watch has come this far. Where that is as far as the heartbeat: since when that is sure.
    pub(super) fn brought(&mut self, head: Revision) -> Option<Instant> {
        match self.state {
            State::Expecting { since, revision } if revision <= head => {
                self.state = State::Waiting { until: since + self.pulse.every };
                Some(since)
            }
            _ => None,
        }
    }
}

/// One heartbeat, after all that the watch has told.
async fn beaten(
    store: Arc<dyn Store>,
    patience: Duration,
    head: Revision,
) -> Result<Revision, StoreError> {
    let late = |_| StoreError::Unavailable(format!("no heartbeat was taken within {patience:?}"));
    let revision = timeout(patience, store.beat()).await.map_err(late)??;
    if revision >= head {
        return Ok(revision);
    }
    // Another epoch costs every agent a full set: no single answer is believed.
    let now = store.head().await?;
    Err(match now < head {
        true => StoreError::Replaced(format!("it is at revision {now}, and was at {head}")),
        false => StoreError::Unavailable(format!(
            "its heartbeat is said to be at {revision}, and the watch has told of {head}"
        )),
    })
}
