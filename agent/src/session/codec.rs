//! gRPC messages as bytes on the way in: a Config message is kept and hashed as it was received,
//! which it no longer is once prost has decoded it and dropped what this version doesn't know.

use bytes::{Buf as _, Bytes};
use prost::Message as _;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};
use wattle_proto::sync::SyncRequest;

/// Encodes requests, and leaves answers as they are.
#[derive(Debug, Default)]
pub(super) struct SyncCodec;

impl Codec for SyncCodec {
    type Encode = SyncRequest;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for SyncCodec {
    type Item = SyncRequest;
    type Error = Status;

    fn encode(&mut self, item: SyncRequest, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(to).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for SyncCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
