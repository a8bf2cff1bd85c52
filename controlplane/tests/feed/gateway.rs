//! A gRPC gateway before a member of etcd, whose watches go wrong as a faulty server's would: below
//! etcd's client, where nothing but the protocol is between the store and what is told.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use etcd_client::proto::{PbEvent, PbWatchResponse};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{body::Body as GrpcBody, transport::Channel};
use tower::{Service as _, ServiceExt as _};

/// gRPC's flag and length before each message.
const PREFIX: usize = 5;
/// Told again at any time: one of so many responses before.
const REMEMBERED: usize = 8;

/// What watches do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    Nothing,
    /// Every response with events comes twice, and an old one again after it.
    Repeats,
    /// The next so many responses with events never come.
    Loses(usize),
}

/// Where clients of etcd go instead. It ends when it is dropped.
pub(crate) struct Gateway {
    url: String,
    shared: Arc<Shared>,
    _end: DropGuard,
}

struct Shared {
    wrong: Mutex<Wrong>,
    /// Responses that were told again or lost.
    done: AtomicUsize,
}

impl Gateway {
    /// Leads to a member.
    pub(crate) async fn to(member: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let channel = Channel::from_shared(member.to_owned()).unwrap().connect_lazy();
        let shared =
            Arc::new(Shared { wrong: Mutex::new(Wrong::Nothing), done: AtomicUsize::new(0) });
        let end = CancellationToken::new();
        let accepting = accept(listener, channel, shared.clone());
        tokio::spawn(end.clone().run_until_cancelled_owned(accepting));
        Self { url, shared, _end: end.drop_guard() }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// From now on watches do this.
    pub(crate) fn set(&self, wrong: Wrong) {
        *self.shared.wrong.lock().unwrap() = wrong;
    }

    /// How many responses were told again or lost.
    pub(crate) fn done(&self) -> usize {
        self.shared.done.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, channel: Channel, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (channel, shared) = (channel.clone(), shared.clone());
        let service = hyper::service::service_fn(move |request| {
            pass(request, channel.clone(), shared.clone())
        });
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}

async fn pass(
    request: http::Request<Incoming>,
    mut channel: Channel,
    shared: Arc<Shared>,
) -> Result<http::Response<GrpcBody>, Infallible> {
    let watches = request.uri().path() == "/etcdserverpb.Watch/Watch";
    let called = match channel.ready().await {
        Ok(channel) => channel.call(request.map(GrpcBody::new)).await,
        Err(error) => Err(error),
    };
    Ok(match called {
        Ok(response) if watches => response.map(|body| GrpcBody::new(Told::new(body, shared))),
        Ok(response) => response,
        Err(error) => tonic::Status::unavailable(error.to_string()).into_http(),
    })
}

/// A watch's responses as they are told.
struct Told {
    body: GrpcBody,
    shared: Arc<Shared>,
    /// What hasn't come whole.
    read: BytesMut,
    /// Responses that were told, the oldest first.
    old: VecDeque<Bytes>,
}

impl Told {
    fn new(body: GrpcBody, shared: Arc<Shared>) -> Self {
        Self { body, shared, read: BytesMut::new(), old: VecDeque::new() }
    }

    /// What is told of the responses that have come whole.
    fn tell(&mut self) -> Bytes {
        let mut told = BytesMut::new();
        while let Some(response) = self.next() {
            let decoded = PbWatchResponse::decode(&response[PREFIX..]).unwrap();
            if decoded.events.is_empty() {
                told.extend_from_slice(&response);
            } else {
                self.tell_of(response, is_of_a_node(&decoded), &mut told);
            }
        }
        told.freeze()
    }

    fn next(&mut self) -> Option<Bytes> {
        let length = self.read.get(1..PREFIX)?.get_u32() as usize + PREFIX;
        (self.read.len() >= length).then(|| self.read.split_to(length).freeze())
    }

    fn tell_of(&mut self, response: Bytes, of_a_node: bool, told: &mut BytesMut) {
        let mut wrong = self.shared.wrong.lock().unwrap();
        match &mut *wrong {
            Wrong::Loses(left @ 1..) if of_a_node => {
                *left -= 1;
                self.shared.done.fetch_add(1, Ordering::SeqCst);
                return;
            }
            Wrong::Repeats => {
                told.extend_from_slice(&response);
                told.extend_from_slice(&response);
                told.extend_from_slice(self.old.front().unwrap_or(&response));
                self.shared.done.fetch_add(1, Ordering::SeqCst);
            }
            _ => told.extend_from_slice(&response),
        }
        self.old.push_back(response);
        if self.old.len() > REMEMBERED {
            self.old.pop_front();
        }
    }
}

fn is_of_a_node(response: &PbWatchResponse) -> bool {
    let key = |event: &PbEvent| event.kv.as_ref().map(|kv| kv.key.clone()).unwrap_or_default();
    response.events.iter().any(|event| String::from_utf8_lossy(&key(event)).contains("/node/"))
}

impl Body for Told {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            match frame.into_data() {
                Ok(data) => {
                    self.read.extend_from_slice(&data);
                    let told = self.tell();
                    if !told.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(told))));
                    }
                }
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
    }
}
