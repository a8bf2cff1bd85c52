//! The control plane as a joined node sees it: who it must be, how to call it, and what its
//! refusals mean.

use std::{sync::Arc, time::Duration};

use rustls::ClientConfig;
use tonic::{Code, Status, transport::Channel};
use wattle_proto::{enroll::enrollment_service_client::EnrollmentServiceClient, reason};
use wattle_runtime::dial::{self, DialError};

use crate::state::identity::Identity;

/// How long each address gets to answer.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);
/// How long a call may take: it may wait for the store.
pub(crate) const CALL: Duration = Duration::from_secs(20);

/// A call that wasn't answered as hoped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// TLS can't be set up with what the identity holds.
    #[error("the identity's certificates: {0}")]
    Tls(#[from] rustls::Error),
    /// Nobody answered.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The node was deleted.
    #[error("this node was deleted")]
    Removed,
    /// Refused.
    #[error("{}", describe(.0))]
    Refused(Box<Status>),
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        if is_removed(&status) { Self::Removed } else { Self::Refused(Box::new(status)) }
    }
}

/// TLS as this node: its certificate, and a replica of its trust domain at the other end.
pub(crate) fn tls(identity: &Identity) -> Result<ClientConfig, rustls::Error> {
    let chain = vec![identity.certificate.clone()];
    let credential = Some((chain, identity.tls_key.as_ref()));
    wattle_certs::client_config(&identity.ca_certificates, credential, Some(&identity.trust_domain))
}

/// TLS without a certificate of one's own, to ask for a new one.
pub(crate) fn anonymous_tls(identity: &Identity) -> Result<ClientConfig, rustls::Error> {
    wattle_certs::client_config(&identity.ca_certificates, None, Some(&identity.trust_domain))
}

/// Reaches the enrolment service of any replica.
pub(crate) async fn enrollment(
    identity: &Identity,
    tls: ClientConfig,
) -> Result<EnrollmentServiceClient<Channel>, DialError> {
    let addresses = &identity.settings.control_planes;
    let dialed = dial::channel(addresses, Arc::new(tls), CONNECT).await?;
    Ok(EnrollmentServiceClient::new(dialed.channel))
}

/// A request that isn't waited for without end.
pub(crate) fn request<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL);
    request
}

/// Whether a refusal says that the node was deleted.
pub(crate) fn is_removed(status: &Status) -> bool {
    has_reason(status, reason::REMOVED)
}

/// Whether a refusal says that nobody knows the node.
pub(crate) fn is_unknown(status: &Status) -> bool {
    has_reason(status, reason::UNKNOWN)
}

/// Whether a call failed without an answer: the connection was made and then lost.
pub(crate) fn is_unanswered(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

fn has_reason(status: &Status, reason: &str) -> bool {
    status.metadata().get(reason::KEY).is_some_and(|found| found == reason)
}

/// A refusal in words: the control plane's own where it has some.
pub(crate) fn describe(status: &Status) -> String {
    match (status.code(), status.message()) {
        (code, "") => format!("the control plane answered {code:?}"),
        (Code::Unknown | Code::Internal | Code::Unavailable, text) => {
            format!("the control plane: {text}")
        }
        (_, text) => text.to_owned(),
    }
}
