//! One connection: HTTP/2 over whatever was accepted, every request with its peer's name on it.

use std::{convert::Infallible, time::Duration};

use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::ServiceExt as _;

use super::{
    Connections, Handler,
    idle::{Call, Calls},
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

/// Serves a connection until it ends, or, once draining begins, until its calls have ended.
pub(super) async fn serve<I>(connections: Connections, io: I, peer: PeerInfo, handler: Handler)
where
    I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let address = peer.address;
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
    let connection = http2::Builder::new(connections.clone())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_PATIENCE)
        .max_concurrent_streams(CALLS)
        .max_send_buf_size(SEND_BUFFER)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADERS)
        .serve_connection(TokioIo::new(io), service);
    // On the heap: a task holds each large value as often as it is moved.
    let mut connection = Box::pin(connection);
    let end = tokio::select! {
        end = connection.as_mut() => end,
        () = cut.0.cancelled() => return tracing::debug!(%address, "connection cut"),
        () = connections.draining.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = idle(calls.as_ref()) => {
            tracing::debug!(%address, "nothing was asked for");
            connection.as_mut().graceful_shutdown();
            timeout(GOODBYE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = end {
        tracing::debug!(%address, %error, "connection lost");
    }
}

/// Waits until a stranger has been idle for too long; for ever with anybody else.
async fn idle(calls: Option<&Calls>) {
    match calls {
        Some(calls) => calls.idle(IDLE).await,
        None => std::future::pending().await,
    }
}
