//! A connection to one member of etcd: TCP and, where asked for, TLS with a client certificate.

use std::{io, path::Path, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;
use wattle_certs::etcd_client_config;
use wattle_runtime::clock;

use super::settings::{EtcdAddress, TlsFiles};

/// A connection that isn't there by then is given up.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// A connection that is silent this long while calls are open is probed; unanswered as long, it is
/// dead. etcd closes a connection that is probed more often than every 5 s *while it says nothing*
/// itself: a feed's own heartbeats, every 2 s, keep it talking.
const KEEPALIVE: Duration = Duration::from_secs(3);
/// Bytes under way on a stream and on a connection: a page of a listing comes in one go.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// No connection: whatever was to be said on it was never sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unreachable(String);

/// A channel that connects when it is used first, and again whenever the connection is lost.
pub(super) fn channel(address: &EtcdAddress, tls: Option<&TlsFiles>) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{}", address.authority()))
        .map_err(|error| error.to_string())?
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(false)
        .connect_timeout(CONNECT_WITHIN)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let (address, tls) = (address.clone(), tls.filter(|_| address.tls()).cloned());
    let connector = service_fn(move |_| {
        let (address, tls) = (address.clone(), tls.clone());
        async move { connect(&address, tls.as_ref()).await.map(TokioIo::new) }
    });
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// The TLS of these files; an error names the one that won't do.
pub(super) async fn tls_config(files: &TlsFiles) -> Result<ClientConfig, String> {
    let roots = read(&files.ca).await?;
    let client = match &files.client {
        None => None,
        Some((certificate, key)) => Some((read(certificate).await?, read(key).await?)),
    };
    let credential = client.as_ref().map(|(chain, key)| (chain.as_str(), key.as_str()));
    let mut config = etcd_client_config(&roots, credential).map_err(|error| error.to_string())?;
    config.time_provider = clock::for_handshakes();
    Ok(config)
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

async fn connect(
    address: &EtcdAddress,
    tls: Option<&TlsFiles>,
) -> Result<Box<dyn Io>, Unreachable> {
    let lost = |error: io::Error| Unreachable(error.to_string());
    let tcp = TcpStream::connect(address.authority()).await.map_err(lost)?;
    tcp.set_nodelay(true).map_err(lost)?;
    let Some(files) = tls else { return Ok(Box::new(tcp)) };
    let config = tls_config(files).await.map_err(Unreachable)?;
    let name = ServerName::try_from(address.host().to_owned())
        .map_err(|error| Unreachable(error.to_string()))?;
    let secured = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
    let secured = secured.map_err(|error| Unreachable(wattle_certs::explain(&error)))?;
    Ok(Box::new(secured))
}

async fn read(path: &Path) -> Result<zeroize::Zeroizing<String>, String> {
    let text = tokio::fs::read_to_string(path).await;
    text.map(Into::into).map_err(|error| format!("{}: {error}", path.display()))
}
