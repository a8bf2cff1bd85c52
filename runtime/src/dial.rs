//! Reaching a control plane: TCP and TLS to the first address that answers as it should, or the
//! local socket. Agents and operators call it; who the server must be is the TLS configuration's.

use std::{fmt::Write as _, io, net::IpAddr, path::Path, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rand::seq::SliceRandom as _;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    net::{TcpStream, UnixStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::clock;

/// A path that is silent this long is probed; a probe unanswered as long is a dead connection. A
/// frozen process and a black hole are so noticed within 20 s, and an agent has another replica
/// before 35 s are over; heartbeats would take three times 15 s. The probes are HTTP/2's own, so they
/// end at the process and not at its kernel or at a load balancer, which is why TCP's keepalive and
/// TCP_USER_TIMEOUT, which they make superfluous, wouldn't do.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How long one IP address may take to accept a TCP connection: the kernel of a machine that is there
/// does at once, and a lost packet is sent again after a second.
const TCP_PATIENCE: Duration = Duration::from_secs(2);
/// IP addresses of one name that are tried.
const IPS_OF_NAME: usize = 8;

/// A connection and where it leads.
#[derive(Debug, Clone)]
pub struct Dialed {
    /// Calls go here. Lost connections are made again, to the same address.
    pub channel: Channel,
    /// The address that answered.
    pub address: String,
    /// This machine's own address on the connection.
    pub local: Option<IpAddr>,
}

/// No address answered as it should.
#[derive(Debug, thiserror::Error)]
#[error("no control plane could be reached{}", listed(.0))]
pub struct DialError(Vec<(String, ConnectError)>);

/// Why one address didn't do.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answered in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The address can't be reached.
    #[error("{0}")]
    Unreachable(#[source] io::Error),
    /// Somebody answered who isn't the control plane, or TLS broke off.
    #[error("{}", wattle_certs::explain(.0))]
    Tls(#[source] io::Error),
    /// The connection didn't become HTTP/2.
    #[error("no HTTP/2: {0}")]
    Http(#[source] tonic::transport::Error),
}

impl DialError {
    /// Each address tried and why it didn't do.
    pub fn attempts(&self) -> &[(String, ConnectError)] {
        &self.0
    }

    /// The control plane was there, and hung up before it spoke HTTP/2: so it does with a client's
    /// certificate that it doesn't believe.
    pub fn hung_up(&self) -> bool {
        self.0.iter().any(|(_, error)| matches!(error, ConnectError::Http(_)))
    }

    /// Somebody answered whose certificate isn't the control plane's: trying again won't help.
    pub fn is_untrusted(&self) -> bool {
        self.0.iter().any(|(_, error)| match error {
            ConnectError::Tls(error) => error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>())
                .is_some_and(|tls| matches!(tls, rustls::Error::InvalidCertificate(_))),
            _ => false,
        })
    }
}

/// Connects to the first of `addresses` (`host:port`) that answers as `tls` demands, giving each
/// `patience` to do so.
pub async fn channel(
    addresses: &[String],
    tls: Arc<ClientConfig>,
    patience: Duration,
) -> Result<Dialed, DialError> {
    let mut tls = ClientConfig::clone(tls.as_ref());
    tls.time_provider = clock::for_handshakes();
    let tls = Arc::new(tls);
    let mut failed = Vec::new();
    for address in addresses {
        match channel_to(address, &tls, patience).await {
            Ok((channel, local)) => {
                return Ok(Dialed { channel, address: address.clone(), local });
            }
            Err(error) => failed.push((address.clone(), error)),
        }
    }
    Err(DialError(failed))
}

/// Connects to a control plane's local socket.
pub async fn unix(path: &Path) -> Result<Channel, DialError> {
    let target: Arc<Path> = path.into();
    let connector = service_fn(move |_| {
        let target = target.clone();
        async move { UnixStream::connect(target).await.map(TokioIo::new) }
    });
    // Tried first by hand, for an error that says what is wrong.
    let attempt = async {
        UnixStream::connect(path).await.map_err(ConnectError::Unreachable)?;
        endpoint().connect_with_connector(connector).await.map_err(ConnectError::Http)
    };
    attempt.await.map_err(|error| DialError(vec![(path.display().to_string(), error)]))
}

async fn channel_to(
    address: &str,
    tls: &Arc<ClientConfig>,
    patience: Duration,
) -> Result<(Channel, Option<IpAddr>), ConnectError> {
    let first = connect(address, tls, patience).await?;
    let local = first.get_ref().0.local_addr().ok().map(|local| local.ip());
    // The first connection is made outside of tonic, which hides why one failed; what it makes
    // later, it makes the same way.
    let first = Arc::new(Mutex::new(Some(first)));
    let (address, tls) = (address.to_owned(), tls.clone());
    let connector = service_fn(move |_| {
        let ready = first.lock().take();
        let (address, tls) = (address.clone(), tls.clone());
        async move {
            match ready {
                Some(stream) => Ok(TokioIo::new(stream)),
                None => connect(&address, &tls, patience).await.map(TokioIo::new),
            }
        }
    });
    let made = timeout(patience, endpoint().connect_with_connector(connector)).await;
    let made = made.map_err(|_| ConnectError::Timeout(patience))?.map_err(ConnectError::Http)?;
    Ok((made, local))
}

async fn connect(
    address: &str,
    tls: &Arc<ClientConfig>,
    patience: Duration,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let attempt = async {
        let tcp = tcp(address).await.map_err(ConnectError::Unreachable)?;
        tcp.set_nodelay(true).map_err(ConnectError::Unreachable)?;
        // TLS wants a name; ours checks the URI in the certificate and never looks at this one.
        let name = ServerName::try_from("control-plane.wattle").expect("it is a DNS name");
        TlsConnector::from(tls.clone()).connect(name, tcp).await.map_err(ConnectError::Tls)
    };
    timeout(patience, attempt).await.map_err(|_| ConnectError::Timeout(patience))?
}

/// A connection to any of the IP addresses that a name has. In random order: a name may stand for
/// several replicas, and resolvers sort.
async fn tcp(address: &str) -> io::Result<TcpStream> {
    let mut ips: Vec<_> = lookup_host(address).await?.collect();
    ips.shuffle(&mut rand::rng());
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for ip in ips.into_iter().take(IPS_OF_NAME) {
        last = match timeout(TCP_PATIENCE, TcpStream::connect(ip)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => error,
            Err(_) => io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no connection within {TCP_PATIENCE:?}"),
            ),
        };
    }
    Err(last)
}

fn endpoint() -> Endpoint {
    Endpoint::from_static("http://control-plane.wattle")
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
}

fn listed(attempts: &[(String, ConnectError)]) -> String {
    let mut text = String::new();
    for (address, error) in attempts {
        let _ = write!(text, "{} {address}: {error}", if text.is_empty() { ":" } else { ";" });
    }
    text
}
