//! A machine's TCP socket: from an address of its own where there are plenty, with its bytes
//! counted, and TLS and HTTP/2 over it.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A machine that answers at all answers a connection within this; as the agent has it.
const CONNECT: Duration = Duration::from_secs(5);
/// What the control plane may send unread. An agent that holds its stream open has this much
/// credit and no memory behind it.
const WINDOW: u32 = 256 << 10;
/// What rustls may hold unsent.
const TLS_BUFFER: usize = 4 << 10;
/// Source addresses on the loopback network: one alone has no more ports than one fleet needs.
const SOURCES: usize = 100;

/// A TLS stream whose received bytes are counted.
pub(crate) type Tls = TlsStream<Counted>;

/// Where to and how.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Arc<ClientConfig>,
}

/// Connects machine `number`.
pub(crate) async fn connect(target: &Target, number: usize, read: &Arc<AtomicU64>) -> Result<Tls> {
    let attempt = async {
        let tcp = tcp(target.address, number).await.context("connecting")?;
        tcp.set_nodelay(true)?;
        // Checked is the URI in the certificate, not this.
        let name = ServerName::try_from("control-plane.wattle").expect("it is a DNS name");
        let counted = Counted { tcp, read: read.clone() };
        let stream = TlsConnector::from(target.tls.clone()).connect(name, counted).await;
        let mut stream =
            stream.map_err(|error| anyhow!("TLS: {}", wattle_certs::explain(&error)))?;
        stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER));
        Ok(stream)
    };
    timeout(CONNECT, attempt).await.map_err(|_| anyhow!("no connection within {CONNECT:?}"))?
}

/// HTTP/2 over it.
pub(crate) async fn http(
    tls: Tls,
    window: Option<u32>,
) -> Result<(SendRequest<Bytes>, Connection<Tls>)> {
    let window = window.unwrap_or(WINDOW);
    h2::client::Builder::new()
        .enable_push(false)
        .initial_window_size(window)
        .initial_connection_window_size(window.max(65_535))
        .max_send_buffer_size(16 << 10)
        .header_table_size(0)
        .handshake(tls)
        .await
        .context("HTTP/2")
}

async fn tcp(address: SocketAddr, number: usize) -> io::Result<TcpStream> {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_loopback() => {
            let source = u8::try_from(number % SOURCES + 1).expect("they are few");
            let socket = TcpSocket::new_v4()?;
            socket.bind((Ipv4Addr::new(127, 0, 9, source), 0).into())?;
            socket.connect(address).await
        }
        _ => TcpStream::connect(address).await,
    }
}

/// A socket that counts what it receives.
#[derive(Debug)]
pub(crate) struct Counted {
    tcp: TcpStream,
    read: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(cx, buf))?;
        self.read.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
