//! Whether a join token may be used.

use std::time::SystemTime;

use bytes::Bytes;
use prost::Message as _;
use wattle_model::{Labels, NetworkName, NodeName, TokenSecret};
use wattle_proto::{Invalid as _, InvalidField, store as proto};
use wattle_runtime::clock;

use super::refused::Refused;
use crate::store::{StoreError, Stored};

/// A token whose secret the caller knows, as it was read.
pub(super) struct Token {
    pub(super) stored: Stored,
    pub(super) network: NetworkName,
    pub(super) labels: Labels,
    /// The name that it fixes.
    pub(super) name: Option<NodeName>,
    record: proto::JoinToken,
}

impl Token {
    /// Reads a token, if `secret` is its secret. A token that doesn't exist takes as long and is
    /// answered alike.
    pub(super) fn proven(stored: Option<Stored>, secret: &TokenSecret) -> Result<Self, Refused> {
        let Some(stored) = stored else {
            let _ = secret.matches(&[0; 32]);
            return Err(Refused::Token);
        };
        let corrupt = |error: InvalidField| StoreError::Corrupt(format!("{}: {error}", stored.key));
        let record = proto::JoinToken::decode(stored.value.clone()).field("token");
        let record = record.map_err(corrupt)?;
        let hash = record.secret_hash.as_ref().try_into().field("token.secret_hash");
        if !secret.matches(hash.map_err(corrupt)?) {
            return Err(Refused::Token);
        }
        let parts = Self::parts(&record).map_err(corrupt)?;
        let (network, labels, name) = parts;
        Ok(Self { stored, network, labels, name, record })
    }

    fn parts(
        record: &proto::JoinToken,
    ) -> Result<(NetworkName, Labels, Option<NodeName>), InvalidField> {
        let name = (!record.node_name.is_empty()).then(|| record.node_name.parse()).transpose();
        Ok((
            record.network.parse().field("token.network")?,
            Labels::from_stored(&record.labels).field("token.labels")?,
            name.field("token.node_name")?,
        ))
    }

    /// Whether one more machine may use it now.
    pub(super) fn usable(&self, now: SystemTime) -> Result<(), Refused> {
        if self.record.revoked {
            Err(Refused::Revoked)
        } else if self.record.expires_at_millis <= clock::unix_millis(now) {
            Err(Refused::Expired)
        } else if !self.has_uses(1) {
            Err(Refused::UsedUp)
        } else {
            Ok(())
        }
    }

    /// Whether so many more machines may use it. A limit of 0 is none.
    pub(super) const fn has_uses(&self, more: u32) -> bool {
        self.record.max_uses == 0 || self.record.uses.saturating_add(more) <= self.record.max_uses
    }

    /// Its record after so many more uses.
    pub(super) fn used(&self, more: u32) -> Bytes {
        let uses = self.record.uses.saturating_add(more);
        proto::JoinToken { uses, ..self.record.clone() }.encode_to_vec().into()
    }
}
