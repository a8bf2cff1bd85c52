//! Where Prometheus scrapes: plain HTTP, one page. It says nothing that operators couldn't read, and
//! asks nobody who they are: it should listen where only the monitoring gets.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{encoding::text, registry::Registry};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Scrapes at one time; more wait in the kernel's queue.
const CONNECTIONS: usize = 16;
/// How long a connection may last: a scraper comes again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Wait after a failed accept: descriptors have run out, and trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A bound port for scrapes.
pub struct Endpoint {
    tcp: TcpListener,
}

impl Endpoint {
    /// Binds the port.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).await.map(|tcp| Self { tcp })
    }

    /// The port that it has.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Answers scrapes until it is told to end.
    pub async fn serve(self, registry: Registry, end: CancellationToken) {
        let registry = Arc::new(registry);
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        let accept = async {
            loop {
                let place = places.clone().acquire_owned().await;
                let place = place.expect("the semaphore is never closed");
                while connections.try_join_next().is_some() {}
                match self.tcp.accept().await {
                    Ok((stream, _)) => {
                        let registry = registry.clone();
                        connections.spawn(async move {
                            let _place = place;
                            scraped(stream, &registry).await;
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "scrape not accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        end.run_until_cancelled(accept).await;
    }
}

async fn scraped(stream: TcpStream, registry: &Registry) {
    let service = service_fn(async |request: Request<Incoming>| {
        Ok::<_, Infallible>(answer(request.method(), request.uri().path(), registry))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    match timeout(PATIENCE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "scrape broken off"),
        Err(_) => tracing::debug!("scraper's connection ended: it comes again"),
    }
}

fn answer(method: &Method, path: &str, registry: &Registry) -> Response<Full<Bytes>> {
    let (status, kind, text) = match (method, path) {
        (&Method::GET, "/metrics") => {
            let mut page = String::new();
            match text::encode(&mut page, registry) {
                Ok(()) => (StatusCode::OK, OPEN_METRICS, page),
                Err(error) => {
                    tracing::error!(%error, "metrics can't be written");
                    let said = "the metrics can't be written: see the log\n".to_owned();
                    (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", said)
                }
            }
        }
        _ => (StatusCode::NOT_FOUND, "text/plain", "metrics are at /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}
