//! An agent that does exactly what a test says, over the real protocol.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use prost::Message as _;
use sha2::Digest as _;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};
use tower::ServiceExt as _;
use wattle_certs::{Identity, SpiffeId, client_config};
use wattle_model::{Digest, Epoch, InstanceId, NetworkName, NodeId, Revision};
use wattle_proto::{
    entry,
    sync::{
        self, SyncRequest, SyncResponse, sync_request, sync_response::Message,
        sync_service_client::SyncServiceClient,
    },
};
use wattle_runtime::dial;

use super::world::{Node, PATIENCE, World, network};

/// Where only these come, what a test waits for won't.
const MAX_HEARTBEATS: u32 = 30;

/// What an agent keeps across streams.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    pub(super) instance: InstanceId,
    pub(super) epoch: Option<Epoch>,
    pub(super) revision: Revision,
    pub(super) entries: BTreeMap<NodeId, Bytes>,
    pub(super) config: Option<sync::Config>,
    pub(super) public_key: Bytes,
    pub(super) secret_generation: u64,
}

/// An open stream.
pub(super) struct Agent {
    pub(super) held: Held,
    requests: mpsc::Sender<SyncRequest>,
    pub(super) responses: Streaming<SyncResponse>,
    /// Since anything else came.
    heartbeats: u32,
}

/// A whole batch.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<NodeId>,
    pub(super) removed: Vec<NodeId>,
    pub(super) frames: usize,
    pub(super) config: Option<sync::Config>,
    pub(super) own_key: Option<sync::OwnKey>,
    pub(super) commit: sync::Commit,
}

impl Held {
    pub(super) fn new(instance: u8) -> Self {
        Self { instance: InstanceId::new([instance; 16]), ..Self::default() }
    }

    pub(super) fn digest(&self) -> Digest {
        let mut digest = Digest::EMPTY;
        for (node, bytes) in &self.entries {
            digest += Digest::of(*node, bytes);
        }
        digest
    }

    pub(super) fn hello(&self) -> sync::Hello {
        let config = self.config.as_ref();
        sync::Hello {
            protocol_version: 1,
            instance: Bytes::copy_from_slice(self.instance.as_bytes()),
            epoch: self.epoch.map(|e| Bytes::copy_from_slice(e.as_bytes())).unwrap_or_default(),
            revision: self.revision.0,
            digest: self.digest().to_bytes().to_vec().into(),
            config_hash: config
                .map(|c| sha2::Sha256::digest(c.encode_to_vec()).to_vec().into())
                .unwrap_or_default(),
            accept_stale: false,
            agent_version: "test".to_owned(),
            stream: 0,
            public_key: self.public_key.clone(),
            secret_generation: self.secret_generation,
        }
    }
}

impl Agent {
    /// Opens a stream and says nothing.
    pub(super) async fn open(world: &World, node: &Node, held: Held) -> Self {
        Self::try_open(world, node, held).await.unwrap()
    }

    /// Opens a stream, if the control plane lets it.
    pub(super) async fn try_open(world: &World, node: &Node, held: Held) -> Result<Self, Status> {
        Self::try_open_in(world, &network(), node, held).await
    }

    /// The same with a certificate that names this network.
    pub(super) async fn try_open_in(
        world: &World,
        network: &NetworkName,
        node: &Node,
        held: Held,
    ) -> Result<Self, Status> {
        let (requests, outgoing) = mpsc::channel(4);
        let mut client = SyncServiceClient::new(dialed(world, network, node).await);
        let responses = client.sync(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Self { held, requests, responses, heartbeats: 0 })
    }

    /// What a stream ends with whose first message is `bytes`.
    pub(super) async fn noise(world: &World, node: &Node, bytes: &[u8]) -> Status {
        let body = [&[0][..], &u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
        let request = http::Request::post("http://control-plane/wattle.sync.v1.SyncService/Sync")
            .header("content-type", "application/grpc")
            .body(tonic::body::Body::new(http_body_util::Full::from(body)))
            .unwrap();
        let channel = dialed(world, &network(), node).await;
        let response = timeout(PATIENCE, channel.oneshot(request)).await.unwrap().unwrap();
        let body = timeout(PATIENCE, response.into_body().collect()).await.unwrap().unwrap();
        Status::from_header_map(body.trailers().unwrap()).unwrap()
    }

    /// Opens a stream, says hello and is welcome.
    pub(super) async fn connect(world: &World, node: &Node, held: Held) -> (Self, sync::Welcome) {
        let mut agent = Self::open(world, node, held).await;
        agent.say(sync_request::Message::Hello(agent.held.hello())).await;
        match agent.next().await {
            Message::Welcome(welcome) => {
                agent.held.epoch = Epoch::try_from(welcome.epoch.as_ref()).ok();
                (agent, welcome)
            }
            other => panic!("no welcome: {other:?}"),
        }
    }

    /// A new agent with its first set.
    pub(super) async fn joined(world: &World, node: &Node, instance: u8) -> Self {
        let (mut agent, welcome) = Self::connect(world, node, Held::new(instance)).await;
        assert!(welcome.full_set);
        agent.batch_acked().await;
        agent
    }

    /// Cuts the link; what it held stays.
    pub(super) fn cut(self) -> Held {
        self.held
    }

    pub(super) async fn say(&mut self, message: sync_request::Message) {
        let request = SyncRequest { message: Some(message) };
        timeout(PATIENCE, self.requests.send(request)).await.unwrap().unwrap();
    }

    /// An empty message.
    pub(super) async fn say_nothing(&mut self) {
        let request = SyncRequest { message: None };
        timeout(PATIENCE, self.requests.send(request)).await.unwrap().unwrap();
    }

    /// The next message, or how the stream ended.
    pub(super) async fn receive(&mut self) -> Result<Option<Message>, Status> {
        let response = timeout(PATIENCE, self.responses.message()).await.expect("silence")?;
        let message = response.map(|response| response.message.unwrap());
        let idle = matches!(message, Some(Message::Heartbeat(_)));
        self.heartbeats = if idle { self.heartbeats + 1 } else { 0 };
        assert!(self.heartbeats < MAX_HEARTBEATS, "nothing but heartbeats");
        Ok(message)
    }

    pub(super) async fn next(&mut self) -> Message {
        self.receive().await.unwrap().expect("the stream is over")
    }

    /// The next whole batch, applied. Heartbeats before it are passed over.
    pub(super) async fn batch(&mut self) -> Batch {
        self.batch_after(Vec::new()).await
    }

    /// The rest of a batch whose first frames are read, applied with them.
    pub(super) async fn batch_after(&mut self, mut frames: Vec<sync::Frame>) -> Batch {
        let mut batch = Batch::default();
        loop {
            match self.next().await {
                Message::Config(config) => batch.config = Some(config),
                Message::OwnKey(own_key) => batch.own_key = Some(own_key),
                Message::Heartbeat(_) => assert!(frames.is_empty(), "a heartbeat within a batch"),
                Message::Frame(frame) => {
                    assert!(frame.encoded_len() <= 64 << 10);
                    let commit = frame.commit.clone();
                    frames.push(frame);
                    if let Some(commit) = commit {
                        batch.commit = commit;
                        break;
                    }
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        batch.frames = frames.len();
        self.apply(&mut batch, frames);
        batch
    }

    fn apply(&mut self, batch: &mut Batch, frames: Vec<sync::Frame>) {
        if batch.commit.full_set {
            self.held.entries.clear();
        }
        for frame in frames {
            for bytes in frame.entries {
                let node = entry::node_of(&bytes).unwrap();
                batch.entries.push(node);
                self.held.entries.insert(node, bytes);
            }
            for node in frame.removed {
                let node = NodeId::try_from(node.as_ref()).unwrap();
                batch.removed.push(node);
                self.held.entries.remove(&node);
            }
        }
        if batch.config.is_some() {
            self.held.config.clone_from(&batch.config);
        }
        let revision = Revision(batch.commit.revision);
        assert!(revision >= self.held.revision || batch.commit.full_set);
        self.held.revision = revision;
        let sent = Digest::try_from(batch.commit.digest.as_ref()).unwrap();
        assert_eq!(sent, self.held.digest(), "the digest of what the agent holds");
    }

    pub(super) async fn batch_acked(&mut self) -> Batch {
        let batch = self.batch().await;
        self.ack().await;
        batch
    }

    /// What it would ack now.
    pub(super) fn an_ack(&self) -> sync::Ack {
        sync::Ack {
            revision: self.held.revision.0,
            digest: self.held.digest().to_bytes().to_vec().into(),
            apply_micros: 1500,
            rejected: Vec::new(),
            verified_revision: self.held.revision.0,
        }
    }

    pub(super) async fn ack(&mut self) {
        let ack = self.an_ack();
        self.say(sync_request::Message::Ack(ack)).await;
    }

    /// The next heartbeat, which must agree with what the agent holds.
    pub(super) async fn heartbeat(&mut self) -> sync::Heartbeat {
        match self.next().await {
            Message::Heartbeat(heartbeat) => {
                let digest = Digest::try_from(heartbeat.digest.as_ref()).unwrap();
                assert_eq!(digest, self.held.digest());
                assert!(heartbeat.revision >= self.held.revision.0);
                self.held.revision = Revision(heartbeat.revision);
                heartbeat
            }
            other => panic!("no heartbeat: {other:?}"),
        }
    }

    /// The status that the stream ends with, whatever comes before.
    pub(super) async fn end(&mut self) -> Status {
        loop {
            match self.receive().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    }
}

/// A connection with a certificate for `node`.
async fn dialed(world: &World, network: &NetworkName, node: &Node) -> Channel {
    let id = SpiffeId {
        trust_domain: world.replica.trust_domain.clone(),
        identity: Identity::Node { network: network.clone(), node: node.id },
    };
    let (lifetime, now) = (world.replica.certificate_lifetime, SystemTime::now());
    let leaf = world.replica.ca().issue(&id, &node.key.csr_key(), lifetime, now).unwrap();
    let tls = client_config(&world.replica.roots(), Some((vec![leaf], node.key.as_ref())), None);
    let addresses = [world.address.to_string()];
    dial::channel(&addresses, Arc::new(tls.unwrap()), PATIENCE).await.unwrap().channel
}
