//! Operators and joining machines that the harness plays itself: each asks one replica, and another
//! one where that doesn't answer, with the same request; what was asked and answered is recorded.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status, transport::Channel};
use wattle_certs::{KeyPair, TrustDomain, certificates_from_pem, client_config};
use wattle_checker::{Outcome, What};
use wattle_model::{JoinToken, NodeId};
use wattle_proto::{
    admin::{
        self, ApplyRequest, CreateJoinTokenRequest, DeleteNodeRequest, GetNodeRequest,
        LabelNodeRequest, NodeRef, PolicySpec, Resource, UpdateNetworkRequest,
        admin_service_client::AdminServiceClient, applied::Action, resource::Kind,
    },
    enroll::{EnrollRequest, EnrollResponse, enrollment_service_client::EnrollmentServiceClient},
};
use wattle_runtime::{credential::OperatorCredential, dial};

use super::recorder::Recorder;

pub(crate) const NETWORK: &str = "default";
/// A replica that answers at all accepts a connection within this.
const CONNECT: Duration = Duration::from_secs(2);
/// One call of one replica.
const CALL: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Operators with one credential. Clones are one.
#[derive(Clone)]
pub struct Operators {
    tls: Arc<ClientConfig>,
    addresses: Vec<String>,
    channels: Arc<Vec<Mutex<Option<Channel>>>>,
    recorder: Recorder,
    /// For how long something is asked again.
    pub(crate) patience: Duration,
}

/// How asking ended.
enum Ended<T> {
    Answer(T),
    Refused(Status),
    Unknown(String),
}

impl Operators {
    /// With the credential in a file, at these addresses.
    pub fn new(credential: &Path, addresses: Vec<String>, recorder: Recorder) -> Result<Self> {
        let credential = OperatorCredential::load(credential)?;
        let roots = certificates_from_pem(&credential.ca_certificates.concat())?;
        let chain = certificates_from_pem(&credential.certificate)?;
        let key = KeyPair::from_pem(credential.private_key.expose())?;
        let trust_domain: TrustDomain = credential.trust_domain.parse()?;
        let tls = Arc::new(client_config(&roots, Some((chain, &key)), Some(&trust_domain))?);
        let channels = Arc::new(addresses.iter().map(|_| Mutex::default()).collect());
        Ok(Self { tls, addresses, channels, recorder, patience: Duration::from_secs(20) })
    }

    /// The same, but that these replicas alone are asked.
    #[must_use]
    pub fn asking(&self, replicas: &[usize]) -> Self {
        let addresses: Vec<_> =
            replicas.iter().map(|replica| self.addresses[*replica].clone()).collect();
        let channels = Arc::new(addresses.iter().map(|_| Mutex::default()).collect());
        Self { addresses, channels, ..self.clone() }
    }

    /// A join token.
    pub async fn token(&self, labels: &[(&str, &str)], uses: u32) -> Result<String> {
        let labels: std::collections::BTreeMap<String, String> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let text = format!("{labels:?}");
        let begun = self.recorder.now();
        let deadline = Instant::now() + self.patience;
        // A repeated request doesn't show the token again: each try is one of its own.
        loop {
            let id = request_id();
            let ask = CreateJoinTokenRequest {
                request_id: id.clone(),
                network: NETWORK.into(),
                labels: labels.clone(),
                max_uses: Some(uses),
                ..CreateJoinTokenRequest::default()
            };
            let ended = self.once(|mut client| {
                let ask = ask.clone();
                async move { Ok(client.create_join_token(ask).await?.into_inner()) }
            });
            match ended.await {
                Ended::Answer(answer) => {
                    let what = What::Token { label: text, uses };
                    self.recorder.call(id, begun, what, Outcome::Done(answer.revision));
                    return Ok(answer.token);
                }
                Ended::Refused(status) => return Err(anyhow!("a join token: {status}")),
                Ended::Unknown(why) if Instant::now() > deadline => {
                    return Err(anyhow!("a join token: {why}"));
                }
                Ended::Unknown(_) => sleep(PAUSE).await,
            }
        }
    }

    /// Sets a label of a node, or removes it.
    pub async fn label(&self, node: NodeId, key: &str, value: Option<&str>) -> Outcome {
        let set = value.map(|value| (key.to_owned(), value.to_owned())).into_iter().collect();
        let remove = if value.is_none() { vec![key.to_owned()] } else { vec![] };
        let request_id = request_id();
        let ask =
            LabelNodeRequest { request_id: request_id.clone(), node: by_id(node), set, remove };
        let (key, value) = (key.to_owned(), value.map(str::to_owned));
        self.ask(request_id, What::Label { node, key, value }, move |mut client| {
            let ask = ask.clone();
            async move { Ok(client.label_node(ask).await?.into_inner().revision) }
        })
        .await
    }

    /// Deletes a node.
    pub async fn delete(&self, node: NodeId) -> Outcome {
        let request_id = request_id();
        let ask = DeleteNodeRequest { request_id: request_id.clone(), node: by_id(node) };
        self.ask(request_id, What::Delete(node), move |mut client| {
            let ask = ask.clone();
            async move { Ok(client.delete_node(ask).await?.into_inner().revision) }
        })
        .await
    }

    /// Makes a policy say this, or deletes it.
    pub async fn policy(&self, name: &str, sides: Option<(&str, &str)>) -> Outcome {
        let (from, to) = sides.unwrap_or_default();
        let spec = PolicySpec {
            network: NETWORK.into(),
            name: name.into(),
            from: from.into(),
            to: to.into(),
        };
        let kind = Some(Kind::Policy(spec));
        let resource = Resource { kind, revision: None, delete: sides.is_none() };
        let request_id = request_id();
        let ask = ApplyRequest {
            request_id: request_id.clone(),
            resources: vec![resource],
            ..ApplyRequest::default()
        };
        let sides = sides.map(|(from, to)| (from.to_owned(), to.to_owned()));
        self.ask(request_id, What::Policy { name: name.into(), sides }, move |mut client| {
            let ask = ask.clone();
            async move {
                let answer = client.apply(ask).await?.into_inner();
                let nothing = |one: &admin::Applied| one.action() == Action::Unchanged;
                // Of what was so already, it tells the revision at which it looked.
                Ok(if answer.applied.iter().all(nothing) { 0 } else { answer.revision })
            }
        })
        .await
    }

    /// What a node's label is.
    pub async fn read_label(&self, node: NodeId, key: &str) -> Outcome {
        let begun = self.recorder.now();
        let ask = GetNodeRequest { node: by_id(node) };
        let ended = self.again(move |mut client| {
            let ask = ask.clone();
            async move { Ok(client.get_node(ask).await?.into_inner()) }
        });
        let outcome = match ended.await {
            Ended::Answer(answer) => {
                let labels = answer.node.unwrap_or_default().labels;
                Outcome::Read(labels.get(key).cloned())
            }
            Ended::Refused(status) => Outcome::Refused(status.to_string()),
            Ended::Unknown(why) => Outcome::Unknown(why),
        };
        let what = What::ReadLabel { node, key: key.to_owned() };
        self.recorder.call(Bytes::new(), begun, what, outcome.clone());
        outcome
    }

    /// Closes the network: nodes see what policies say.
    pub async fn close_network(&self) -> Result<()> {
        let ask = UpdateNetworkRequest {
            request_id: request_id(),
            name: NETWORK.into(),
            mode: admin::Mode::Closed.into(),
            ..UpdateNetworkRequest::default()
        };
        let ended = self.again(move |mut client| {
            let ask = ask.clone();
            async move { client.update_network(ask).await.map(drop) }
        });
        match ended.await {
            Ended::Answer(()) => Ok(()),
            Ended::Refused(status) => Err(anyhow!("closing the network: {status}")),
            Ended::Unknown(why) => Err(anyhow!("closing the network: {why}")),
        }
    }

    /// Makes a machine a node; `keys` are its own, so that it is the same however often it asks.
    pub async fn enrol(
        &self,
        token: &JoinToken,
        keys: &KeyPair,
        wireguard: [u8; 32],
        name: &str,
    ) -> (Outcome, Option<EnrollResponse>) {
        let begun = self.recorder.now();
        let ask = EnrollRequest {
            token_id: Bytes::copy_from_slice(token.id.as_bytes()),
            token_secret: Bytes::copy_from_slice(token.secret.expose_bytes()),
            csr: keys.csr().into(),
            wireguard_public_key: Bytes::copy_from_slice(&wireguard),
            name: name.into(),
            endpoints: Vec::new(),
            validate_only: false,
        };
        let (outcome, answer) = self.try_enrol(token, &ask).await;
        let what = What::Enrol { token: token.id };
        self.recorder.call(Bytes::new(), begun, what, outcome.clone());
        (outcome, answer)
    }

    async fn try_enrol(
        &self,
        token: &JoinToken,
        ask: &EnrollRequest,
    ) -> (Outcome, Option<EnrollResponse>) {
        let deadline = Instant::now() + self.patience;
        let mut unknown = None;
        let first = rand::random_range(0..self.addresses.len());
        for address in self.addresses.iter().cycle().skip(first) {
            match enrol_at(address, token, ask).await {
                Ok(answer) => {
                    let outcome = match NodeId::try_from(answer.node_id.as_ref()) {
                        Ok(node) => Outcome::Enrolled(node),
                        Err(error) => Outcome::Unknown(error.to_string()),
                    };
                    return (outcome, Some(answer));
                }
                Err(status) if is_definite(&status) => {
                    let why = status.to_string();
                    // What was tried before may have been done.
                    let first = unknown.is_none();
                    let outcome = if first { Outcome::Refused(why) } else { Outcome::Unknown(why) };
                    return (outcome, None);
                }
                Err(status) => unknown = Some(status.to_string()),
            }
            if Instant::now() > deadline {
                break;
            }
            sleep(PAUSE).await;
        }
        (Outcome::Unknown(unknown.unwrap_or_default()), None)
    }

    /// Asks until it is answered, and records it.
    async fn ask<F: Future<Output = Result<u64, Status>>>(
        &self,
        request_id: Bytes,
        what: What,
        call: impl Fn(AdminServiceClient<Channel>) -> F,
    ) -> Outcome {
        let begun = self.recorder.now();
        let outcome = match self.again(call).await {
            Ended::Answer(revision) => Outcome::Done(revision),
            Ended::Refused(status) => Outcome::Refused(status.to_string()),
            Ended::Unknown(why) => Outcome::Unknown(why),
        };
        self.recorder.call(request_id, begun, what, outcome.clone());
        outcome
    }

    /// Asks one replica after the other until one answers. What nobody has answered may have
    /// happened, so a refusal that comes after such a try refuses nothing.
    async fn again<T, F: Future<Output = Result<T, Status>>>(
        &self,
        call: impl Fn(AdminServiceClient<Channel>) -> F,
    ) -> Ended<T> {
        let deadline = Instant::now() + self.patience;
        let mut unknown = None;
        loop {
            match self.once(&call).await {
                Ended::Refused(status) if unknown.is_some() => {
                    return Ended::Unknown(status.to_string());
                }
                Ended::Unknown(why) if Instant::now() > deadline => return Ended::Unknown(why),
                Ended::Unknown(why) => unknown = Some(why),
                ended => return ended,
            }
            sleep(PAUSE).await;
        }
    }

    /// Asks one replica, any.
    async fn once<T, F: Future<Output = Result<T, Status>>>(
        &self,
        call: impl Fn(AdminServiceClient<Channel>) -> F,
    ) -> Ended<T> {
        let place = rand::random_range(0..self.addresses.len());
        let Some(channel) = self.channel(place).await else {
            return Ended::Unknown(format!("{} can't be reached", self.addresses[place]));
        };
        let client = AdminServiceClient::new(channel).max_decoding_message_size(64 << 20);
        match timeout(CALL, call(client)).await {
            Ok(Ok(answer)) => Ended::Answer(answer),
            Ok(Err(status)) if is_definite(&status) => Ended::Refused(status),
            Ok(Err(status)) => {
                self.forget(place);
                Ended::Unknown(status.to_string())
            }
            Err(_) => {
                self.forget(place);
                Ended::Unknown(format!("no answer within {CALL:?}"))
            }
        }
    }

    async fn channel(&self, place: usize) -> Option<Channel> {
        if let Some(channel) = self.channels[place].lock().clone() {
            return Some(channel);
        }
        let address = [self.addresses[place].clone()];
        let dialed = dial::channel(&address, self.tls.clone(), CONNECT).await.ok()?;
        *self.channels[place].lock() = Some(dialed.channel.clone());
        Some(dialed.channel)
    }

    fn forget(&self, place: usize) {
        *self.channels[place].lock() = None;
    }
}

async fn enrol_at(
    address: &str,
    token: &JoinToken,
    ask: &EnrollRequest,
) -> Result<EnrollResponse, Status> {
    let unavailable = |why: String| Status::unavailable(why);
    let tls = wattle_certs::pinned_client_config(token.pin);
    let tls = Arc::new(tls.map_err(|error| unavailable(error.to_string()))?);
    let dialed = dial::channel(&[address.to_owned()], tls, CONNECT).await;
    let dialed = dialed.map_err(|error| unavailable(error.to_string()))?;
    let mut client = EnrollmentServiceClient::new(dialed.channel);
    let answer = timeout(CALL, client.enroll(ask.clone())).await;
    Ok(answer.map_err(|_| unavailable("no answer".into()))??.into_inner())
}

/// Whether the control plane has said no, rather than that it doesn't know.
fn is_definite(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::NotFound
            | Code::InvalidArgument
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::ResourceExhausted
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
    )
}

fn by_id(node: NodeId) -> Option<NodeRef> {
    Some(NodeRef { network: NETWORK.into(), node: node.to_string() })
}

fn request_id() -> Bytes {
    Bytes::copy_from_slice(&rand::random::<[u8; 16]>())
}
