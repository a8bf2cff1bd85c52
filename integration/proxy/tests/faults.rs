//! Each fault, seen from both ends of a connection.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};
use wattle_proxy::{Fault, HELD, Proxy, Towards};

const PATIENCE: Duration = Duration::from_secs(10);
/// So long nothing comes where nothing is to come.
const SILENCE: Duration = Duration::from_millis(150);
const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

struct Pair {
    proxy: Proxy,
    server: TcpListener,
}

impl Pair {
    async fn start() -> Self {
        let server = TcpListener::bind(ANY).await.unwrap();
        let proxy = Proxy::start(ANY, server.local_addr().unwrap()).await.unwrap();
        Self { proxy, server }
    }

    /// Both ends of a new connection.
    async fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.proxy.address()).await.unwrap();
        (client, self.accepted().await)
    }

    async fn accepted(&self) -> TcpStream {
        timeout(PATIENCE, self.server.accept()).await.expect("nobody came").unwrap().0
    }
}

async fn says(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).await.unwrap();
}

async fn hears(stream: &mut TcpStream, text: &[u8]) {
    let mut heard = vec![0; text.len()];
    timeout(PATIENCE, stream.read_exact(&mut heard)).await.expect("nothing came").unwrap();
    assert_eq!(heard, text);
}

async fn hears_nothing(stream: &mut TcpStream) {
    let mut one = [0];
    let heard = timeout(SILENCE, stream.read(&mut one)).await;
    assert!(heard.is_err(), "{heard:?}");
}

async fn is_reset(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it stays open");
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

async fn ends_in_order(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it stays open");
    assert_eq!((end.unwrap(), rest), (0, vec![]));
}

#[tokio::test]
async fn bytes_pass_both_ways_and_ends_are_passed_on() {
    let pair = Pair::start().await;
    let (mut client, mut server) = pair.connect().await;
    says(&mut client, b"hello").await;
    hears(&mut server, b"hello").await;
    client.shutdown().await.unwrap();
    ends_in_order(&mut server).await;
    says(&mut server, b"still here").await;
    hears(&mut client, b"still here").await;
    drop(server);
    ends_in_order(&mut client).await;
    assert_eq!((pair.proxy.carried(Towards::Server), pair.proxy.carried(Towards::Client)), (5, 10));
}

#[tokio::test]
async fn a_megabyte_comes_whole() {
    let pair = Pair::start().await;
    let (mut client, mut server) = pair.connect().await;
    let sent: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (expected, mut heard) = (sent.clone(), vec![0; sent.len()]);
    let (_, read) = tokio::join!(says(&mut client, &sent), server.read_exact(&mut heard));
    read.unwrap();
    assert!(heard == expected);
}

#[tokio::test]
async fn a_cut_resets_what_is_there_and_what_comes() {
    let pair = Pair::start().await;
    let (mut client, mut server) = pair.connect().await;
    pair.proxy.set(Fault::Cut);
    is_reset(&mut client).await;
    is_reset(&mut server).await;
    let mut late = TcpStream::connect(pair.proxy.address()).await.unwrap();
    is_reset(&mut late).await;
    pair.proxy.set(Fault::Pass);
    let (mut client, mut server) = pair.connect().await;
    says(&mut client, b"again").await;
    hears(&mut server, b"again").await;
    assert_eq!(pair.proxy.connections(), 1);
}

#[tokio::test]
async fn a_reset_happens_once() {
    let pair = Pair::start().await;
    let (mut client, mut server) = pair.connect().await;
    pair.proxy.reset();
    is_reset(&mut client).await;
    is_reset(&mut server).await;
    let (mut client, mut server) = pair.connect().await;
    says(&mut server, b"again").await;
    hears(&mut client, b"again").await;
}

#[tokio::test]
async fn a_cut_comes_in_the_middle() {
    let pair = Pair::start().await;
    let (mut client, mut server) = pair.connect().await;
    pair.proxy.set(Fault::CutAfter(7));
    says(&mut server, b"0123456789").await;
    hears(&mut client, b"0123456").await;
    is_reset(&mut client).await;
    is_reset(&mut server).await;
}

#[tokio::test]
async fn a_delay_delays_each_byte_once() {
    let pair = Pair::start().await;
    let (mut client, mut server) = pair.connect().await;
    pair.proxy.set(Fault::Delay(Duration::from_millis(200)));
    // Until it is known to the connection.
    sleep(Duration::from_millis(20)).await;
    let begin = Instant::now();
    for _ in 0..5 {
        says(&mut client, b"x").await;
        sleep(Duration::from_millis(20)).await;
    }
    hears(&mut server, b"xxxxx").await;
    let took = begin.elapsed();
    // One after the other they would take a second.
    assert!(took >= Duration::from_millis(200) && took < Duration::from_millis(900), "{took:?}");
    says(&mut client, b"y").await;
    pair.proxy.set(Fault::Pass);
    hears(&mut server, b"y").await;
}

#[tokio::test]
async fn a_closed_half_leaves_the_other() {
    for towards in [Towards::Client, Towards::Server] {
        let pair = Pair::start().await;
        let (mut client, mut server) = pair.connect().await;
        let (speaker, listener) = match towards {
            Towards::Client => (&mut server, &mut client),
            Towards::Server => (&mut client, &mut server),
        };
        says(speaker, b"before").await;
        hears(listener, b"before").await;
        pair.proxy.set(Fault::HalfClose(towards));
        ends_in_order(listener).await;
        says(speaker, b"into the void").await;
        says(listener, b"the other way").await;
        hears(speaker, b"the other way").await;
    }
}

#[tokio::test]
async fn a_black_hole_swallows_and_tells_nobody() {
    let pair = Pair::start().await;
    let (mut client, mut server) = pair.connect().await;
    pair.proxy.set(Fault::Swallow);
    sleep(Duration::from_millis(20)).await;
    // More than any buffer on the way holds.
    let much = vec![0; 8 << 20];
    timeout(PATIENCE, says(&mut client, &much)).await.expect("it is read");
    hears_nothing(&mut server).await;
    says(&mut server, b"nor this").await;
    hears_nothing(&mut client).await;
    let mut late = TcpStream::connect(pair.proxy.address()).await.unwrap();
    says(&mut late, b"anybody?").await;
    hears_nothing(&mut late).await;
    // What is left has holes in it.
    pair.proxy.set(Fault::Pass);
    is_reset(&mut client).await;
    is_reset(&mut server).await;
    is_reset(&mut late).await;
    let (mut client, mut server) = pair.connect().await;
    says(&mut client, b"back").await;
    hears(&mut server, b"back").await;
}

#[tokio::test]
async fn a_stalled_connection_goes_on_where_it_stood() {
    let pair = Pair::start().await;
    let (mut client, mut server) = pair.connect().await;
    pair.proxy.set(Fault::Stall);
    sleep(Duration::from_millis(20)).await;
    says(&mut client, b"held up").await;
    hears_nothing(&mut server).await;
    // Its connection is accepted, as a frozen machine's kernel does.
    let mut late = TcpStream::connect(pair.proxy.address()).await.unwrap();
    says(&mut late, b"late").await;
    pair.proxy.set(Fault::Pass);
    hears(&mut server, b"held up").await;
    let mut second = pair.accepted().await;
    hears(&mut second, b"late").await;
}

/// What a proxy holds has a bound: whoever speaks has to wait.
#[tokio::test]
async fn who_speaks_to_a_stalled_connection_has_to_wait() {
    let pair = Pair::start().await;
    let (mut client, mut server) = pair.connect().await;
    pair.proxy.set(Fault::Delay(Duration::from_secs(3600)));
    sleep(Duration::from_millis(20)).await;
    let much = vec![1; 32 << 20];
    let written = timeout(Duration::from_secs(1), client.write_all(&much)).await;
    assert!(written.is_err(), "32 MiB went into {HELD} bytes");
    hears_nothing(&mut server).await;
}

#[tokio::test]
async fn a_throttled_connection_is_slow() {
    let pair = Pair::start().await;
    let (mut client, mut server) = pair.connect().await;
    pair.proxy.set(Fault::Throttle(20_000));
    sleep(Duration::from_millis(20)).await;
    let (sent, mut heard) = (vec![7; 10_000], vec![0; 10_000]);
    let begin = Instant::now();
    let (_, read) = tokio::join!(says(&mut server, &sent), client.read_exact(&mut heard));
    read.unwrap();
    let took = begin.elapsed();
    assert!(heard == sent);
    assert!(took >= Duration::from_millis(400) && took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn one_client_alone_is_cut() {
    let pair = Pair::start().await;
    let (mut other, mut to_other) = pair.connect().await;
    let socket = TcpSocket::new_v4().unwrap();
    let own = Ipv4Addr::new(127, 0, 0, 77);
    socket.bind((own, 0).into()).unwrap();
    let mut client = socket.connect(pair.proxy.address()).await.unwrap();
    let _server = pair.accepted().await;
    pair.proxy.set_for(own.into(), Some(Fault::Cut));
    is_reset(&mut client).await;
    says(&mut other, b"as ever").await;
    hears(&mut to_other, b"as ever").await;
    pair.proxy.set_for(own.into(), None);
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((own, 0).into()).unwrap();
    let mut client = socket.connect(pair.proxy.address()).await.unwrap();
    let mut server = pair.accepted().await;
    says(&mut client, b"back").await;
    hears(&mut server, b"back").await;
}

#[tokio::test]
async fn where_nobody_listens_clients_are_reset() {
    let gone = TcpListener::bind(ANY).await.unwrap().local_addr().unwrap();
    let proxy = Proxy::start(ANY, gone).await.unwrap();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    is_reset(&mut client).await;
}

#[tokio::test]
async fn a_dropped_proxy_ends_its_connections() {
    let Pair { proxy, server } = Pair::start().await;
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut accepted, _) = server.accept().await.unwrap();
    let address = proxy.address();
    drop(proxy);
    for stream in [&mut client, &mut accepted] {
        let mut one = [0];
        let heard = timeout(PATIENCE, stream.read(&mut one)).await.expect("it stays open");
        assert!(!matches!(heard, Ok(1..)), "{heard:?}");
    }
    sleep(Duration::from_millis(50)).await;
    TcpListener::bind(address).await.expect("its address is free");
}
