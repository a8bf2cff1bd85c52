//! Enrolment that grants everything it is asked, writes down what it was asked, and fails when told
//! to.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tonic::{Request, Response, Status};
use wattle_certs::CsrKey;
use wattle_model::NodeId;
use wattle_proto::{
    enroll::{
        EnrollRequest, EnrollResponse, LeaveRequest, LeaveResponse, RecoverRequest,
        RecoverResponse, RenewRequest, RenewResponse, enrollment_service_server::EnrollmentService,
    },
    sync::{Config, Prefix},
};

use super::{Authority, NODE};

const LIFE: Duration = Duration::from_secs(3600);

/// What an agent asked for.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    Enroll(Box<EnrollRequest>),
    Recover,
    Renew,
    Leave,
}

/// A handle on the service.
#[derive(Debug, Clone)]
pub(crate) struct Enrollment(Arc<State>);

#[derive(Debug)]
struct State {
    authority: Arc<Authority>,
    address: String,
    asked: Mutex<Vec<Asked>>,
    answers: Mutex<VecDeque<Option<Status>>>,
    node: Mutex<NodeId>,
}

impl Enrollment {
    pub(super) fn new(authority: Arc<Authority>, address: &str) -> Self {
        Self(Arc::new(State {
            authority,
            address: address.to_owned(),
            asked: Mutex::default(),
            answers: Mutex::default(),
            node: Mutex::new(NODE),
        }))
    }

    /// What was asked for since the last call.
    pub(crate) fn take_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.0.asked.lock())
    }

    /// For each of the next requests: how it fails, or `None` for what it asks for.
    pub(crate) fn answer(&self, answers: impl IntoIterator<Item = Option<Status>>) {
        self.0.answers.lock().extend(answers);
    }

    /// Makes the next certificates another node's.
    pub(crate) fn confuse(&self) {
        *self.0.node.lock() = NodeId::new([0xbb; 16]);
    }

    fn write_down(&self, asked: Asked) -> Result<(), Status> {
        self.0.asked.lock().push(asked);
        self.0.answers.lock().pop_front().flatten().map_or(Ok(()), Err)
    }

    fn credential(&self, csr: &[u8]) -> wattle_proto::enroll::Credential {
        let key = CsrKey::from_der(csr).unwrap();
        let node = *self.0.node.lock();
        self.0.authority.credential(node, &key, SystemTime::now(), LIFE)
    }

    fn config(&self, request: &EnrollRequest) -> Config {
        let name = if request.name.is_empty() { "made-up" } else { &request.name };
        let range = Prefix { address: Bytes::from_static(&[10, 90, 0, 0]), length: 16 };
        Config {
            network: "default".into(),
            node_name: name.into(),
            ipv4: Bytes::from_static(&[10, 90, 0, 1]),
            ipv4_range: Some(range),
            control_planes: vec![self.0.address.clone()],
            ..Default::default()
        }
    }
}

#[tonic::async_trait]
impl EnrollmentService for Enrollment {
    async fn enroll(
        &self,
        request: Request<EnrollRequest>,
    ) -> Result<Response<EnrollResponse>, Status> {
        let request = request.into_inner();
        self.write_down(Asked::Enroll(Box::new(request.clone())))?;
        let config = Some(self.config(&request));
        Ok(Response::new(if request.validate_only {
            EnrollResponse { config, ..Default::default() }
        } else {
            EnrollResponse {
                credential: Some(self.credential(&request.csr)),
                node_id: Bytes::copy_from_slice(NODE.as_bytes()),
                config,
                revision: 1,
            }
        }))
    }

    async fn recover(
        &self,
        request: Request<RecoverRequest>,
    ) -> Result<Response<RecoverResponse>, Status> {
        self.write_down(Asked::Recover)?;
        let credential = Some(self.credential(&request.into_inner().csr));
        Ok(Response::new(RecoverResponse { credential }))
    }

    async fn renew(
        &self,
        request: Request<RenewRequest>,
    ) -> Result<Response<RenewResponse>, Status> {
        self.write_down(Asked::Renew)?;
        let credential = Some(self.credential(&request.into_inner().csr));
        Ok(Response::new(RenewResponse { credential }))
    }

    async fn leave(&self, _: Request<LeaveRequest>) -> Result<Response<LeaveResponse>, Status> {
        self.write_down(Asked::Leave)?;
        Ok(Response::new(LeaveResponse { revision: 2 }))
    }
}
