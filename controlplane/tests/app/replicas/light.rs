//! An agent without a device: it applies what it is sent at once, remembers how far it is, and does
//! what a draining replica asks for.

use std::time::Duration;

use bytes::Bytes;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use wattle_certs::KeyPair;
use wattle_proto::{
    enroll::EnrollResponse,
    sync::{
        self as proto, Hello, SyncRequest, SyncResponse, sync_request, sync_response::Message,
        sync_service_client::SyncServiceClient,
    },
};

use crate::{Running, whole};

const PATIENCE: Duration = Duration::from_secs(20);

/// What one machine has, whichever replica it is connected to.
#[derive(Clone, Default)]
pub(crate) struct Has {
    instance: Bytes,
    streams: u64,
    epoch: Bytes,
    revision: u64,
    digest: Bytes,
}

/// A machine with a stream.
pub(crate) struct Light {
    pub(crate) made: EnrollResponse,
    key: KeyPair,
    pub(crate) has: Has,
    pub(crate) link: Link,
    /// Full sets that it was sent.
    pub(crate) full_sets: usize,
    /// Acks what it is sent.
    pub(crate) acks: bool,
}

/// One stream.
pub(crate) struct Link {
    requests: mpsc::Sender<SyncRequest>,
    responses: Streaming<SyncResponse>,
}

impl Light {
    /// Joins with a token and connects.
    pub(crate) async fn join(token: &str, name: &str, replica: &Running) -> Self {
        let key = KeyPair::generate();
        let made = whole::join(token, name, &key).await;
        let has =
            Has { instance: Bytes::from(rand::random::<[u8; 16]>().to_vec()), ..Has::default() };
        Self::connect(made, key, has, replica).await
    }

    /// The same machine's clone, which knows nothing.
    pub(crate) async fn clone_at(&self, replica: &Running) -> Self {
        let key = KeyPair::from_pem(&self.key.to_pem()).unwrap();
        let has =
            Has { instance: Bytes::from(rand::random::<[u8; 16]>().to_vec()), ..Has::default() };
        Self::connect(self.made.clone(), key, has, replica).await
    }

    async fn connect(made: EnrollResponse, key: KeyPair, mut has: Has, replica: &Running) -> Self {
        let link = Link::open(&made, &key, &mut has, replica).await.unwrap();
        let mut light = Self { made, key, has, link, full_sets: 0, acks: true };
        light.welcomed().await;
        light
    }

    /// Another stream, at any replica; the old one is returned as it is.
    pub(crate) async fn reconnect(&mut self, replica: &Running) -> Link {
        let link = Link::open(&self.made, &self.key, &mut self.has, replica).await.unwrap();
        let old = std::mem::replace(&mut self.link, link);
        self.welcomed().await;
        old
    }

    /// The same where the replica may refuse it; the stream that there is stays.
    pub(crate) async fn try_reconnect(&mut self, replica: &Running) -> Result<Link, Status> {
        Link::open(&self.made, &self.key, &mut self.has, replica).await
    }

    async fn welcomed(&mut self) {
        let Message::Welcome(welcome) = self.link.next().await.unwrap() else {
            panic!("the first word is Welcome");
        };
        self.full_sets += usize::from(welcome.full_set);
        self.has.epoch = welcome.epoch;
    }

    /// Follows the stream until it is told to go elsewhere.
    pub(crate) async fn drained(&mut self) -> proto::Drain {
        loop {
            match self.step().await.unwrap() {
                Message::Drain(drain) => return drain,
                other => assert!(!matches!(other, Message::Retry(_)), "{other:?}"),
            }
        }
    }

    /// Follows the stream until it has this revision.
    pub(crate) async fn reach(&mut self, revision: u64) {
        while self.has.revision < revision {
            self.step().await.unwrap();
        }
    }

    /// The next message, applied.
    pub(crate) async fn step(&mut self) -> Result<Message, Status> {
        let message = self.link.next().await?;
        let (revision, digest, ack) = match &message {
            Message::Frame(proto::Frame { commit: Some(commit), .. }) => {
                (commit.revision, commit.digest.clone(), commit.ack_wanted)
            }
            Message::Heartbeat(beat) => (beat.revision, beat.digest.clone(), beat.ack_wanted),
            _ => return Ok(message),
        };
        (self.has.revision, self.has.digest) = (revision, digest);
        if self.acks && ack {
            self.ack().await;
        }
        Ok(message)
    }

    /// Says which WireGuard key it would change to.
    pub(crate) async fn next_key(&self, key: &Bytes) {
        let next = proto::NextKey { public_key: key.clone() };
        self.link.say(sync_request::Message::NextKey(next)).await;
    }

    pub(crate) async fn ack(&self) {
        let ack = proto::Ack {
            revision: self.has.revision,
            digest: self.has.digest.clone(),
            verified_revision: self.has.revision,
            ..proto::Ack::default()
        };
        self.link.say(sync_request::Message::Ack(ack)).await;
    }
}

impl Link {
    async fn open(
        made: &EnrollResponse,
        key: &KeyPair,
        has: &mut Has,
        replica: &Running,
    ) -> Result<Self, Status> {
        has.streams += 1;
        let channel = whole::node(replica, made, key).await;
        let (requests, receiver) = mpsc::channel(8);
        let digest = match has.digest.is_empty() {
            true => Bytes::from_static(&[0; 16]),
            false => has.digest.clone(),
        };
        let hello = Hello {
            protocol_version: 1,
            instance: has.instance.clone(),
            epoch: match has.revision {
                0 => Bytes::new(),
                _ => has.epoch.clone(),
            },
            revision: has.revision,
            digest,
            stream: has.streams,
            ..Hello::default()
        };
        let hello = SyncRequest { message: Some(sync_request::Message::Hello(hello)) };
        requests.send(hello).await.unwrap();
        let answer = SyncServiceClient::new(channel).sync(ReceiverStream::new(receiver)).await?;
        Ok(Self { requests, responses: answer.into_inner() })
    }

    /// The next message; an error where the stream is over.
    pub(crate) async fn next(&mut self) -> Result<Message, Status> {
        let next = timeout(PATIENCE, self.responses.message()).await;
        match next.expect("a message within 20 s")? {
            Some(message) => Ok(message.message.unwrap()),
            None => Err(Status::ok("over")),
        }
    }

    /// How it ends, soon: with what last message, and what status.
    pub(crate) async fn end(&mut self) -> (Option<Message>, Status) {
        let mut last = None;
        let ended = timeout(PATIENCE, async {
            loop {
                match self.next().await {
                    Ok(message) => last = Some(message),
                    Err(status) => return status,
                }
            }
        });
        let status = ended.await.expect("an end within 20 s, whatever comes before");
        (last, status)
    }

    async fn say(&self, message: sync_request::Message) {
        // It may be over.
        let _ = self.requests.send(SyncRequest { message: Some(message) }).await;
    }
}
