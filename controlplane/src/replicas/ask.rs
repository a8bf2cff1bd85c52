//! Questions to all replicas at once: what their agents have, and what one of them says of its
//! tunnel. Who doesn't answer in time is named, and the answer goes without.

use std::time::Duration;

use futures::{
    FutureExt as _, TryStreamExt as _,
    future::{BoxFuture, join_all},
};
use tonic::Status;
use wattle_model::{NodeId, ReplicaId};
use wattle_proto::replica::{InspectRequest, ListSessionsRequest};

use super::{
    Presence, Replicas,
    caller::Client,
    convert,
    merge::{self, AllKnown},
};
use crate::stream::{Claim, SessionInfo, Tunnel};

/// Sessions of one replica that are read: more than it could ever serve.
const MAX_SESSIONS: usize = 1_000_000;
/// How long an agent may take to say how its tunnel is. Less than replicas wait for each other.
pub(super) const AGENT_PATIENCE: Duration = Duration::from_millis(1500);

/// A replica that runs and didn't answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silent {
    /// Which.
    pub id: ReplicaId,
    /// Where it was asked.
    pub address: String,
    /// Why not, as far as that is known.
    pub reason: String,
}

impl Silent {
    pub(super) fn new(other: &Presence, reason: String) -> Self {
        Self { id: other.id, address: other.replica_address.clone(), reason }
    }
}

/// A call to one replica, under way.
type Asked<T> = BoxFuture<'static, Result<T, Status>>;

impl Replicas {
    /// What is known of nodes' agents, wherever they are connected: of all nodes, or of these.
    pub async fn known(&self, nodes: Option<&[NodeId]>) -> (AllKnown, Vec<Silent>) {
        if nodes.is_some_and(<[NodeId]>::is_empty) {
            return (AllKnown::new(), Vec::new());
        }
        let ids = nodes.unwrap_or_default().iter().copied().map(convert::node_bytes);
        let node_ids: Vec<_> = ids.collect();
        let question = |client, other| {
            let replica_id = convert::id_bytes(other);
            let node_ids = node_ids.clone();
            sessions(client, ListSessionsRequest { replica_id, node_ids, claims_only: false })
                .boxed()
        };
        let (answers, silent) = self.ask_all(question).await;
        let mut all = AllKnown::new();
        merge::add(&mut all, self.own().id, self.sessions().list(nodes));
        for (replica, sessions) in answers {
            merge::add(&mut all, replica, sessions);
        }
        (all, silent)
    }

    /// What a node's agent says of its tunnel to a peer that it sees, wherever it is connected.
    pub async fn inspect(&self, node: NodeId, peer: NodeId) -> (Option<Tunnel>, Vec<Silent>) {
        let here = self.sessions().inspect(node, peer, AGENT_PATIENCE);
        let there = self.ask_all(|client, other| {
            let request = InspectRequest {
                replica_id: convert::id_bytes(other),
                node_id: convert::node_bytes(node),
                peer_id: convert::node_bytes(peer),
            };
            tunnel(client, request).boxed()
        });
        let (here, (there, silent)) = tokio::join!(here, there);
        (here.or_else(|| there.into_iter().find_map(|(_, tunnel)| tunnel)), silent)
    }

    /// The streams that another replica holds; none where it doesn't say.
    pub(super) async fn claims(&self, other: &Presence) -> Vec<(NodeId, Claim)> {
        let replica_id = convert::id_bytes(other.id);
        let request = ListSessionsRequest { replica_id, node_ids: Vec::new(), claims_only: true };
        let asked = self.0.caller.ask(other, |client| claims(client, request).boxed()).await;
        let asked =
            asked.inspect_err(|error| tracing::debug!(replica = %other.id, %error, "no claims"));
        asked.unwrap_or_default()
    }

    /// Asks every other replica at once.
    pub(super) async fn ask_all<T: Send + 'static>(
        &self,
        question: impl Fn(Client, ReplicaId) -> Asked<T> + Send + Sync,
    ) -> (Vec<(ReplicaId, T)>, Vec<Silent>) {
        let others = self.roster().others();
        let asked = others.iter().map(|other| {
            let (question, other) = (&question, &other.presence);
            self.0.caller.ask(other, |client| question(client, other.id))
        });
        let answers = join_all(asked.collect::<Vec<_>>()).await;
        let (mut heard, mut silent) = (Vec::new(), Vec::new());
        for (other, answer) in others.iter().zip(answers) {
            match answer {
                Ok(answer) => heard.push((other.presence.id, answer)),
                Err(error) => silent.push(Silent::new(&other.presence, error.to_string())),
            }
        }
        (heard, silent)
    }
}

async fn tunnel(mut client: Client, request: InspectRequest) -> Result<Option<Tunnel>, Status> {
    let tunnel = client.inspect(request).await?.into_inner().tunnel;
    tunnel.as_ref().map(convert::tunnel).transpose().map_err(unreadable)
}

async fn sessions(
    mut client: Client,
    request: ListSessionsRequest,
) -> Result<Vec<(NodeId, SessionInfo)>, Status> {
    let mut pages = client.list_sessions(request).await?.into_inner();
    let mut sessions = Vec::new();
    while let Some(page) = pages.try_next().await? {
        for session in page.sessions {
            sessions.push(convert::session(session).map_err(unreadable)?);
        }
        bounded(sessions.len())?;
    }
    Ok(sessions)
}

async fn claims(
    mut client: Client,
    request: ListSessionsRequest,
) -> Result<Vec<(NodeId, Claim)>, Status> {
    let mut pages = client.list_sessions(request).await?.into_inner();
    let mut claims = Vec::new();
    while let Some(page) = pages.try_next().await? {
        for session in page.sessions {
            let node = convert::node("node_id", &session.node_id).map_err(unreadable)?;
            claims.push((node, convert::claim(session.claim).map_err(unreadable)?));
        }
        bounded(claims.len())?;
    }
    Ok(claims)
}

fn bounded(sessions: usize) -> Result<(), Status> {
    match sessions <= MAX_SESSIONS {
        true => Ok(()),
        false => Err(Status::resource_exhausted("it lists sessions without end")),
    }
}

pub(super) fn unreadable(error: impl std::fmt::Display) -> Status {
    Status::data_loss(format!("its answer can't be read: {error}"))
}
