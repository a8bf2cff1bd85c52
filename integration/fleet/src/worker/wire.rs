//! gRPC by hand: messages behind their length, in both directions. A channel of tonic's own has
//! buffers and a task for each connection, which ten thousand machines in one process can't afford.

use anyhow::{Context as _, Result, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::Message;
use sha2::{Digest as _, Sha256};
use wattle_proto::sync::SyncResponse;

const PREFIX: usize = 5;
/// A frame has at most 64 KiB; anything near this isn't from a control plane.
const LARGEST: usize = 4 << 20;

/// A message with its length before it.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX + length);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(length).expect("what an agent says is short"));
    message.encode(&mut bytes).expect("the buffer has room");
    bytes.freeze()
}

/// What has come of messages that aren't whole.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Bytes,
    partial: BytesMut,
}

impl Inbox {
    /// More has come. What came before must have been taken by [`Inbox::next`].
    pub(crate) fn push(&mut self, data: Bytes) {
        if self.partial.is_empty() {
            self.bytes = data;
        } else {
            self.partial.extend_from_slice(&data);
            self.bytes = std::mem::take(&mut self.partial).freeze();
        }
    }

    /// The next whole message.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>> {
        if self.bytes.len() >= PREFIX {
            ensure!(self.bytes[0] == 0, "a compressed message, which nobody asked for");
            let length = (&self.bytes[1..PREFIX]).get_u32() as usize;
            ensure!(length <= LARGEST, "a message of {length} bytes");
            if self.bytes.len() >= PREFIX + length {
                self.bytes.advance(PREFIX);
                return Ok(Some(self.bytes.split_to(length)));
            }
            self.partial.reserve(PREFIX + length);
        }
        self.partial.extend_from_slice(&self.bytes);
        self.bytes = Bytes::new();
        Ok(None)
    }
}

/// A message of the control plane.
pub(super) fn response(bytes: &Bytes) -> Result<SyncResponse> {
    SyncResponse::decode(bytes.clone()).context("a message that makes no sense")
}

/// The hash by which the control plane knows a Config: of its bytes as they were received.
pub(super) fn config_hash(response: &Bytes) -> Result<[u8; 32]> {
    Ok(Sha256::digest(&RawConfig::decode(response.clone())?.config).into())
}

#[derive(Message)]
struct RawConfig {
    #[prost(bytes = "bytes", tag = "3")]
    config: Bytes,
}

#[cfg(test)]
mod tests {
    use wattle_proto::sync::{Drain, Heartbeat, sync_response};

    use super::*;

    #[test]
    fn messages_come_out_whole_however_they_are_cut() {
        let messages: Vec<_> = (0..20_u32)
            .map(|n| SyncResponse {
                message: Some(if n % 3 == 0 {
                    sync_response::Message::Drain(Drain { deadline_millis: n, ..Drain::default() })
                } else {
                    let digest = Bytes::from(vec![7; n as usize * 10]);
                    let heartbeat = Heartbeat { revision: n.into(), digest, ack_wanted: false };
                    sync_response::Message::Heartbeat(heartbeat)
                }),
            })
            .collect();
        let whole: Vec<u8> = messages.iter().flat_map(|message| framed(message).to_vec()).collect();
        for size in [1, 2, 4, 5, 6, 7, 100, 1000, whole.len()] {
            let (mut inbox, mut seen) = (Inbox::default(), Vec::new());
            for part in whole.chunks(size) {
                inbox.push(Bytes::copy_from_slice(part));
                while let Some(message) = inbox.next().unwrap() {
                    seen.push(response(&message).unwrap());
                }
            }
            assert_eq!(seen, messages, "cut every {size} bytes");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [&[1, 0, 0, 0, 0][..], &[0, 255, 0, 0, 0]] {
            let mut inbox = Inbox::default();
            inbox.push(Bytes::from_static(bytes));
            inbox.next().unwrap_err();
        }
    }
}
