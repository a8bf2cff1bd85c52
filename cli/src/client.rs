//! The connection: mutual TLS with the operator's credential to the first address that answers.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use tonic::{Code, transport::Channel};
use wattle_certs::{KeyPair, TrustDomain, certificates_from_pem, client_config, peer_identity};
use wattle_proto::admin::admin_service_client::AdminServiceClient;
use wattle_runtime::dial::{self, DialError, Dialed};

use crate::{
    context::{self, Context},
    failure::Failure,
};

/// How long one address may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Answers hold up to 1,000 nodes with all their labels and endpoints.
const MAX_ANSWER: usize = 64 << 20;

/// The control plane, connected.
pub(crate) struct Client {
    /// The service itself.
    pub(crate) admin: AdminServiceClient<Channel>,
    /// The address that answered.
    pub(crate) address: String,
    /// The credential that it was reached with, and its file.
    pub(crate) context: Context,
}

/// Finds the credential and connects with it.
pub(crate) async fn connect(context: Option<std::path::PathBuf>) -> Result<Client, Failure> {
    let context = context::load(context)?;
    let tls = tls(&context)?;
    let addresses = &context.credential.control_planes;
    let Dialed { channel, address, .. } = dial::channel(addresses, Arc::new(tls), PATIENCE)
        .await
        .map_err(|error| unreachable(&context, &error))?;
    let admin = AdminServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER);
    Ok(Client { admin, address, context })
}

/// A new request id: if the answer is lost, the same request can be repeated.
pub(crate) fn request_id() -> Bytes {
    Bytes::copy_from_slice(&rand::random::<[u8; 16]>())
}

/// Whether a call failed because the connection did, or the replica is going away.
pub(crate) fn is_lost(status: &tonic::Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled)
}

fn tls(context: &Context) -> Result<rustls::ClientConfig, Failure> {
    let credential = &context.credential;
    let bad = |what: &str, error: &dyn std::fmt::Display| {
        let path = context.path.display();
        Failure::Failed(format!("{path}: {what}: {error}: take a fresh copy of the file"))
    };
    let roots = certificates_from_pem(&credential.ca_certificates.concat())
        .map_err(|error| bad("ca_certificates", &error))?;
    let chain = certificates_from_pem(&credential.certificate)
        .map_err(|error| bad("certificate", &error))?;
    if let Some(over) = chain.first().and_then(ran_out) {
        let path = context.path.display();
        return Err(Failure::Failed(format!(
            "{path}: this credential ran out on {over}\nAsk an administrator for a new one \
             (`wattle operator create NAME`), or on the control plane's machine, as root: \
             `wattle-controlplane admin create NAME`."
        )));
    }
    let key = KeyPair::from_pem(credential.private_key.expose())
        .map_err(|error| bad("private_key", &error))?;
    let trust_domain: TrustDomain =
        credential.trust_domain.parse().map_err(|error| bad("trust_domain", &error))?;
    client_config(&roots, Some((chain, &key)), Some(&trust_domain))
        .map_err(|error| bad("certificate", &error))
}

/// When a certificate's time was over, where it is. The control plane would say no more than that
/// the connection is lost.
fn ran_out(certificate: &CertificateDer<'_>) -> Option<humantime::Rfc3339Timestamp> {
    let until = peer_identity(certificate).ok()?.not_after;
    (until < SystemTime::now()).then(|| humantime::format_rfc3339_seconds(until))
}

fn unreachable(context: &Context, error: &DialError) -> Failure {
    let path = context.path.display();
    let advice = match error.is_untrusted() {
        true => format!("{path} belongs to another control plane than the one that answered."),
        false => format!(
            "Is it running, and does a firewall let this machine reach it? The addresses are from \
             {path}: correct control_planes there if they have changed."
        ),
    };
    Failure::Failed(format!("{error}\n{advice}"))
}
