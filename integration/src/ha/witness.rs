//! Agents without a device that speak the real protocol and record every word of it. They go from
//! replica to replica as real ones do, and never ask for a full set: whether they should have had
//! to is for the checker to say.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::{
    select,
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use wattle_certs::{KeyPair, TrustDomain};
use wattle_checker::{Heard, Outcome};
use wattle_model::{Digest, Endpoint, JoinToken, NodeId};
use wattle_proto::{
    enroll::EnrollResponse,
    entry,
    sync::{
        Ack, DataPlane, Frame, Hello, Report, SyncRequest, SyncResponse, sync_request,
        sync_response::Message, sync_service_client::SyncServiceClient,
    },
};
use wattle_runtime::dial;

use super::{
    operators::{NETWORK, Operators},
    recorder::Recorder,
};

const CONNECT: Duration = Duration::from_secs(2);
/// As the real agent has it.
const FIRST_WORD: Duration = Duration::from_secs(10);
const OUTGOING: usize = 8;
/// Between two streams: below this.
const PAUSE_MILLIS: u64 = 300;
/// Heartbeats missed before a stream is dead.
const MISSED: u32 = 3;

/// A recording agent. Dropping it ends its stream.
pub struct Witness {
    /// Its node.
    pub node: NodeId,
    shared: Arc<Shared>,
    endpoint: watch::Sender<Endpoint>,
}

struct Shared {
    node: NodeId,
    tls: Arc<ClientConfig>,
    recorder: Recorder,
    state: Mutex<State>,
}

/// What it holds.
#[derive(Default)]
struct State {
    epoch: Bytes,
    revision: u64,
    entries: BTreeMap<NodeId, Bytes>,
    addresses: Vec<String>,
    streams: u64,
}

/// What has come since the last commit.
type Stage = Vec<(NodeId, Option<Bytes>)>;

impl Witness {
    /// Enrols with `token`. Nothing is recorded before [`Witness::follow`] runs.
    pub async fn enrol(
        operators: &Operators,
        recorder: Recorder,
        token: &JoinToken,
        name: &str,
    ) -> Result<Self> {
        let (keys, wireguard) = (KeyPair::generate(), rand::random());
        let (outcome, answer) = operators.enrol(token, &keys, wireguard, name).await;
        let Outcome::Enrolled(node) = outcome else { bail!("{name} can't enrol: {outcome:?}") };
        let answer = answer.context("an enrolment without an answer")?;
        let tls = Arc::new(tls(&keys, &answer)?);
        let addresses = answer.config.map(|config| config.control_planes).unwrap_or_default();
        let state = State { addresses, ..State::default() };
        let shared = Shared { node, tls, recorder, state: Mutex::new(state) };
        let (endpoint, _) = watch::channel(endpoint(1));
        Ok(Self { node, shared: Arc::new(shared), endpoint })
    }

    /// What keeps its stream open until the witness is dropped.
    pub fn follow(&self) -> impl Future<Output = ()> + Send + use<> {
        let (shared, endpoint) = (self.shared.clone(), self.endpoint.subscribe());
        async move { keep(shared, endpoint).await }
    }

    /// It moves: it reports another endpoint.
    pub fn move_to(&self, number: u32) {
        self.endpoint.send_replace(endpoint(number));
    }

    /// The digest of what it holds.
    pub fn digest(&self) -> Digest {
        self.shared.state.lock().digest()
    }
}

/// In the range for benchmarks, RFC 2544: nobody is there.
fn endpoint(number: u32) -> Endpoint {
    let ip = std::net::Ipv4Addr::from(0xc612_0000 | (number & 0xffff));
    Endpoint::new((ip, 51820).into()).expect("it is one")
}

fn tls(keys: &KeyPair, answer: &EnrollResponse) -> Result<ClientConfig> {
    let credential = answer.credential.as_ref().context("an answer without a certificate")?;
    let certificate = |der: &Bytes| rustls::pki_types::CertificateDer::from(der.to_vec());
    let roots: Vec<_> = credential.ca_certificates.iter().map(certificate).collect();
    let trust_domain: TrustDomain = credential.trust_domain.parse()?;
    let own = (vec![certificate(&credential.certificate)], keys);
    Ok(wattle_certs::client_config(&roots, Some(own), Some(&trust_domain))?)
}

async fn keep(shared: Arc<Shared>, mut endpoint: watch::Receiver<Endpoint>) {
    let mut place = rand::random_range(0..64);
    loop {
        let follow = follow(&shared, place, &mut endpoint);
        // Why a stream ended is for the checker to judge by what was heard on it.
        let _ = follow.await;
        // Nobody holds the witness any more.
        if endpoint.has_changed().is_err() {
            return;
        }
        place += 1;
        sleep(Duration::from_millis(rand::random_range(0..PAUSE_MILLIS))).await;
    }
}

/// One stream, to its end.
async fn follow(
    shared: &Shared,
    place: usize,
    endpoint: &mut watch::Receiver<Endpoint>,
) -> Result<()> {
    let address = {
        let state = shared.state.lock();
        let count = state.addresses.len().max(1);
        state.addresses.get(place % count).cloned().context("no address")?
    };
    let dialed = dial::channel(&[address], shared.tls.clone(), CONNECT).await?;
    let (say, said) = mpsc::channel(OUTGOING);
    let hello = shared.hello();
    let from = hello.revision;
    say.send(request(sync_request::Message::Hello(hello))).await?;
    let mut client = SyncServiceClient::new(dialed.channel).max_decoding_message_size(4 << 20);
    let mut stream =
        timeout(FIRST_WORD, client.sync(ReceiverStream::new(said))).await??.into_inner();
    let first = timeout(FIRST_WORD, stream.message()).await??;
    let first = first.and_then(|first| first.message);
    let Some(Message::Welcome(welcome)) = first else { bail!("{first:?}") };
    shared.welcome(&welcome.epoch, welcome.full_set, from);
    let patience = Duration::from_millis(welcome.heartbeat_millis.into()) * MISSED;
    endpoint.mark_changed();
    listen(shared, &mut stream, &say, endpoint, patience).await
}

async fn listen(
    shared: &Shared,
    stream: &mut Streaming<SyncResponse>,
    say: &mpsc::Sender<SyncRequest>,
    endpoint: &mut watch::Receiver<Endpoint>,
    patience: Duration,
) -> Result<()> {
    let mut stage = Stage::new();
    loop {
        let message = select! {
            message = timeout(patience, stream.message()) => message??.context("the end")?,
            changed = endpoint.changed() => {
                changed?;
                let report = report(*endpoint.borrow_and_update());
                say.send(request(sync_request::Message::Report(report))).await?;
                continue;
            }
        };
        let ack = match message.message {
            Some(Message::Frame(frame)) => shared.frame(frame, &mut stage)?,
            Some(Message::Heartbeat(heartbeat)) if stage.is_empty() => {
                shared.heartbeat(heartbeat.revision, heartbeat.digest);
                heartbeat.ack_wanted
            }
            Some(Message::Config(config)) => {
                shared.state.lock().learn(config.control_planes);
                false
            }
            Some(Message::Drain(_) | Message::Retry(_)) => bail!("to another replica"),
            Some(Message::Removed(_)) => std::future::pending().await,
            _ => false,
        };
        if ack {
            say.send(request(sync_request::Message::Ack(shared.ack()))).await?;
        }
    }
}

impl Shared {
    fn hello(&self) -> Hello {
        let mut state = self.state.lock();
        state.streams += 1;
        Hello {
            protocol_version: 1,
            instance: Bytes::copy_from_slice(self.node.as_bytes()),
            epoch: state.epoch.clone(),
            revision: state.revision,
            digest: Bytes::copy_from_slice(&state.digest().to_bytes()),
            config_hash: Bytes::new(),
            accept_stale: false,
            agent_version: "witness".into(),
            stream: state.streams,
            public_key: Bytes::new(),
            secret_generation: 0,
        }
    }

    fn welcome(&self, epoch: &Bytes, full_set: bool, from: u64) {
        self.state.lock().epoch.clone_from(epoch);
        let heard = Heard::Welcome { epoch: epoch.clone(), full_set, from };
        self.recorder.heard(self.node, NETWORK, heard);
    }

    /// Stages a frame; whether it ended the batch.
    fn frame(&self, frame: Frame, stage: &mut Stage) -> Result<bool> {
        for bytes in frame.entries {
            stage.push((entry::node_of(&bytes)?, Some(bytes)));
        }
        for id in &frame.removed {
            stage.push((NodeId::try_from(id.as_ref())?, None));
        }
        let Some(commit) = frame.commit else { return Ok(false) };
        let changes = std::mem::take(stage);
        self.state.lock().apply(&changes, commit.full_set, commit.revision);
        let (revision, full_set, digest) = (commit.revision, commit.full_set, commit.digest);
        let heard = Heard::Batch { revision, full_set, changes, digest };
        self.recorder.heard(self.node, NETWORK, heard);
        Ok(true)
    }

    fn heartbeat(&self, revision: u64, digest: Bytes) {
        let mut state = self.state.lock();
        if state.digest().to_bytes() == *digest {
            state.revision = state.revision.max(revision);
        }
        drop(state);
        self.recorder.heard(self.node, NETWORK, Heard::Heartbeat { revision, digest });
    }

    fn ack(&self) -> Ack {
        let state = self.state.lock();
        Ack {
            revision: state.revision,
            digest: Bytes::copy_from_slice(&state.digest().to_bytes()),
            apply_micros: 0,
            rejected: Vec::new(),
            verified_revision: state.revision,
        }
    }
}

impl State {
    fn learn(&mut self, addresses: Vec<String>) {
        if !addresses.is_empty() {
            self.addresses = addresses;
        }
    }

    fn apply(&mut self, changes: &Stage, full_set: bool, revision: u64) {
        if full_set {
            self.entries.clear();
        }
        for (node, entry) in changes {
            match entry {
                Some(entry) => drop(self.entries.insert(*node, entry.clone())),
                None => drop(self.entries.remove(node)),
            }
        }
        self.revision = revision;
    }

    fn digest(&self) -> Digest {
        let mut digest = Digest::EMPTY;
        self.entries.iter().for_each(|(node, entry)| digest += Digest::of(*node, entry));
        digest
    }
}

fn report(endpoint: Endpoint) -> Report {
    Report {
        endpoints: vec![endpoint.to_bytes().into()],
        listen_port: 51820,
        data_plane: DataPlane::Kernel.into(),
        secret_generation: 0,
    }
}

const fn request(message: sync_request::Message) -> SyncRequest {
    SyncRequest { message: Some(message) }
}
