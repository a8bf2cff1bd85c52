//! The protocol's edge: bytes of the stream become checked values here and go no further. A message
//! that makes no sense ends the stream; an entry that makes none rejects only itself.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use rustls_pki_types::CertificateDer;
use wattle_model::{
    Digest, Endpoint, Epoch, Generation, InstanceId, NetworkSecret, NodeId, PeerSpec, PublicKey,
    ReplicaId, Revision,
};
use wattle_plan::{ObservedPeer, Update};
use wattle_proto::{
    Invalid as _, InvalidField, entry,
    sync::{self, sync_request, sync_response},
};

use crate::{
    reconcile::Sighting,
    report::Report,
    settings::{self, Settings},
    state::{
        held::{ConfigHash, Difference, Held},
        secrets::Given,
    },
};

/// The protocol that this agent speaks.
pub(super) const PROTOCOL_VERSION: u32 = 1;

/// Addresses that a draining replica may recommend.
const MAX_PREFERRED: usize = 16;

/// A longer reason than this tells an operator nothing more.
const MAX_REASON: usize = 200;

/// What the control plane said.
#[derive(Debug)]
pub(super) enum Message {
    Welcome(Welcome),
    Frame(Frame),
    /// Settings that make no sense are no reason to refuse the peers that come with them.
    Config(Result<Box<Config>, InvalidField>),
    Heartbeat(Mark),
    Retry(Retry),
    Drain {
        deadline: Duration,
        /// Where to go first.
        prefer: Vec<String>,
    },
    Removed,
    /// An operator wants to know of a tunnel.
    Inspect {
        query: u64,
        peer: NodeId,
    },
    /// About this node's own WireGuard key, and what its preshared keys are derived of.
    OwnKey {
        /// The one that peers know it by.
        key: Option<PublicKey>,
        /// The generation of the network's secret that its entry says.
        generation: Option<Generation>,
        /// A next one is wished for.
        make_next: bool,
    },
}

/// The stream is accepted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Welcome {
    pub(super) epoch: Epoch,
    pub(super) full_set: bool,
    pub(super) replica: ReplicaId,
    pub(super) heartbeat: Duration,
}

/// A part of a batch.
#[derive(Debug, Default)]
pub(super) struct Frame {
    /// Entries by node; `None` for one that is no longer to be seen.
    pub(super) changes: Vec<(NodeId, Option<Bytes>)>,
    /// Why parts of it couldn't even be held.
    pub(super) unreadable: Vec<InvalidField>,
    /// Ends the batch.
    pub(super) commit: Option<Commit>,
}

/// A revision, the digest of everything seen there, and whether somebody waits for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) revision: Revision,
    pub(super) digest: Digest,
    pub(super) ack_wanted: bool,
}

/// The end of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Commit {
    pub(super) mark: Mark,
    pub(super) full_set: bool,
}

/// The agent's own settings.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) settings: Settings,
    pub(super) ca_certificates: Option<Vec<CertificateDer<'static>>>,
    pub(super) secrets: Given,
    pub(super) hash: ConfigHash,
}

/// Not now, or not here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    pub(super) reason: RetryReason,
    pub(super) after: Duration,
}

/// Why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryReason {
    Behind,
    Stale,
    Displaced,
    Busy,
}

/// Reads one message. `None` for one of a kind that this version doesn't know.
pub(super) fn message(bytes: &Bytes) -> Result<Option<Message>, InvalidField> {
    let response = sync::SyncResponse::decode(bytes.clone()).field("message")?;
    let Some(message) = response.message else { return Ok(None) };
    Ok(Some(match message {
        sync_response::Message::Welcome(message) => Message::Welcome(welcome(&message)?),
        sync_response::Message::Frame(message) => Message::Frame(frame(message)?),
        sync_response::Message::Config(message) => {
            Message::Config(config(&message, bytes).map(Box::new))
        }
        sync_response::Message::Heartbeat(message) => Message::Heartbeat(Mark {
            revision: Revision(message.revision),
            digest: Digest::try_from(message.digest.as_ref()).field("heartbeat.digest")?,
            ack_wanted: message.ack_wanted,
        }),
        sync_response::Message::Retry(message) => Message::Retry(retry(&message)),
        sync_response::Message::Drain(message) => Message::Drain {
            deadline: millis(message.deadline_millis),
            prefer: message.prefer.into_iter().take(MAX_PREFERRED).collect(),
        },
        sync_response::Message::Removed(sync::Removed {}) => Message::Removed,
        sync_response::Message::Inspect(message) => Message::Inspect {
            query: message.query,
            peer: NodeId::try_from(message.node_id.as_ref()).field("inspect.node_id")?,
        },
        sync_response::Message::OwnKey(message) => Message::OwnKey {
            key: entry::public_key(&message.public_key).field("own_key.public_key")?,
            generation: message.secret_generation.map(Generation),
            make_next: message.make_next,
        },
    }))
}

fn welcome(message: &sync::Welcome) -> Result<Welcome, InvalidField> {
    if message.protocol_version != PROTOCOL_VERSION {
        let theirs = message.protocol_version;
        return Err(format!("{theirs}, and this agent speaks {PROTOCOL_VERSION}"))
            .field("welcome.protocol_version");
    }
    if message.heartbeat_millis == 0 {
        return Err("zero").field("welcome.heartbeat_millis");
    }
    Ok(Welcome {
        epoch: Epoch::try_from(message.epoch.as_ref()).field("welcome.epoch")?,
        full_set: message.full_set,
        replica: ReplicaId::try_from(message.replica_id.as_ref()).field("welcome.replica_id")?,
        heartbeat: millis(message.heartbeat_millis),
    })
}

fn frame(message: sync::Frame) -> Result<Frame, InvalidField> {
    let mut frame = Frame::default();
    for node in &message.removed {
        let node = NodeId::try_from(node.as_ref()).field("frame.removed")?;
        frame.changes.push((node, None));
    }
    for bytes in &message.entries {
        match entry::node_of(bytes) {
            // A copy: the bytes received are one allocation with the rest of the frame.
            Ok(node) => frame.changes.push((node, Some(Bytes::copy_from_slice(bytes)))),
            Err(error) => frame.unreadable.push(error),
        }
    }
    frame.commit = message.commit.as_ref().map(commit).transpose()?;
    Ok(frame)
}

fn commit(message: &sync::Commit) -> Result<Commit, InvalidField> {
    let mark = Mark {
        revision: Revision(message.revision),
        digest: Digest::try_from(message.digest.as_ref()).field("commit.digest")?,
        ack_wanted: message.ack_wanted,
    };
    Ok(Commit { mark, full_set: message.full_set })
}

/// A Config's bytes within the message they came in.
#[derive(Clone, PartialEq, prost::Message)]
struct ConfigBytes {
    #[prost(bytes = "bytes", tag = "3")]
    config: Bytes,
}

fn config(message: &sync::Config, received: &Bytes) -> Result<Config, InvalidField> {
    let raw = ConfigBytes::decode(received.clone()).field("config")?;
    Ok(Config {
        settings: Settings::try_from(message)?,
        ca_certificates: settings::roots(&message.ca_certificates),
        secrets: message.secrets.iter().map(secret).collect::<Result<_, _>>()?,
        hash: ConfigHash::of(&raw.config),
    })
}

/// One of the network's secrets. What is wrong with it is said without a byte of it.
fn secret(
    message: &sync::NetworkSecret,
) -> Result<(Generation, Option<NetworkSecret>), InvalidField> {
    let bytes = message.secret.as_ref();
    let secret = (!bytes.is_empty())
        .then(|| <[u8; 32]>::try_from(bytes))
        .transpose()
        .map_err(|_| format!("32 bytes or none, got {}", bytes.len()))
        .field("config.secrets.secret")?;
    match Generation(message.generation) {
        Generation::NONE => Err("zero").field("config.secrets.generation"),
        generation => Ok((generation, secret.map(NetworkSecret::new))),
    }
}

fn retry(message: &sync::Retry) -> Retry {
    let reason = match message.reason() {
        sync::retry::Reason::Behind => RetryReason::Behind,
        sync::retry::Reason::Stale => RetryReason::Stale,
        sync::retry::Reason::Displaced => RetryReason::Displaced,
        // A reason that this version doesn't know asks for no more than patience.
        sync::retry::Reason::Busy | sync::retry::Reason::Unspecified => RetryReason::Busy,
    };
    Retry { reason, after: millis(message.after_millis) }
}

fn millis(millis: u32) -> Duration {
    Duration::from_millis(millis.into())
}

/// An entry that isn't applied, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// Whose entry; `None` where it doesn't even say that.
    pub(crate) node: Option<NodeId>,
    /// For operators to read.
    pub(crate) reason: String,
}

/// What the plan is told of a difference. An entry that can't be read is nobody's peer: whoever
/// was known under its node id is gone, as after a restart, so that what the data plane does
/// depends on what is held alone.
pub(crate) fn delta(difference: &Difference) -> (Update, Vec<Rejection>) {
    let entries = difference.upserts.iter().map(|(node, entry)| (*node, entry));
    let (upserts, rejected) = peers(entries);
    let unread = rejected.iter().filter_map(|rejection| rejection.node);
    let removed = difference.removed.iter().copied().chain(unread).collect();
    (Update::Delta { upserts, removed }, rejected)
}

/// What the plan is told of everything held.
pub(crate) fn reset(held: &Held) -> (Update, Vec<Rejection>) {
    let (peers, rejected) = peers(held.entries());
    (Update::Reset(peers), rejected)
}

fn peers<'a>(
    entries: impl Iterator<Item = (NodeId, &'a Bytes)>,
) -> (Vec<PeerSpec>, Vec<Rejection>) {
    let (mut peers, mut rejected) = (Vec::new(), Vec::new());
    for (node, bytes) in entries {
        match entry::decode(bytes) {
            Ok(peer) => peers.push(peer),
            Err(error) => {
                rejected.push(Rejection { node: Some(node), reason: error.to_string() });
            }
        }
    }
    (peers, rejected)
}

/// What the agent has, for the first message of a stream.
pub(super) fn hello(
    held: &Held,
    instance: InstanceId,
    stream: u64,
    accept_stale: bool,
    (public_key, secret_generation): (PublicKey, Generation),
) -> sync::SyncRequest {
    let bytes = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    request(sync_request::Message::Hello(sync::Hello {
        protocol_version: PROTOCOL_VERSION,
        instance: bytes(instance.as_bytes()),
        epoch: held.epoch().map_or_else(Bytes::new, |epoch| bytes(epoch.as_bytes())),
        revision: held.revision().0,
        digest: bytes(&held.digest().to_bytes()),
        config_hash: held.config_hash().map_or_else(Bytes::new, |hash| bytes(&hash.0)),
        accept_stale,
        agent_version: env!("CARGO_PKG_VERSION").into(),
        stream,
        public_key: bytes(public_key.as_bytes()),
        secret_generation: secret_generation.0,
    }))
}

/// What was applied.
pub(super) fn ack(
    held: &Held,
    took: Duration,
    rejected: Vec<Rejection>,
    verified: Revision,
) -> sync::SyncRequest {
    let rejected = rejected.into_iter().map(|rejection| sync::Rejection {
        node_id: rejection.node.map_or_else(Bytes::new, |n| Bytes::copy_from_slice(n.as_bytes())),
        reason: rejection.reason.chars().take(MAX_REASON).collect(),
    });
    request(sync_request::Message::Ack(sync::Ack {
        revision: held.revision().0,
        digest: Bytes::copy_from_slice(&held.digest().to_bytes()),
        apply_micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        rejected: rejected.collect(),
        verified_revision: verified.0,
    }))
}

/// What the agent knows of itself.
pub(super) fn report(report: &Report) -> sync::SyncRequest {
    request(sync_request::Message::Report(sync::Report {
        endpoints: report.endpoints.iter().map(|e| e.to_bytes().into()).collect(),
        listen_port: report.listen_port.into(),
        data_plane: report.data_plane.into(),
        secret_generation: report.secret_generation.0,
    }))
}

/// The tunnel to a peer, as the device shows it.
pub(super) fn inspected(query: u64, seen: Option<&ObservedPeer>) -> sync::SyncRequest {
    let endpoint = seen.and_then(|peer| Endpoint::new(peer.endpoint?).ok());
    let handshake = seen.and_then(|peer| peer.last_handshake);
    request(sync_request::Message::Inspected(sync::Inspected {
        query,
        endpoint: endpoint.map_or_else(Bytes::new, |endpoint| endpoint.to_bytes().into()),
        handshake_millis_ago: handshake
            .map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
    }))
}

/// Where peers behind NAT are.
pub(super) fn observations(sightings: &[Sighting]) -> sync::SyncRequest {
    let observations = sightings.iter().map(|seen| sync::Observation {
        node_id: Bytes::copy_from_slice(seen.node.as_bytes()),
        endpoint: seen.endpoint.to_bytes().into(),
        handshake_millis_ago: u64::try_from(seen.handshake.elapsed().as_millis())
            .unwrap_or(u64::MAX),
    });
    let observations = observations.collect();
    request(sync_request::Message::Observations(sync::Observations { observations }))
}

/// A key that is made and kept, and not used yet.
pub(super) fn next_key(key: PublicKey) -> sync::SyncRequest {
    let public_key = Bytes::copy_from_slice(key.as_bytes());
    request(sync_request::Message::NextKey(sync::NextKey { public_key }))
}

/// Asks for a full set.
pub(super) fn resync(at: Revision) -> sync::SyncRequest {
    request(sync_request::Message::Resync(sync::Resync { revision: at.0 }))
}

fn request(message: sync_request::Message) -> sync::SyncRequest {
    sync::SyncRequest { message: Some(message) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Config of a later version, with a field that this one doesn't know.
    #[test]
    fn a_config_is_hashed_as_it_was_received() {
        let known =
            sync::Config { network: "default".into(), node_name: "a".into(), ..Default::default() };
        let mut config = known.encode_to_vec();
        config.extend_from_slice(&[0xa2, 0x06, 1, 0x42]);
        let mut bytes = vec![0x1a, u8::try_from(config.len()).unwrap()];
        bytes.extend_from_slice(&config);
        let Ok(Some(Message::Config(Ok(read)))) = message(&bytes.into()) else {
            panic!("it isn't a Config");
        };
        assert_eq!(read.hash, ConfigHash::of(&config));
        assert_ne!(read.hash, ConfigHash::of(&known.encode_to_vec()));
    }

    #[test]
    fn a_message_of_a_later_version_is_passed_over() {
        assert!(message(&Bytes::from_static(&[0xa2, 0x06, 1, 0x42])).unwrap().is_none());
    }

    #[test]
    fn entries_held_are_no_part_of_the_frame_s_memory() {
        let entry = crate::scripted::peer(1);
        let frame = sync::Frame { entries: vec![entry.clone(); 3], ..Default::default() };
        let response = sync::SyncResponse { message: Some(sync_response::Message::Frame(frame)) };
        let received = Bytes::from(response.encode_to_vec());
        let Ok(Some(Message::Frame(frame))) = message(&received) else { panic!("no Frame") };
        let held = frame.changes[0].1.as_ref().unwrap();
        let inside = received.as_ptr_range().contains(&held.as_ptr());
        assert!(*held == entry && !inside, "it would keep the whole frame alive");
    }
}
