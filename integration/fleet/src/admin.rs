//! The operator of a run: makes the network, its policies and tokens, watches what changes, asks
//! how far it has come, and leaves nothing behind.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use tokio::{sync::mpsc, task::JoinHandle};
use tonic::{Code, Status, transport::Channel};
use wattle_certs::{KeyPair, TrustDomain, certificates_from_pem, client_config};
use wattle_proto::admin::{
    self as proto, ApplyRequest, CreateJoinTokenRequest, CreateNetworkRequest,
    DeleteNetworkRequest, DeleteNodeRequest, GetStatusRequest, GetStatusResponse, ListNodesRequest,
    Mode, NodeRef, RevokeJoinTokenRequest, WaitAppliedRequest, WaitAppliedResponse, WatchRequest,
    WatchResponse, admin_service_client::AdminServiceClient, resource, resource_change::Resource,
};
use wattle_runtime::{credential::OperatorCredential, dial};

use crate::worker::now;

const PATIENCE: Duration = Duration::from_secs(10);
const MAX_ANSWER: usize = 64 << 20;
/// What may wait between the watch and its reader; beyond it the control plane waits.
const WATCHED: usize = 4096;
/// Policies of one transaction, which has at most 128 operations.
const POLICIES: usize = 100;
/// The same label on every token of a group.
pub(crate) const GROUP: &str = "group";

/// An operator's connection and the network of this run.
#[derive(Debug, Clone)]
pub(crate) struct Admin {
    client: AdminServiceClient<Channel>,
    pub(crate) network: String,
}

/// A change that a node made.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) revision: u64,
    /// When the store's commit returned, where the control plane says it.
    pub(crate) committed_at: Option<u64>,
    /// Endpoints of the nodes in it.
    pub(crate) endpoints: Vec<Bytes>,
}

/// A watch of the run's network. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Watcher {
    seen: mpsc::Receiver<Result<Seen, Status>>,
    task: JoinHandle<()>,
}

impl Admin {
    /// Connects with a credential.
    pub(crate) async fn connect(credential: &OperatorCredential, network: String) -> Result<Self> {
        let roots = certificates_from_pem(&credential.ca_certificates.concat())?;
        let chain = certificates_from_pem(&credential.certificate)?;
        let key = KeyPair::from_pem(credential.private_key.expose())?;
        let trust_domain: TrustDomain = credential.trust_domain.parse()?;
        let tls = Arc::new(client_config(&roots, Some((chain, &key)), Some(&trust_domain))?);
        let dialed = dial::channel(&credential.control_planes, tls, PATIENCE).await?;
        let client = AdminServiceClient::new(dialed.channel).max_decoding_message_size(MAX_ANSWER);
        Ok(Self { client, network })
    }

    /// Makes the network.
    pub(crate) async fn create_network(&mut self, mode: Mode) -> Result<()> {
        let request = CreateNetworkRequest {
            request_id: request_id(),
            name: self.network.clone(),
            ipv4_range: "10.64.0.0/12".into(),
            ipv6_range: "fd57:a77e:f1ee:7::/64".into(),
            mode: mode.into(),
            ..CreateNetworkRequest::default()
        };
        self.client.create_network(request).await.map_err(failed("making a network"))?;
        Ok(())
    }

    /// A token for any number of machines of a group.
    pub(crate) async fn token(&mut self, group: usize) -> Result<String> {
        let request = CreateJoinTokenRequest {
            request_id: request_id(),
            network: self.network.clone(),
            labels: [(GROUP.into(), group.to_string())].into(),
            max_uses: Some(0),
            ..CreateJoinTokenRequest::default()
        };
        let answer = self.client.create_join_token(request).await;
        Ok(answer.map_err(failed("making a join token"))?.into_inner().token)
    }

    /// Makes policies, or changes them: name, from, to. As many calls as transactions allow.
    pub(crate) async fn put_policies(
        &mut self,
        policies: &[(String, String, String)],
    ) -> Result<u64> {
        let mut revision = 0;
        for some in policies.chunks(POLICIES) {
            let resource = |(name, from, to): &(String, String, String)| {
                self.policy(name.clone(), from.clone(), to.clone())
            };
            revision = self.apply(some.iter().map(resource).collect()).await?;
        }
        Ok(revision)
    }

    /// Takes a policy away.
    pub(crate) async fn delete_policy(&mut self, name: &str) -> Result<u64> {
        let policy = self.policy(name.to_owned(), String::new(), String::new());
        self.apply(vec![proto::Resource { delete: true, ..policy }]).await
    }

    fn policy(&self, name: String, from: String, to: String) -> proto::Resource {
        let policy = proto::PolicySpec { network: self.network.clone(), name, from, to };
        let kind = Some(resource::Kind::Policy(policy));
        proto::Resource { kind, ..proto::Resource::default() }
    }

    async fn apply(&mut self, resources: Vec<proto::Resource>) -> Result<u64> {
        let request =
            ApplyRequest { request_id: request_id(), resources, ..ApplyRequest::default() };
        let answer = self.client.apply(request).await.map_err(failed("applying policies"))?;
        Ok(answer.into_inner().revision)
    }

    /// How the control plane is.
    pub(crate) async fn status(&mut self) -> Result<GetStatusResponse> {
        let answer = self.client.get_status(GetStatusRequest {}).await;
        Ok(answer.map_err(failed("asking for the status"))?.into_inner())
    }

    /// How many full sets it has sent.
    pub(crate) async fn full_sets(&mut self) -> Result<u64> {
        Ok(self.status().await?.full_sets.values().sum())
    }

    /// Waits until all agents that a revision concerns have acked it, or time is over.
    pub(crate) async fn wait_applied(
        &mut self,
        revision: u64,
        limit: Duration,
    ) -> Result<WaitAppliedResponse> {
        let timeout = Some(prost_types::Duration {
            seconds: i64::try_from(limit.as_secs())?,
            nanos: i32::try_from(limit.subsec_nanos())?,
        });
        let answer = self.client.wait_applied(WaitAppliedRequest { revision, timeout }).await;
        Ok(answer.map_err(failed("waiting for a revision"))?.into_inner())
    }

    /// Watches the network from now on.
    pub(crate) async fn watch(&mut self) -> Result<Watcher> {
        let request = WatchRequest { after_revision: None, network: self.network.clone() };
        let stream = self.client.watch(request).await.map_err(failed("watching"))?;
        let mut stream = stream.into_inner();
        // Says where the watch begins: from here on nothing is missed.
        stream.message().await.map_err(failed("watching"))?.context("the watch ended")?;
        let (send, seen) = mpsc::channel(WATCHED);
        let task = tokio::spawn(async move {
            while let Some(message) = stream.message().await.transpose() {
                if send.send(message.map(Seen::from)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Watcher { seen, task })
    }

    /// Deletes the network with all that is in it, a node at a time.
    pub(crate) async fn clean_up(&mut self, progress: &dyn Fn(usize)) -> Result<()> {
        self.revoke_tokens().await?;
        self.delete_policies().await?;
        loop {
            let request = ListNodesRequest {
                network: self.network.clone(),
                page_size: 1000,
                ..ListNodesRequest::default()
            };
            let nodes = self.client.list_nodes(request).await.map_err(failed("listing nodes"))?;
            let nodes = nodes.into_inner().nodes;
            if nodes.is_empty() {
                break;
            }
            for some in nodes.chunks(64) {
                let mut calls = tokio::task::JoinSet::new();
                for node in some {
                    let (mut client, node) = (
                        self.client.clone(),
                        NodeRef { network: self.network.clone(), node: hex(&node.id) },
                    );
                    let request = DeleteNodeRequest { request_id: request_id(), node: Some(node) };
                    calls.spawn(async move { client.delete_node(request).await });
                }
                while let Some(call) = calls.join_next().await {
                    call?.map_err(failed("deleting a node"))?;
                }
                progress(some.len());
            }
        }
        let request = DeleteNetworkRequest { request_id: request_id(), name: self.network.clone() };
        self.client.delete_network(request).await.map_err(failed("deleting the network"))?;
        Ok(())
    }

    /// One transaction with the network's own end would not hold them all.
    async fn delete_policies(&mut self) -> Result<()> {
        loop {
            let request = proto::ListPoliciesRequest {
                network: self.network.clone(),
                page_size: u32::try_from(POLICIES)?,
                page_token: String::new(),
            };
            let answer = self.client.list_policies(request).await;
            let policies = answer.map_err(failed("listing policies"))?.into_inner().policies;
            if policies.is_empty() {
                return Ok(());
            }
            let gone = |policy: proto::Policy| {
                let policy = self.policy(policy.name, String::new(), String::new());
                proto::Resource { delete: true, ..policy }
            };
            self.apply(policies.into_iter().map(gone).collect()).await?;
        }
    }

    async fn revoke_tokens(&mut self) -> Result<()> {
        let mut page_token = String::new();
        loop {
            let request = proto::ListJoinTokensRequest {
                network: self.network.clone(),
                page_size: 1000,
                page_token,
            };
            let answer = self.client.list_join_tokens(request).await;
            let answer = answer.map_err(failed("listing join tokens"))?.into_inner();
            for token in answer.join_tokens.iter().filter(|token| !token.revoked) {
                let request =
                    RevokeJoinTokenRequest { request_id: request_id(), id: token.id.clone() };
                let revoked = self.client.revoke_join_token(request).await;
                revoked.map_err(failed("revoking a join token"))?;
            }
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return Ok(());
            }
        }
    }
}

impl Watcher {
    /// The next change.
    pub(crate) async fn next(&mut self) -> Result<Seen> {
        let seen = self.seen.recv().await.context("the watch ended")?;
        seen.map_err(failed("watching"))
    }

    /// The change by which a node came to be at this endpoint.
    pub(crate) async fn moved_to(&mut self, endpoint: &Bytes) -> Result<Seen> {
        loop {
            let seen = self.next().await?;
            if seen.endpoints.contains(endpoint) {
                return Ok(seen);
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl From<WatchResponse> for Seen {
    fn from(response: WatchResponse) -> Self {
        let at = response.committed_at.and_then(|at| {
            Some(u64::try_from(at.seconds).ok()? * 1_000_000_000 + u64::try_from(at.nanos).ok()?)
        });
        let endpoints = response.changes.into_iter().flat_map(|change| match change.resource {
            Some(Resource::Node(node)) => node.endpoints,
            _ => Vec::new(),
        });
        Self {
            revision: response.revision,
            committed_at: at.filter(|at| *at <= now()),
            endpoints: endpoints.collect(),
        }
    }
}

fn request_id() -> Bytes {
    Bytes::copy_from_slice(&rand::random::<[u8; 16]>())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn failed(what: &'static str) -> impl FnOnce(Status) -> anyhow::Error {
    move |status| match status.code() {
        Code::PermissionDenied => {
            anyhow!(
                "{what}: {}: a fleet takes an operator's or an admin's credential",
                status.message()
            )
        }
        code => anyhow!("{what}: {}: {}", code.description(), status.message()),
    }
}
