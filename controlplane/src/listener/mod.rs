//! Where calls come in: the TLS port and the local socket. It owns accepting, handshakes and
//! connections, and ends them in three beats; what a call means, the handler knows.
//!
//! tonic's own server is not used: its accept loop has no bound on handshakes, spins when
//! descriptors run out, and hides how much a stream may buffer.

mod connection;
mod handshakes;
mod idle;
mod limits;
mod local;
mod places;
mod tls;
mod together;

use std::{convert::Infallible, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::body::Body;
use tower::util::BoxCloneSyncService;

pub use self::{connection::Cut, local::LocalListener, tls::TlsListener};

/// Answers every call of every connection. A [`crate::access::PeerInfo`] is in each request's
/// extensions.
pub type Handler = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// How long connections have to end once they are cut.
const CUT: Duration = Duration::from_secs(1);

/// All connections of a replica and the loops that accept them.
#[derive(Clone)]
pub struct Connections {
    tasks: TaskTracker,
    draining: CancellationToken,
    /// Nobody new is accepted.
    closed: CancellationToken,
    cut: CancellationToken,
}

impl Connections {
    /// None yet. `draining` is the first beat: whoever holds a stream then tells its agent to move.
    pub fn new(draining: CancellationToken) -> Self {
        let (closed, cut) = (CancellationToken::new(), CancellationToken::new());
        Self { tasks: TaskTracker::new(), draining, closed, cut }
    }

    /// Ends in three beats: lets streams know and accepts nobody any more, waits for them to end,
    /// cuts what is left. Says how many tasks were cut.
    ///
    /// For `notice`, a part of `grace`, newcomers are still let in: a load balancer that asks then is
    /// told that this replica isn't ready, and a refused connection would tell it less.
    pub async fn drain(&self, notice: Duration, grace: Duration) -> usize {
        self.draining.cancel();
        sleep(notice).await;
        self.closed.cancel();
        self.tasks.close();
        if timeout(grace.saturating_sub(notice), self.tasks.wait()).await.is_ok() {
            return 0;
        }
        let left = self.tasks.len();
        self.cut.cancel();
        // A task that isn't gone by then blocks its thread, which no waiting would help.
        let _ = timeout(CUT, self.tasks.wait()).await;
        left
    }

    /// Runs a connection, which sees itself when it is cut.
    fn spawn_connection(&self, connection: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(connection);
    }

    /// Runs any other task until it ends or is cut.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cut = self.cut.clone();
        self.tasks.spawn(async move {
            cut.run_until_cancelled(task).await;
        });
    }
}
