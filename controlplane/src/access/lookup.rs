//! From a certificate to a live record.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use tokio::time::timeout;
use tonic::Status;
use wattle_certs::{Identity, PeerCertificate, TrustDomain};
use wattle_model::{Fingerprint, NetworkName, NodeId, OperatorId, ReplicaId};
use wattle_proto::store as record;
use wattle_runtime::clock;

use super::{PeerInfo, Principal, Role};
use crate::{
    nodes::{NodeRecord, removed, store_failed, unknown},
    replicas::Presence,
    store::{Store, StoreError, feed::Live, keys},
};

/// How long a store is waited for that hasn't been seen for a while, for an operator's record.
const PATIENCE: Duration = Duration::from_secs(1);

/// A record is found by what a certificate says, and must then have its key.
pub(super) struct Lookup {
    pub(super) store: Arc<dyn Store>,
    pub(super) live: Live,
    pub(super) trust_domain: TrustDomain,
}

impl Lookup {
    /// Who is at the other end, if their record lives.
    pub(super) async fn principal(&self, peer: &PeerInfo) -> Result<Principal, Status> {
        if peer.local {
            return Ok(Principal::Local);
        }
        let Some(certificate) = &peer.certificate else { return Ok(Principal::Anonymous) };
        // The handshake looked once; a connection may outlive the certificate it began with.
        if certificate.not_after < clock::now() {
            return Err(Status::unauthenticated("the certificate has run out"));
        }
        if certificate.id.trust_domain != self.trust_domain {
            return Err(Status::unauthenticated("the certificate is of another trust domain"));
        }
        match &certificate.id.identity {
            Identity::Node { network, node } => self.node(network, *node, certificate).await,
            Identity::Operator(operator) => self.operator(*operator, certificate).await,
            Identity::Replica(replica) => self.replica(*replica, certificate).await,
        }
    }

    /// A replica is one as long as its lease holds its record.
    async fn replica(
        &self,
        id: ReplicaId,
        certificate: &PeerCertificate,
    ) -> Result<Principal, Status> {
        let stored = self.store.get(&keys::replica(id)).await.map_err(store_failed)?;
        let stored = stored.ok_or_else(|| Status::permission_denied("no such replica runs"))?;
        let presence = Presence::read(&stored).map_err(|error| unreadable(error.to_string()))?;
        same_key(presence.fingerprint, certificate)?;
        Ok(Principal::Replica(id))
    }

    async fn node(
        &self,
        network: &NetworkName,
        node: NodeId,
        certificate: &PeerCertificate,
    ) -> Result<Principal, Status> {
        let stored = self.store.get(&keys::identity(node)).await.map_err(store_failed)?;
        // Not `removed`: a store that was set back to before this node's enrolment doesn't know it
        // either, and its agent must keep its mesh until somebody decides.
        let stored = stored.ok_or_else(unknown)?;
        let record = NodeRecord::decode(&stored.value)
            .map_err(|error| unreadable(format!("identity of {node}: {error}")))?;
        if record.network != *network {
            return Err(Status::permission_denied("the node is in another network"));
        }
        same_key(record.fingerprint, certificate)?;
        if record.deleted_at.is_some() {
            return Err(removed());
        }
        let fingerprint = record.fingerprint;
        Ok(Principal::Node { network: record.network, node, fingerprint })
    }

    /// An operator's record; as this replica was last told of it where the store can't be asked. Who
    /// was revoked since can change nothing then: the store isn't there.
    async fn operator_record(&self, id: OperatorId) -> Result<Option<Bytes>, Status> {
        let key = keys::operator(id);
        let mut asked = self.store.get(&key);
        let answer = if self.live.is_stale() {
            timeout(PATIENCE, &mut asked).await.unwrap_or_else(|_| Err(silent()))
        } else {
            asked.await
        };
        match answer {
            Ok(stored) => Ok(stored.map(|stored| stored.value)),
            Err(StoreError::Unavailable(_)) if self.live.is_ready() => {
                Ok(self.live.operators().get(id))
            }
            Err(error) => Err(store_failed(error)),
        }
    }

    async fn operator(
        &self,
        id: OperatorId,
        certificate: &PeerCertificate,
    ) -> Result<Principal, Status> {
        let record = self.operator_record(id).await?;
        let record = record.ok_or_else(|| Status::permission_denied("no such operator"))?;
        let broken = |what: String| unreadable(format!("operator {id}: {what}"));
        let record = record::Operator::decode(record).map_err(|error| broken(error.to_string()))?;
        let fingerprint = Fingerprint::try_from(record.fingerprint.as_ref())
            .map_err(|error| broken(error.to_string()))?;
        same_key(fingerprint, certificate)?;
        if record.revoked {
            return Err(Status::permission_denied("this operator was revoked"));
        }
        if clock::from_unix_millis(record.expires_at_millis) < clock::now() {
            return Err(Status::permission_denied("this operator's time has run out"));
        }
        let role = Role::of(record.role()).ok_or_else(|| broken("unknown role".into()))?;
        let name = record.name.parse().map_err(|error| broken(format!("{error}")))?;
        Ok(Principal::Operator { id, name, role })
    }
}

fn silent() -> StoreError {
    StoreError::Unavailable("it doesn't answer".to_owned())
}

fn same_key(fingerprint: Fingerprint, certificate: &PeerCertificate) -> Result<(), Status> {
    if fingerprint == certificate.fingerprint {
        Ok(())
    } else {
        Err(Status::permission_denied("the certificate's key is not the one on record"))
    }
}

fn unreadable(what: String) -> Status {
    store_failed(StoreError::Corrupt(what))
}
