//! One stream to one replica: opening it, up to the control plane's first word.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::uri::PathAndQuery;
use tokio::{
    select,
    sync::mpsc,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming, client::Grpc, transport::Channel};
use wattle_model::Revision;
use wattle_proto::sync::SyncRequest;
use wattle_runtime::dial::{self, DialError};

use super::{
    acks::Acks,
    codec::SyncCodec,
    convert::{self, Message, Retry, Welcome},
    stage::Stage,
    told::Told,
};
use crate::{control_plane, report::Report, state::identity::Identity};

/// A machine that answers at all answers a connection within this. The TCP connection alone has less:
/// see `dial`.
const CONNECT: Duration = Duration::from_secs(5);
/// A replica may have to ask its store before it says Welcome or Retry.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// What waits to be sent. When it is full the control plane isn't reading, and the stream is given
/// up after three missed heartbeats, as when it isn't speaking.
const OUTGOING: usize = 8;

/// A stream that was accepted, and what belongs to it alone: what is staged on it is lost with it.
#[derive(Debug)]
pub(super) struct Link {
    /// Where it leads.
    pub(super) address: String,
    /// The control plane's first word.
    pub(super) welcome: Welcome,
    /// What has come since the last commit.
    pub(super) stage: Stage,
    /// The report last sent.
    pub(super) reported: Option<Report>,
    /// The verified revision last sent, or owed.
    pub(super) verified: Revision,
    /// What is to be acked.
    pub(super) acks: Acks,
    /// What was said of peers behind NAT.
    pub(super) told: Told,
    /// The control plane has asked for it to be left.
    pub(super) leaving: Option<Leaving>,
    /// The set held is one that this stream knows: it went on from there, or committed it. Of any
    /// other there is nothing to be said on it.
    pub(super) agrees: bool,
    /// This machine's address that it comes from, where that can be told.
    pub(super) home: Option<IpAddr>,
    heard: Instant,
    outgoing: mpsc::Sender<SyncRequest>,
    incoming: Streaming<Bytes>,
}

/// A stream that is to be left for another one.
#[derive(Debug, Clone)]
pub(super) struct Leaving {
    /// Where to go first.
    pub(super) prefer: Vec<String>,
    /// When it is cut, or to be given up.
    pub(super) until: Instant,
    /// When to look for another one again.
    pub(super) again: Instant,
}

impl Leaving {
    fn new(deadline: Duration, prefer: Vec<String>) -> Self {
        let now = Instant::now();
        Self { prefer, until: now + deadline, again: now }
    }

    /// Nobody took it: again a little later, unless that is too late.
    pub(super) fn later(self, wait: Duration) -> Option<Self> {
        let again = Instant::now() + wait;
        (again < self.until).then_some(Self { again, ..self })
    }
}

/// Why a stream ended, or never began.
#[derive(Debug)]
pub(super) enum End {
    /// The control plane asked for patience.
    Retry(Retry),
    /// The node was deleted.
    Removed,
    /// The control plane doesn't know this node.
    Unknown,
    /// Nobody could be reached.
    Unreachable(String),
    /// The control plane was there, and hung up before it said a word: so it does with a certificate
    /// that it doesn't believe.
    Unanswered(String),
    /// The stream was accepted and then ended, as streams do.
    Lost(String),
    /// The control plane said what makes no sense.
    Broken(String),
    /// This machine no longer has the address that it came from: nothing passes any more, and only
    /// silence would tell.
    Moved,
    /// It is to be left, and it is time to look for another one.
    Leave,
    /// The agent is stopping.
    Stopped,
}

impl Link {
    /// Opens a stream at the first of `addresses` that answers.
    pub(super) async fn open(
        identity: &Identity,
        addresses: &[String],
        hello: SyncRequest,
    ) -> Result<Self, End> {
        let tls = control_plane::tls(identity).map_err(|error| End::Broken(error.to_string()))?;
        let dialed = dial::channel(addresses, Arc::new(tls), CONNECT).await;
        let dialed = dialed.map_err(not_dialed)?;
        let (outgoing, requests) = mpsc::channel(OUTGOING);
        outgoing.try_send(hello).expect("a new channel has room for one");

        let silent = || End::Unreachable(format!("{}: no answer to Hello", dialed.address));
        let first_word = timeout(FIRST_WORD, first_word(dialed.channel, requests)).await;
        let (incoming, welcome) = first_word.map_err(|_| silent())??;
        Ok(Self {
            address: dialed.address,
            welcome,
            stage: Stage::default(),
            reported: None,
            verified: Revision::ZERO,
            acks: Acks::default(),
            told: Told::default(),
            leaving: None,
            agrees: !welcome.full_set,
            home: dialed.local,
            heard: Instant::now(),
            outgoing,
            incoming,
        })
    }

    /// The next message; `None` where something is to be said before it comes. Safe to drop and call again.
    /// Ends the stream when three heartbeats have been missed, and interrupts it when it is time to
    /// leave.
    pub(super) async fn next(&mut self) -> Result<Option<Message>, End> {
        let deadline = self.heard + self.patience();
        let leaving = self.leaving.as_ref().map(|leaving| leaving.again);
        let next = select! {
            next = timeout_at(deadline, next(&mut self.incoming)) => next,
            () = self.acks.due() => return Ok(None),
            () = self.told.due() => return Ok(None),
            () = sleep_until(leaving.unwrap_or(deadline)), if leaving.is_some() => {
                return Err(End::Leave);
            }
        };
        let message = next.map_err(|_| End::Lost("three heartbeats were missed".into()))??;
        self.heard = Instant::now();
        Ok(Some(message))
    }

    /// The control plane asks for the stream to be left before the deadline.
    pub(super) fn leave(&mut self, deadline: Duration, prefer: Vec<String>) {
        self.leaving = Some(Leaving::new(deadline, prefer));
    }

    /// Time spent away from the stream isn't the control plane's silence.
    pub(super) fn resume(&mut self) {
        self.heard = Instant::now();
    }

    /// Sends a message.
    pub(super) async fn send(&self, request: SyncRequest) -> Result<(), End> {
        let sent = self.outgoing.send_timeout(request, self.patience()).await;
        sent.map_err(|_| End::Lost("the control plane isn't reading".into()))
    }

    fn patience(&self) -> Duration {
        3 * self.welcome.heartbeat
    }
}

/// Calls Sync and waits for what it says first.
async fn first_word(
    channel: Channel,
    requests: mpsc::Receiver<SyncRequest>,
) -> Result<(Streaming<Bytes>, Welcome), End> {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| End::Unanswered(error.to_string()))?;
    let path = PathAndQuery::from_static("/wattle.sync.v1.SyncService/Sync");
    let requests = Request::new(ReceiverStream::new(requests));
    let answer = client.streaming(requests, path, SyncCodec).await.map_err(refused)?;
    let mut incoming = answer.into_inner();
    let welcome = welcome(first(&mut incoming).await?)?;
    Ok((incoming, welcome))
}

/// The first message.
async fn first(incoming: &mut Streaming<Bytes>) -> Result<Message, End> {
    next_or(incoming, refused).await
}

/// The next message of a kind that this version knows.
async fn next(incoming: &mut Streaming<Bytes>) -> Result<Message, End> {
    next_or(incoming, |status| lost(&status)).await
}

async fn next_or(
    incoming: &mut Streaming<Bytes>,
    failed: impl Fn(Status) -> End,
) -> Result<Message, End> {
    loop {
        let bytes = match incoming.message().await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Err(End::Lost("the control plane ended the stream".into())),
            Err(status) => return Err(failed(status)),
        };
        match convert::message(&bytes) {
            Ok(Some(message)) => return Ok(message),
            Ok(None) => tracing::debug!("a message of an unknown kind"),
            Err(error) => return Err(End::Broken(error.to_string())),
        }
    }
}

fn welcome(first: Message) -> Result<Welcome, End> {
    match first {
        Message::Welcome(welcome) => Ok(welcome),
        Message::Retry(retry) => Err(End::Retry(retry)),
        Message::Removed => Err(End::Removed),
        _ => Err(End::Broken("the first message was none of Welcome, Retry and Removed".into())),
    }
}

/// Nobody answered as it should.
fn not_dialed(error: DialError) -> End {
    match error.hung_up() {
        true => End::Unanswered(error.to_string()),
        false => End::Unreachable(error.to_string()),
    }
}

/// The call itself was refused.
fn refused(status: Status) -> End {
    match lost(&status) {
        End::Lost(reason) if control_plane::is_unanswered(&status) => End::Unanswered(reason),
        End::Lost(reason) => End::Unreachable(reason),
        end => end,
    }
}

fn lost(status: &Status) -> End {
    if control_plane::is_removed(status) {
        End::Removed
    } else if control_plane::is_unknown(status) {
        End::Unknown
    } else {
        End::Lost(control_plane::describe(status))
    }
}
