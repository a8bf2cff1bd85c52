//! The stream's edge, outwards: what the control plane says, as gRPC messages ready to be sent.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use wattle_model::{Digest, Epoch, Generation, NodeId, PublicKey, ReplicaId, Revision};
use wattle_proto::sync::{self, retry::Reason, sync_response::Message};

use super::convert::PROTOCOL_VERSION;

/// The stream is accepted.
pub(super) fn welcome(
    epoch: Epoch,
    full_set: bool,
    replica: ReplicaId,
    heartbeat: Duration,
) -> Bytes {
    message(Message::Welcome(sync::Welcome {
        protocol_version: PROTOCOL_VERSION,
        epoch: Bytes::copy_from_slice(epoch.as_bytes()),
        full_set,
        replica_id: Bytes::copy_from_slice(replica.as_bytes()),
        heartbeat_millis: millis(heartbeat),
    }))
}

/// What ends a batch.
pub(super) fn commit(
    revision: Revision,
    digest: Digest,
    full_set: bool,
    ack_wanted: bool,
) -> sync::Commit {
    let digest = Bytes::copy_from_slice(&digest.to_bytes());
    sync::Commit { revision: revision.0, digest, full_set, ack_wanted }
}

/// A part of a batch. Entries are copied as they are.
pub(super) fn frame(
    entries: Vec<Bytes>,
    removed: &[NodeId],
    commit: Option<sync::Commit>,
) -> Bytes {
    let removed = removed.iter().map(|node| Bytes::copy_from_slice(node.as_bytes())).collect();
    message(Message::Frame(sync::Frame { entries, removed, commit }))
}

/// What belongs to one agent alone.
pub(super) fn config(config: sync::Config) -> Bytes {
    message(Message::Config(config))
}

/// What an agent says of the config it has: SHA-256 of the message's bytes.
pub(super) fn config_hash(config: &sync::Config) -> [u8; 32] {
    Sha256::digest(config.encode_to_vec()).into()
}

/// Nothing else was sent for a while.
pub(super) fn heartbeat(revision: Revision, digest: Digest, ack_wanted: bool) -> Bytes {
    let digest = Bytes::copy_from_slice(&digest.to_bytes());
    message(Message::Heartbeat(sync::Heartbeat { revision: revision.0, digest, ack_wanted }))
}

/// Not now, or not here.
pub(super) fn retry(reason: Reason, after: Duration) -> Bytes {
    message(Message::Retry(sync::Retry { reason: reason.into(), after_millis: millis(after) }))
}

/// The replica wants to stop, or to have fewer agents. `prefer` are addresses to go to first.
pub(super) fn drain(deadline: Duration, prefer: Vec<String>) -> Bytes {
    message(Message::Drain(sync::Drain { deadline_millis: millis(deadline), prefer }))
}

/// An operator asks about the tunnel to a peer.
pub(super) fn inspect(query: u64, peer: NodeId) -> Bytes {
    let node_id = Bytes::copy_from_slice(peer.as_bytes());
    message(Message::Inspect(sync::Inspect { query, node_id }))
}

/// The key that peers know the agent by, and the generation of the network's secret that its entry says,
/// where they change.
pub(super) fn own_key(key: Option<PublicKey>, generation: Option<Generation>) -> Bytes {
    let public_key = key.map_or_else(Bytes::new, |key| Bytes::copy_from_slice(key.as_bytes()));
    let secret_generation = generation.map(|generation| generation.0);
    message(Message::OwnKey(sync::OwnKey { public_key, make_next: false, secret_generation }))
}

/// The agent is to make a next key.
pub(super) fn make_next_key() -> Bytes {
    message(Message::OwnKey(sync::OwnKey { make_next: true, ..Default::default() }))
}

/// The node was deleted.
pub(super) fn removed() -> Bytes {
    message(Message::Removed(sync::Removed {}))
}

/// gRPC's five bytes (not compressed; length), then the message.
fn message(message: Message) -> Bytes {
    let message = sync::SyncResponse { message: Some(message) };
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(5 + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).expect("frames are at most 64 KiB"));
    message.encode(&mut bytes).expect("the buffer has room for all of it");
    bytes.freeze()
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
