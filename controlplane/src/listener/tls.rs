//! The TLS port. Handshakes run beside the accept loop, a bounded number of them for a bounded
//! time; a bounded number of newcomers waits for a place, the others in the kernel's queue.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use wattle_certs::{PeerCertificate, peer_identity};

use super::{
    Connections, Handler, connection,
    limits::{Hold, Limits, NEWCOMERS},
};
use crate::access::PeerInfo;

/// How long a handshake may take, and how long somebody waits for its turn.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
const TURN_PATIENCE: Duration = Duration::from_secs(30);
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

    /// Accepts and serves connections until nobody is accepted any more.
    pub fn serve(self, connections: &Connections, handler: Handler) {
        let closed = connections.closed.clone();
        let accepted = connections.clone();
        connections.spawn(async move {
            closed.run_until_cancelled(self.accept_all(accepted, handler)).await;
        });
    }

    async fn accept_all(&self, connections: Connections, handler: Handler) {
        let (waiting, limits) = (Arc::new(Semaphore::new(NEWCOMERS)), Arc::new(Limits::new()));
        loop {
            let place = waiting.clone().acquire_owned().await;
            let place = place.expect("the semaphore is never closed");
            match self.tcp.accept().await {
                Ok((tcp, address)) => {
                    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                    let Some(hold) = limits.newcomer(address.ip()) else {
                        tracing::debug!(%address, "too many of its source wait for a handshake");
                        continue;
                    };
                    let newcomer = Newcomer { tcp, address, _waits: (place, hold) };
                    let (limits, tls) = (limits.clone(), self.tls.clone());
                    let (accepted, handler) = (connections.clone(), handler.clone());
                    connections.spawn_connection(serve(newcomer, limits, tls, accepted, handler));
                }
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// A connection that hasn't proved anything yet.
struct Newcomer {
    tcp: TcpStream,
    address: SocketAddr,
    _waits: (OwnedSemaphorePermit, Hold),
}

async fn serve(
    newcomer: Newcomer,
    limits: Arc<Limits>,
    tls: TlsAcceptor,
    connections: Connections,
    handler: Handler,
) {
    let (address, closed) = (newcomer.address, connections.closed.clone());
    // On the heap, and gone with the handshake: the task lives as long as the connection.
    let handshake = Box::pin(shake(newcomer, &limits, tls));
    let shaken = closed.run_until_cancelled(handshake).await;
    let Some(Some((stream, certificate))) = shaken else { return };
    let Some(_hold) = limits.admit(address.ip(), certificate.as_deref()) else {
        let who = certificate.map(|certificate| certificate.id.to_string());
        return tracing::debug!(%address, who, "too many connections of one source or identity");
    };
    let peer = PeerInfo::remote(address, certificate);
    connection::serve(connections, stream, peer, handler).await;
}

type Shaken = (Box<TlsStream<TcpStream>>, Option<Arc<PeerCertificate>>);

/// Waits for its turn and shakes hands.
async fn shake(newcomer: Newcomer, limits: &Limits, tls: TlsAcceptor) -> Option<Shaken> {
    let Newcomer { tcp, address, _waits } = newcomer;
    let turn = limits.handshakes.turn(address.ip());
    let _turn = match timeout(TURN_PATIENCE, turn).await {
        Ok(turn) => turn.ok()?,
        Err(_) => {
            tracing::debug!(%address, "no turn for a handshake in time");
            return None;
        }
    };
    match timeout(HANDSHAKE_PATIENCE, handshake(tls, tcp)).await {
        Ok(Ok(shaken)) => return Some(shaken),
        Ok(Err(error)) => tracing::debug!(%address, %error, "handshake refused"),
        Err(_) => tracing::debug!(%address, "no handshake in time"),
    }
    None
}

async fn handshake(tls: TlsAcceptor, tcp: TcpStream) -> io::Result<Shaken> {
    tcp.set_nodelay(true)?;
    let mut stream = Box::new(tls.accept(tcp).await?);
    let session = stream.get_mut().1;
    session.set_buffer_limit(Some(TLS_BUFFER));
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.map(peer_identity).transpose().map_err(io::Error::other)?;
    Ok((stream, certificate.map(Arc::new)))
}
