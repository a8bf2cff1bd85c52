//! One agent's stream: hello, then frames until a commit, applied, checked against the commit's
//! digest, acked as the protocol asks.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{Connection, ResponseFuture},
};
use http::HeaderMap;
use tokio::{
    select,
    sync::futures::Notified,
    time::{Instant, Sleep, sleep},
};
use wattle_model::Digest;
use wattle_proto::sync::{
    Ack, Commit, DataPlane, Frame, Heartbeat, Hello, Report, Resync, Retry, SyncRequest, Welcome,
    sync_request, sync_response::Message,
};

use super::{
    agent::{Agent, End, Online},
    enrol::{self, endpoint_bytes},
    socket::{self, Tls},
    state::Stage,
    wire::{self, Inbox},
    world::{World, now},
};

const SYNC: &str = "https://control-plane.wattle/wattle.sync.v1.SyncService/Sync";
/// The first word must come within this; as the real agent has it.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// Acks that nobody waits for: at most one in this time.
const ACK_EVERY: Duration = Duration::from_secs(1);
/// The WireGuard port that every machine reports.
const LISTEN_PORT: u32 = 51820;

/// A stream in use.
struct Stream<'a> {
    agent: &'a Agent,
    world: &'a World,
    outgoing: SendStream<Bytes>,
    inbox: Inbox,
    stage: Stage,
    welcomed: bool,
    epoch: Bytes,
    /// The digests came apart, and a full set was asked for.
    asked: bool,
    unacked: bool,
    acked_at: Option<Instant>,
    ack_timer: Pin<Box<Sleep>>,
}

/// Opens a stream and follows it to its end.
pub(super) async fn follow(agent: &Arc<Agent>, world: &World, online: &mut Online<'_>) -> End {
    match open_and_follow(agent, world, online).await {
        Ok(()) => End::Told,
        Err(end) => end,
    }
}

async fn open_and_follow(agent: &Agent, world: &World, online: &mut Online<'_>) -> Result<(), End> {
    let tls = socket::connect(&agent.target(), agent.number, &world.counts.bytes).await?;
    let (send, connection) = socket::http(tls, agent.window()).await?;
    let head = enrol::grpc(SYNC)?;
    let mut connection = Box::pin(connection);
    let mut send = select! {
        send = send.ready() => send?,
        end = &mut connection => return Err(closed(end)),
    };
    let (answer, outgoing) = send.send_request(head, false)?;
    let mut stream = Stream {
        agent,
        world,
        outgoing,
        inbox: Inbox::default(),
        stage: Stage::default(),
        welcomed: false,
        epoch: Bytes::new(),
        asked: false,
        unacked: false,
        acked_at: None,
        ack_timer: Box::pin(sleep(Duration::ZERO)),
    };
    stream.hello()?;
    stream.run(connection, answer, online).await
}

fn closed(end: Result<(), h2::Error>) -> End {
    match end {
        Ok(()) => End::Lost(anyhow!("the connection was closed")),
        Err(error) => error.into(),
    }
}

/// HTTP/2, once it is open.
struct Line {
    connection: Pin<Box<Connection<Tls>>>,
    body: RecvStream,
    frozen: bool,
}

impl Line {
    /// What has come. It comes by the connection's poll, in this task: nobody else need be woken.
    fn received(&mut self) -> Result<Option<Bytes>, End> {
        let cx = &mut Context::from_waker(Waker::noop());
        match self.body.poll_data(cx) {
            Poll::Pending => Ok(None),
            Poll::Ready(Some(data)) => {
                let data = data?;
                self.body.flow_control().release_capacity(data.len())?;
                Ok(Some(data))
            }
            Poll::Ready(None) => {
                let trailers = match self.body.poll_trailers(cx) {
                    Poll::Ready(trailers) => trailers?.unwrap_or_default(),
                    Poll::Pending => HeaderMap::new(),
                };
                let text = |name| trailers.get(name).and_then(|value| value.to_str().ok());
                let (status, message) = (text("grpc-status"), text("grpc-message"));
                Err(anyhow!("the stream ended: {status:?} {message:?}").into())
            }
        }
    }

    /// Stops reading, or reads again, and lets the control plane send as much as others may.
    fn freeze(&mut self, frozen: bool) -> Result<(), End> {
        if std::mem::replace(&mut self.frozen, frozen) && !frozen {
            self.connection.set_initial_window_size(64 << 10)?;
        }
        Ok(())
    }
}

impl<'a> Stream<'a> {
    async fn run(
        &mut self,
        mut connection: Pin<Box<Connection<Tls>>>,
        answer: ResponseFuture,
        online: &mut Online<'_>,
    ) -> Result<(), End> {
        let body = select! {
            biased;
            end = &mut connection => return Err(closed(end)),
            answer = answer => answer?.into_body(),
            () = sleep(FIRST_WORD) => return Err(anyhow!("no answer to Hello").into()),
        };
        let agent = self.agent;
        let mut told = pin!(agent.told.notified());
        let mut line = Line { connection, body, frozen: agent.is_frozen() };
        poll_fn(|cx| self.poll(cx, &mut line, told.as_mut(), online)).await
    }

    /// Does what there is to do. Each part once: what one of them makes the others do, they are
    /// woken for.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        line: &mut Line,
        mut told: Pin<&mut Notified<'a>>,
        online: &mut Online<'_>,
    ) -> Poll<Result<(), End>> {
        while told.as_mut().poll(cx).is_ready() {
            told.set(self.agent.told.notified());
            line.freeze(self.agent.is_frozen())?;
            if !self.agent.wants_stream() {
                return Poll::Ready(Ok(()));
            }
            if self.welcomed && self.agent.takes_move() {
                self.report()?;
            }
        }
        if line.frozen && self.welcomed {
            return Poll::Pending;
        }
        if let Poll::Ready(end) = line.connection.as_mut().poll(cx) {
            return Poll::Ready(Err(closed(end)));
        }
        while let Some(data) = line.received()? {
            self.inbox.push(data);
            while let Some(message) = self.inbox.next()? {
                self.message(&message)?;
            }
        }
        if self.unacked && self.ack_timer.as_mut().poll(cx).is_ready() {
            self.ack()?;
        }
        if self.welcomed {
            online.accepted();
        }
        Poll::Pending
    }

    fn message(&mut self, bytes: &Bytes) -> Result<(), End> {
        let Some(message) = wire::response(bytes)?.message else { return Ok(()) };
        match message {
            Message::Welcome(welcome) => self.welcome(welcome),
            Message::Frame(frame) => self.frame(frame),
            Message::Config(config) => {
                self.agent.learn(&config.control_planes);
                self.stage.config_hash = Some(wire::config_hash(bytes)?);
                Ok(())
            }
            Message::Heartbeat(heartbeat) => self.heartbeat(&heartbeat),
            Message::Retry(retry) => Err(self.retry(&retry)),
            Message::Drain(drain) => {
                self.agent.drain(&drain.prefer);
                Ok(())
            }
            Message::Inspect(_) | Message::OwnKey(_) => Ok(()),
            Message::Removed(_) => Err(End::Removed),
        }
    }

    fn welcome(&mut self, welcome: Welcome) -> Result<(), End> {
        let counts = &self.world.counts;
        let counted = if welcome.full_set { &counts.full_sets } else { &counts.resumed };
        counted.fetch_add(1, Ordering::Relaxed);
        self.epoch = welcome.epoch;
        self.welcomed = true;
        self.report()
    }

    fn retry(&self, retry: &Retry) -> End {
        let why = format!("retry: {:?}", retry.reason());
        End::Retry(Duration::from_millis(retry.after_millis.into()), why)
    }

    fn frame(&mut self, frame: Frame) -> Result<(), End> {
        self.stage.add(&frame, &mut self.world.roster.lock())?;
        match frame.commit {
            Some(commit) => self.commit(&commit),
            None => Ok(()),
        }
    }

    fn commit(&mut self, commit: &Commit) -> Result<(), End> {
        let (from, digest, changes) = {
            let mut state = self.agent.state.lock();
            let from = state.revision;
            state.epoch.clone_from(&self.epoch);
            let changes = state.commit(&mut self.stage, commit.revision, commit.full_set);
            (from, state.digest(), changes)
        };
        let at = now();
        self.world.log.lock().step(from, commit.revision, at);
        self.agent.confirm(self.world, commit.revision, at);
        let counts = &self.world.counts;
        counts.commits.fetch_add(1, Ordering::Relaxed);
        counts.entries.fetch_add(changes as u64, Ordering::Relaxed);
        self.compare(digest, &commit.digest, commit.revision)?;
        self.owe_ack(commit.ack_wanted)
    }

    /// An idle agent's revision moves on where the digests agree.
    fn heartbeat(&mut self, heartbeat: &Heartbeat) -> Result<(), End> {
        if self.stage.is_empty() {
            let mut state = self.agent.state.lock();
            let digest = state.digest();
            let agrees = digest.to_bytes() == *heartbeat.digest;
            if agrees {
                state.revision = state.revision.max(heartbeat.revision);
            }
            let revision = state.revision;
            drop(state);
            if agrees {
                self.agent.confirm(self.world, revision, now());
            }
            self.compare(digest, &heartbeat.digest, heartbeat.revision)?;
        }
        if heartbeat.ack_wanted { self.owe_ack(true) } else { Ok(()) }
    }

    /// Counts a difference, and asks for a full set, once.
    fn compare(&mut self, held: Digest, expected: &[u8], revision: u64) -> Result<(), End> {
        let expected = Digest::try_from(expected).context("a commit's digest")?;
        if held == expected {
            self.asked = false;
            return Ok(());
        }
        self.world.counts.mismatches.fetch_add(1, Ordering::Relaxed);
        if std::mem::replace(&mut self.asked, true) {
            return Ok(());
        }
        self.send(sync_request::Message::Resync(Resync { revision }))
    }

    fn owe_ack(&mut self, at_once: bool) -> Result<(), End> {
        if at_once {
            return self.ack();
        }
        if !std::mem::replace(&mut self.unacked, true) {
            // As the real agent: all get a change at the same moment, and spread their acks.
            let spread = Instant::now() + ACK_EVERY.mul_f64(rand::random());
            let due = self.acked_at.map_or(spread, |last| spread.max(last + ACK_EVERY));
            self.ack_timer.as_mut().reset(due);
        }
        Ok(())
    }

    fn ack(&mut self) -> Result<(), End> {
        self.unacked = false;
        self.acked_at = Some(Instant::now());
        self.world.counts.acks.fetch_add(1, Ordering::Relaxed);
        let state = self.agent.state.lock();
        let ack = Ack {
            revision: state.revision,
            digest: Bytes::copy_from_slice(&state.digest().to_bytes()),
            apply_micros: 0,
            rejected: Vec::new(),
            verified_revision: state.revision,
        };
        drop(state);
        self.send(sync_request::Message::Ack(ack))
    }

    fn hello(&mut self) -> Result<(), End> {
        let state = self.agent.state.lock();
        let hello = Hello {
            protocol_version: 1,
            instance: Bytes::copy_from_slice(&self.agent.instance),
            epoch: state.epoch.clone(),
            revision: state.revision,
            digest: Bytes::copy_from_slice(&state.digest().to_bytes()),
            config_hash: state.config_hash.map_or_else(Bytes::new, |h| Bytes::copy_from_slice(&h)),
            accept_stale: false,
            agent_version: concat!("fleet ", env!("CARGO_PKG_VERSION")).into(),
            stream: self.agent.next_stream(),
            public_key: Bytes::new(),
            secret_generation: 0,
        };
        drop(state);
        self.send(sync_request::Message::Hello(hello))
    }

    fn report(&mut self) -> Result<(), End> {
        let endpoint = endpoint_bytes(self.agent.endpoint())?;
        self.send(sync_request::Message::Report(Report {
            endpoints: vec![endpoint],
            listen_port: LISTEN_PORT,
            data_plane: DataPlane::Kernel.into(),
            secret_generation: 0,
        }))
    }

    fn send(&mut self, message: sync_request::Message) -> Result<(), End> {
        let message = wire::framed(&SyncRequest { message: Some(message) });
        Ok(self.outgoing.send_data(message, false)?)
    }
}
