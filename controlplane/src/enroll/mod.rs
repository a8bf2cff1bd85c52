//! How a machine becomes a node and stays one: the enrolment service. It reads requests, lets
//! [`crate::nodes`] decide and write, and signs certificates for what is written.
//!
//! Enroll and Recover are open to anyone: a token, or the key of a live node, is all they go by.

mod answer;
mod limit;
mod request;

use std::{sync::Arc, time::Instant};

use tonic::{Request, Response, Status};
use wattle_certs::{CsrKey, Identity, SpiffeId};
use wattle_model::{Fingerprint, NetworkName, NodeId};
use wattle_proto::enroll::{
    self as proto, Credential, EnrollResponse, LeaveResponse, RecoverResponse, RenewResponse,
    enrollment_service_server::EnrollmentService,
};
use wattle_runtime::clock;

use self::limit::RecoverLimit;
use crate::{
    access::{PeerInfo, Principal},
    nodes::{KeyHolder, Nodes, removed, store_failed},
    replica::Replica,
};

/// The service.
pub struct Enrollment {
    replica: Arc<Replica>,
    nodes: Nodes,
    recovers: RecoverLimit,
}

type Answer<T> = Result<Response<T>, Status>;

impl Enrollment {
    /// The service of one replica.
    pub fn new(replica: Arc<Replica>, nodes: Nodes) -> Self {
        Self { replica, nodes, recovers: RecoverLimit::new(Instant::now()) }
    }

    /// A node's certificate. The record says which root it is of before the node has it; `recorded`
    /// is what it said when it was read.
    async fn credential(
        &self,
        network: &NetworkName,
        node: NodeId,
        key: &CsrKey,
        recorded: Option<Fingerprint>,
    ) -> Result<Credential, Status> {
        let (replica, trust) = (&self.replica, self.replica.authority.now());
        let root = trust.ca.pin();
        if recorded != Some(root) {
            self.nodes.set_root(node, root, trust.roots.of_record(&[])).await?;
        }
        let identity = Identity::Node { network: network.clone(), node };
        let id = SpiffeId { trust_domain: replica.trust_domain.clone(), identity };
        let lifetime = replica.certificate_lifetime;
        let certificate = trust.ca.issue(&id, key, lifetime, clock::now()).map_err(|error| {
            tracing::error!(%error, %node, "no certificate");
            Status::internal("the control plane can't sign certificates: see its log")
        })?;
        Ok(Credential {
            certificate: certificate.to_vec().into(),
            ca_certificates: trust.told.clone(),
            trust_domain: replica.trust_domain.to_string(),
        })
    }
}

#[tonic::async_trait]
impl EnrollmentService for Enrollment {
    async fn enroll(&self, request: Request<proto::EnrollRequest>) -> Answer<EnrollResponse> {
        let peer = request.extensions().get::<PeerInfo>().map(|peer| peer.address);
        let request = request.into_inner();
        let root = self.replica.authority.now().ca.pin();
        let (key, wish) = request::enrolment(&request, peer, root).map_err(request::invalid)?;
        if request.validate_only {
            let validated = self.nodes.validate(wish).await?;
            let config = Some(answer::validated(&self.replica, &validated));
            return Ok(Response::new(EnrollResponse { config, ..EnrollResponse::default() }));
        }
        let enrolled = self.nodes.enroll(wish).await?;
        let (node, record) = (enrolled.node, &enrolled.record);
        tracing::info!(%node, network = %record.network, name = %record.name, "enrolled");
        Ok(Response::new(EnrollResponse {
            credential: Some(self.credential(&record.network, node, &key, record.root).await?),
            node_id: node.as_bytes().to_vec().into(),
            config: Some(answer::config(&self.replica, &enrolled)),
            revision: enrolled.revision.0,
        }))
    }

    async fn recover(&self, request: Request<proto::RecoverRequest>) -> Answer<RecoverResponse> {
        // Before anything that costs: whoever calls this may be anybody.
        self.recovers.admit(Instant::now())?;
        let key = request::csr(&request.get_ref().csr).map_err(request::invalid)?;
        let holder = self.nodes.by_fingerprint(key.fingerprint()).await.map_err(store_failed)?;
        let (node, record) = match holder {
            KeyHolder::Live(node, record) => (node, record),
            KeyHolder::Deleted => return Err(removed()),
            KeyHolder::Unknown => {
                return Err(Status::permission_denied("csr: no node has this key"));
            }
        };
        self.recovers.admit_key(key.fingerprint(), Instant::now())?;
        let credential = Some(self.credential(&record.network, node, &key, record.root).await?);
        tracing::info!(%node, network = %record.network, name = %record.name, "recovered");
        Ok(Response::new(RecoverResponse { credential }))
    }

    async fn renew(&self, request: Request<proto::RenewRequest>) -> Answer<RenewResponse> {
        let Principal::Node { network, node, fingerprint } =
            Principal::of(request.extensions())?.clone()
        else {
            return Err(Status::permission_denied("only a node may renew its certificate"));
        };
        let key = request::csr(&request.get_ref().csr).map_err(request::invalid)?;
        if key.fingerprint() != fingerprint {
            return Err(Status::permission_denied("csr: its key is not the node's"));
        }
        let credential = Some(self.credential(&network, node, &key, None).await?);
        tracing::info!(%node, %network, "renewed");
        Ok(Response::new(RenewResponse { credential }))
    }

    async fn leave(&self, request: Request<proto::LeaveRequest>) -> Answer<LeaveResponse> {
        let Principal::Node { network, node, .. } = Principal::of(request.extensions())? else {
            return Err(Status::permission_denied("only a node may leave"));
        };
        let revision = self.nodes.delete(*node).await?.0;
        tracing::info!(%node, %network, "left");
        Ok(Response::new(LeaveResponse { revision }))
    }
}
