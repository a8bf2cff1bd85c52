//! The TLS port. Handshakes run beside the accept loop, a bounded number of them for a bounded
//! time; while all places are taken, newcomers wait in the kernel's queue.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use wattle_certs::{PeerCertificate, peer_identity};

use super::{Connections, Handler, connection, sources::Sources};
use crate::access::PeerInfo;

/// Handshakes at the same time.
const HANDSHAKES: usize = 256;
/// How long one may take.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// Wait after a failed accept: descriptors have run out, and trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What rustls may hold unsent for a connection.
const TLS_BUFFER: usize = 16 << 10;

/// A bound TLS port.
pub struct TlsListener {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl TlsListener {
    /// Binds the port; nobody is accepted before [`TlsListener::serve`].
    pub async fn bind(address: SocketAddr, config: ServerConfig) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        Ok(Self { tcp, tls: TlsAcceptor::from(Arc::new(config)) })
    }

    /// The port that it has.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Accepts and serves connections until draining begins.
    pub fn serve(self, connections: &Connections, handler: Handler) {
        let draining = connections.draining.clone();
        let accepted = connections.clone();
        connections.spawn(async move {
            draining.run_until_cancelled(self.accept_all(accepted, handler)).await;
        });
    }

    async fn accept_all(&self, connections: Connections, handler: Handler) {
        let places = Arc::new(Semaphore::new(HANDSHAKES));
        let sources = Sources::default();
        loop {
            let place = places.clone().acquire_owned().await;
            let place = place.expect("the semaphore is never closed");
            match self.tcp.accept().await {
                Ok((tcp, address)) => {
                    let (tls, sources) = (self.tls.clone(), sources.clone());
                    let accepted = Accepted { tcp, address, tls, place, sources };
                    connections.spawn(accepted.serve(connections.clone(), handler.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// A connection that hasn't proved anything yet. It holds a place among the handshakes.
struct Accepted {
    tcp: TcpStream,
    address: SocketAddr,
    tls: TlsAcceptor,
    place: OwnedSemaphorePermit,
    sources: Sources,
}

impl Accepted {
    async fn serve(self, connections: Connections, handler: Handler) {
        let address = SocketAddr::new(self.address.ip().to_canonical(), self.address.port());
        let draining = connections.draining.clone();
        let handshake = timeout(HANDSHAKE_PATIENCE, handshake(self.tls, self.tcp));
        let Some(shaken) = draining.run_until_cancelled(handshake).await else { return };
        drop(self.place);
        match shaken {
            Ok(Ok((stream, certificate))) => {
                let stranger = certificate.is_none();
                let place = stranger.then(|| self.sources.enter(address.ip()));
                if matches!(place, Some(None)) {
                    return tracing::debug!(%address, "too many connections of its source");
                }
                let peer = PeerInfo::remote(address, certificate);
                connection::serve(connections, stream, peer, handler).await;
            }
            Ok(Err(error)) => tracing::debug!(%address, %error, "handshake refused"),
            Err(_) => tracing::debug!(%address, "no handshake in time"),
        }
    }
}

async fn handshake(
    tls: TlsAcceptor,
    tcp: TcpStream,
) -> io::Result<(TlsStream<TcpStream>, Option<Arc<PeerCertificate>>)> {
    tcp.set_nodelay(true)?;
    let mut stream = tls.accept(tcp).await?;
    let session = stream.get_mut().1;
    session.set_buffer_limit(Some(TLS_BUFFER));
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.map(peer_identity).transpose().map_err(io::Error::other)?;
    Ok((stream, certificate.map(Arc::new)))
}
