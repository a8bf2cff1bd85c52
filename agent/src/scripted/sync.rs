//! Streams, word by word.

use bytes::Bytes;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use wattle_model::{Digest, Endpoint, Epoch, Generation, NodeId, PeerSpec, PublicKey, Revision};
use wattle_proto::{
    entry,
    sync::{
        Ack, Commit, Config, Drain, Frame, Heartbeat, Hello, Inspect, Inspected, NextKey,
        Observations, OwnKey, Removed, Report, Resync, Retry, SyncRequest, SyncResponse, Welcome,
        retry::Reason, sync_request, sync_response::Message, sync_service_server::SyncService,
    },
};

use super::PATIENCE;

pub(super) struct Service(pub(super) mpsc::Sender<Stream>);

#[tonic::async_trait]
impl SyncService for Service {
    type SyncStream = ReceiverStream<Result<SyncResponse, Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.message);
        let Some(sync_request::Message::Hello(hello)) = first else {
            return Err(Status::invalid_argument("no Hello"));
        };
        let (answers, receiver) = mpsc::channel(16);
        let _ = self.0.send(Stream { hello, requests, answers }).await;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// One stream, as its server sees it.
pub(crate) struct Stream {
    pub(crate) hello: Hello,
    requests: Streaming<SyncRequest>,
    answers: mpsc::Sender<Result<SyncResponse, Status>>,
}

impl Stream {
    pub(crate) async fn say(&self, message: Message) {
        let response = SyncResponse { message: Some(message) };
        self.answers.send(Ok(response)).await.expect("the agent should still be there");
    }

    /// Ends the stream with an error.
    pub(crate) async fn fail(self, status: Status) {
        let _ = self.answers.send(Err(status)).await;
    }

    pub(crate) async fn welcome(&self, epoch: Epoch, full_set: bool) {
        self.welcome_with(epoch, full_set, 60_000).await;
    }

    pub(crate) async fn welcome_with(&self, epoch: Epoch, full_set: bool, heartbeat_millis: u32) {
        let epoch = Bytes::copy_from_slice(epoch.as_bytes());
        let replica_id = Bytes::from_static(&[7; 16]);
        let welcome =
            Welcome { protocol_version: 1, epoch, full_set, replica_id, heartbeat_millis };
        self.say(Message::Welcome(welcome)).await;
    }

    pub(crate) async fn config(&self, config: Config) {
        self.say(Message::Config(config)).await;
    }

    /// A frame that ends nothing.
    pub(crate) async fn frame(&self, entries: Vec<Bytes>, removed: &[NodeId]) {
        self.say(Message::Frame(frame(entries, removed, None))).await;
    }

    /// A frame that ends a batch for which somebody waits. `all` is what the agent should hold
    /// after it.
    pub(crate) async fn commit(
        &self,
        revision: u64,
        full_set: bool,
        (entries, removed): (Vec<Bytes>, &[NodeId]),
        all: &[Bytes],
    ) {
        let digest = digest_bytes(all);
        let commit = Commit { revision, digest, full_set, ack_wanted: true };
        self.say(Message::Frame(frame(entries, removed, Some(commit)))).await;
    }

    /// A batch of one entry for which nobody waits.
    pub(crate) async fn unasked(&self, revision: u64, entry: Bytes, all: &[Bytes]) {
        let digest = digest_bytes(all);
        let commit = Commit { revision, digest, full_set: false, ack_wanted: false };
        let (entries, removed) = (vec![entry], &[]);
        self.say(Message::Frame(frame(entries, removed, Some(commit)))).await;
    }

    pub(crate) async fn heartbeat(&self, revision: u64, all: &[Bytes]) {
        let digest = digest_bytes(all);
        self.say(Message::Heartbeat(Heartbeat { revision, digest, ack_wanted: true })).await;
    }

    pub(crate) async fn retry(&self, reason: Reason, after_millis: u32) {
        self.say(Message::Retry(Retry { reason: reason.into(), after_millis })).await;
    }

    pub(crate) async fn drain(&self, deadline_millis: u32) {
        self.drain_to(deadline_millis, &[]).await;
    }

    pub(crate) async fn drain_to(&self, deadline_millis: u32, prefer: &[&str]) {
        let prefer = prefer.iter().map(|address| (*address).to_owned()).collect();
        self.say(Message::Drain(Drain { deadline_millis, prefer })).await;
    }

    /// Asks about the tunnel to a peer, and returns the answer.
    pub(crate) async fn inspect(&mut self, query: u64, peer: NodeId) -> Inspected {
        let node_id = Bytes::copy_from_slice(peer.as_bytes());
        self.say(Message::Inspect(Inspect { query, node_id })).await;
        loop {
            if let sync_request::Message::Inspected(inspected) = self.request().await {
                return inspected;
            }
        }
    }

    /// Says which key peers know the agent by, from the next commit on.
    pub(crate) async fn own_key(&self, key: PublicKey) {
        let public_key = Bytes::copy_from_slice(key.as_bytes());
        self.say(Message::OwnKey(OwnKey { public_key, ..OwnKey::default() })).await;
    }

    /// Says which generation of the network's secret its entry has, from the next commit on.
    pub(crate) async fn own_generation(&self, generation: u64) {
        let secret_generation = Some(generation);
        self.say(Message::OwnKey(OwnKey { secret_generation, ..OwnKey::default() })).await;
    }

    /// Asks for a next key, and returns it.
    pub(crate) async fn make_key(&mut self) -> PublicKey {
        self.say(Message::OwnKey(OwnKey { make_next: true, ..OwnKey::default() })).await;
        self.next_key().await
    }

    pub(crate) async fn next_key(&mut self) -> PublicKey {
        loop {
            if let sync_request::Message::NextKey(NextKey { public_key }) = self.request().await {
                return PublicKey::try_from(public_key.as_ref()).unwrap();
            }
        }
    }

    pub(crate) async fn removed(&self) {
        self.say(Message::Removed(Removed {})).await;
    }

    /// The next ack of `revision` that `wanted` accepts; earlier ones are passed over.
    pub(crate) async fn ack_where(&mut self, revision: u64, wanted: impl Fn(&Ack) -> bool) -> Ack {
        loop {
            let ack = self.ack().await;
            assert!(ack.revision <= revision, "the agent is at {}", ack.revision);
            if ack.revision == revision && wanted(&ack) {
                return ack;
            }
        }
    }

    pub(crate) async fn ack(&mut self) -> Ack {
        loop {
            if let sync_request::Message::Ack(ack) = self.request().await {
                return ack;
            }
        }
    }

    pub(crate) async fn report(&mut self) -> Report {
        loop {
            if let sync_request::Message::Report(report) = self.request().await {
                return report;
            }
        }
    }

    pub(crate) async fn observations(&mut self) -> Observations {
        loop {
            if let sync_request::Message::Observations(seen) = self.request().await {
                return seen;
            }
        }
    }

    pub(crate) async fn resync(&mut self) -> Resync {
        loop {
            if let sync_request::Message::Resync(resync) = self.request().await {
                return resync;
            }
        }
    }

    /// Every request until `revision` is acked, that ack included.
    pub(crate) async fn until_ack(&mut self, revision: u64) -> Vec<sync_request::Message> {
        let mut all = Vec::new();
        loop {
            all.push(self.request().await);
            if matches!(all.last(), Some(sync_request::Message::Ack(a)) if a.revision == revision) {
                return all;
            }
        }
    }

    /// Waits until the agent hangs up.
    pub(crate) async fn closed(mut self) {
        let closed = async { while let Ok(Some(_)) = self.requests.message().await {} };
        timeout(PATIENCE, closed).await.expect("the agent should have hung up");
    }

    /// Whether the agent hangs up within `wait`.
    pub(crate) fn is_open(&self) -> bool {
        !self.answers.is_closed()
    }

    async fn request(&mut self) -> sync_request::Message {
        let request = timeout(PATIENCE, self.requests.message()).await;
        let request = request.expect("the agent should have said something").unwrap();
        request.expect("the agent hung up").message.unwrap()
    }
}

fn frame(entries: Vec<Bytes>, removed: &[NodeId], commit: Option<Commit>) -> Frame {
    let removed = removed.iter().map(|node| Bytes::copy_from_slice(node.as_bytes())).collect();
    Frame { entries, removed, commit }
}

fn digest_bytes(all: &[Bytes]) -> Bytes {
    Bytes::copy_from_slice(&digest_of(all).to_bytes())
}

pub(crate) fn digest_of(all: &[Bytes]) -> Digest {
    let mut digest = Digest::EMPTY;
    for entry in all {
        digest += Digest::of(entry::node_of(entry).unwrap(), entry);
    }
    digest
}

pub(crate) fn node(n: u8) -> NodeId {
    NodeId::new([n; 16])
}

pub(crate) fn key(n: u8) -> PublicKey {
    PublicKey::new([n; 32]).unwrap()
}

/// Peer `n`: its key and the last byte of its address are `n`.
pub(crate) fn peer(n: u8) -> Bytes {
    peer_at(n, &[])
}

/// Peer `n` with candidates.
pub(crate) fn peer_at(n: u8, endpoints: &[&str]) -> Bytes {
    let endpoint = |text: &&str| Endpoint::new(text.parse().unwrap()).unwrap();
    let endpoints = endpoints.iter().map(endpoint).collect();
    entry::encode(&PeerSpec { endpoints, ..spec(n) })
}

/// Peer `n` that holds a generation of the network's secret.
pub(crate) fn peer_holding(n: u8, generation: u64) -> Bytes {
    entry::encode(&PeerSpec { secret_generation: Generation(generation), ..spec(n) })
}

fn spec(n: u8) -> PeerSpec {
    PeerSpec {
        node: node(n),
        name: format!("peer-{n}").parse().unwrap(),
        public_key: key(n),
        next_public_key: None,
        ipv4: Some([10, 90, 0, n].into()),
        ipv6: None,
        endpoints: vec![],
        secret_generation: Generation::NONE,
    }
}

/// What Hello says the agent has.
pub(crate) fn has(hello: &Hello) -> (Option<Epoch>, Revision, Digest) {
    let epoch = Epoch::try_from(hello.epoch.as_ref()).ok();
    (epoch, Revision(hello.revision), Digest::try_from(hello.digest.as_ref()).unwrap())
}
