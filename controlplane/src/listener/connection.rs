//! One connection: HTTP/2 over whatever was accepted, every request with its peer's name on it.

use std::{convert::Infallible, time::Duration};

use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    select,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::ServiceExt as _;

use super::{
    Connections, Handler,
    idle::{Call, Calls},
    together::{Begun, First, Together},
};
use crate::access::PeerInfo;

/// A peer that is silent this long is probed, and is gone when it doesn't answer that.
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_PATIENCE: Duration = Duration::from_secs(10);
/// Calls at the same time on one connection.
const CALLS: u32 = 128;
/// What a stream may have unsent before its writer waits. Streams read what is newest when they
/// can write, so more would only make it older.
const SEND_BUFFER: usize = 64 << 10;
/// What a peer may send unread, for one call and for all. Requests are small.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 256 << 10;
/// Bytes of headers of one request.
const HEADERS: u32 = 16 << 10;
/// How long somebody without a certificate may stay without a call, and how long a goodbye may take.
const IDLE: Duration = Duration::from_secs(60);
const GOODBYE: Duration = Duration::from_secs(1);

/// Ends a connection whose peer doesn't read: a call can't end itself while it can't write. In each
/// request's extensions.
#[derive(Debug, Clone, Default)]
pub struct Cut(CancellationToken);

impl Cut {
    /// Ends the connection at once, and all its calls. Says whether nobody had done so before.
    pub fn cut(&self) -> bool {
        let first = !self.0.is_cancelled();
        self.0.cancel();
        first
    }
}

/// Serves a connection until it ends, or, once draining begins, until its calls have ended or are
/// cut.
pub(super) async fn serve<I>(connections: Connections, io: I, peer: PeerInfo, handler: Handler)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let address = peer.address;
    // Whoever comes while the replica stops is heard until nobody is accepted any more.
    let newcomer = connections.draining.is_cancelled();
    let draining = if newcomer { connections.closed.clone() } else { connections.draining.clone() };
    let cut = Cut::default();
    let mark = cut.clone();
    let stranger = !peer.local && peer.certificate.is_none();
    let calls = stranger.then(Calls::default);
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(mark.clone());
        let call = calls.as_ref().map(Calls::begin);
        let answer = handler.clone().oneshot(request);
        async move {
            let answer = answer.await?;
            Ok::<_, Infallible>(match call {
                Some(call) => Call::until_answered(call, answer),
                None => answer,
            })
        }
    });
    let begun = Begun::default();
    let connection = http2::Builder::new(begun.clone())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_PATIENCE)
        .max_concurrent_streams(CALLS)
        .max_send_buf_size(SEND_BUFFER)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADERS)
        // A stream has one request: what its headers were is of no use to the next.
        .header_table_size(0)
        .serve_connection(TokioIo::new(io), service);
    let end = end(&connections, &draining, &cut, calls.as_ref());
    let mut together = Together::new(connection, begun, end);
    let over = match together.first().await {
        First::Over(over) => over,
        First::End(End::Cut) => return tracing::debug!(%address, "connection cut"),
        First::End(End::Leave(patience)) => {
            let late = late(&connections, &cut, patience);
            match together.change(|c| c.graceful_shutdown(), late).first().await {
                First::Over(over) => over,
                First::End(()) => return tracing::debug!(%address, "connection cut"),
            }
        }
    };
    if let Err(error) = over {
        tracing::debug!(%address, %error, "connection lost");
    }
}

/// Why a connection ends whose peer would go on.
enum End {
    /// At once.
    Cut,
    /// Once its calls have ended, and after so long all the same.
    Leave(Option<Duration>),
}

async fn end(
    connections: &Connections,
    draining: &CancellationToken,
    cut: &Cut,
    calls: Option<&Calls>,
) -> End {
    select! {
        () = cut.0.cancelled() => End::Cut,
        () = connections.cut.cancelled() => End::Cut,
        () = draining.cancelled() => End::Leave(None),
        () = idle(calls) => {
            tracing::debug!("nothing was asked for");
            End::Leave(Some(GOODBYE))
        }
    }
}

/// Waits until a connection that was asked to end must be cut.
async fn late(connections: &Connections, cut: &Cut, patience: Option<Duration>) {
    select! {
        () = cut.0.cancelled() => {}
        () = connections.cut.cancelled() => {}
        () = sleep(patience.unwrap_or_default()), if patience.is_some() => {}
    }
}

/// Waits until a stranger has been idle for too long; for ever with anybody else.
async fn idle(calls: Option<&Calls>) {
    match calls {
        // On the heap: most connections aren't a stranger's.
        Some(calls) => Box::pin(calls.idle(IDLE)).await,
        None => std::future::pending().await,
    }
}
