//! What this replica tells others, and is told by them. It trusts that `access` stands before it.

use std::time::Duration;

use futures::{StreamExt as _, stream, stream::BoxStream};
use tokio::{
    select,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use wattle_model::{NodeId, ReplicaId, Revision};
use wattle_proto::{
    InvalidField,
    replica::{
        InspectRequest, InspectResponse, ListSessionsRequest, ListSessionsResponse,
        TellEnteredRequest, TellEnteredResponse, WatchAppliedRequest, WatchAppliedResponse,
        replica_service_server::ReplicaService,
    },
};

use super::{Replicas, ask::AGENT_PATIENCE, convert};
use crate::stream::{Following, MAX_ARRIVALS, Report, Sessions};

/// Sessions or reports in one message.
const PAGE: usize = 500;
/// Nodes that may be named in one request.
const MAX_NODES: usize = 1000;
/// The longest that a revision is watched for.
const LONGEST: Duration = Duration::from_secs(300);
/// How often a replica that stops looks whether all its agents have left.
const LEAVING: Duration = Duration::from_millis(100);

/// `wattle.replica.v1.ReplicaService`.
pub struct Service(Replicas);

impl Service {
    pub(super) const fn new(replicas: Replicas) -> Self {
        Self(replicas)
    }

    /// An address may lead to another replica than the caller means.
    fn is_meant(&self, replica_id: &[u8]) -> Result<(), Status> {
        let own = self.0.own().id;
        match ReplicaId::try_from(replica_id) {
            Ok(meant) if meant == own => Ok(()),
            _ => Err(Status::failed_precondition(format!(
                "this is replica {own}: correct --replica-address of the one that was meant"
            ))),
        }
    }
}

#[tonic::async_trait]
impl ReplicaService for Service {
    type ListSessionsStream = BoxStream<'static, Result<ListSessionsResponse, Status>>;

    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<Self::ListSessionsStream>, Status> {
        let request = request.into_inner();
        self.is_meant(&request.replica_id)?;
        let nodes = nodes(&request.node_ids)?;
        let wanted = (!nodes.is_empty()).then_some(&nodes[..]);
        let mut sessions = self.0.sessions().list(wanted);
        if request.claims_only {
            sessions.retain(|(_, info)| info.online);
        }
        let mut sessions = sessions.into_iter();
        let pages = std::iter::from_fn(move || {
            let page = sessions.by_ref().take(PAGE).map(|(node, info)| match request.claims_only {
                true => convert::claimed(node, &info),
                false => convert::session_message(node, info),
            });
            let sessions: Vec<_> = page.collect();
            (!sessions.is_empty()).then_some(Ok(ListSessionsResponse { sessions }))
        });
        Ok(Response::new(stream::iter(pages).boxed()))
    }

    type WatchAppliedStream = BoxStream<'static, Result<WatchAppliedResponse, Status>>;

    async fn watch_applied(
        &self,
        request: Request<WatchAppliedRequest>,
    ) -> Result<Response<Self::WatchAppliedStream>, Status> {
        let request = request.into_inner();
        self.is_meant(&request.replica_id)?;
        let revision = Revision(request.revision);
        let until = Instant::now() + Duration::from_millis(request.timeout_millis).min(LONGEST);
        let sessions = self.0.sessions();
        if !sessions.indexed(revision, until).await {
            return Err(Status::unavailable(format!("it hasn't read the store up to {revision}")));
        }
        let following = sessions.follow(revision);
        let following = following.ok_or_else(|| {
            Status::resource_exhausted("too many waits for revisions go on at this replica")
        })?;
        let told = Telling {
            following,
            sessions: sessions.clone(),
            draining: self.0.0.draining.clone(),
            until,
            surveyed: false,
        };
        let pages = stream::unfold(told, Telling::next).flat_map(stream::iter);
        Ok(Response::new(pages.map(Ok).boxed()))
    }

    async fn inspect(
        &self,
        request: Request<InspectRequest>,
    ) -> Result<Response<InspectResponse>, Status> {
        let request = request.into_inner();
        self.is_meant(&request.replica_id)?;
        let node = convert::node("node_id", &request.node_id).map_err(invalid)?;
        let peer = convert::node("peer_id", &request.peer_id).map_err(invalid)?;
        let tunnel = self.0.sessions().inspect(node, peer, AGENT_PATIENCE).await;
        let tunnel = tunnel.as_ref().map(convert::tunnel_message);
        Ok(Response::new(InspectResponse { tunnel }))
    }

    async fn tell_entered(
        &self,
        request: Request<TellEnteredRequest>,
    ) -> Result<Response<TellEnteredResponse>, Status> {
        let request = request.into_inner();
        self.is_meant(&request.replica_id)?;
        if request.entered.len() > MAX_ARRIVALS {
            return Err(Status::invalid_argument(format!("entered: at most {MAX_ARRIVALS}")));
        }
        for entered in request.entered {
            let node = convert::node("entered.node_id", &entered.node_id).map_err(invalid)?;
            let claim = convert::claim(entered.claim).map_err(invalid)?;
            self.0.sessions().elsewhere(node, &claim);
        }
        Ok(Response::new(TellEnteredResponse {}))
    }
}

/// A revision being watched for another replica.
struct Telling {
    following: Following,
    sessions: Sessions,
    draining: CancellationToken,
    until: Instant,
    surveyed: bool,
}

impl Telling {
    /// First all that are known, then those that moved. A replica that stops goes on until its
    /// agents have left: where they go, others tell.
    async fn next(mut self) -> Option<(Vec<WatchAppliedResponse>, Self)> {
        if !self.surveyed {
            self.surveyed = true;
            let mut pages = pages(&self.following.now());
            match pages.last_mut() {
                Some(last) => last.surveyed = true,
                None => pages.push(WatchAppliedResponse { surveyed: true, ..Default::default() }),
            }
            return Some((pages, self));
        }
        let moved = select! {
            moved = self.following.next() => moved,
            () = sleep_until(self.until) => return None,
            () = left(&self.draining, &self.sessions) => return None,
        };
        Some((pages(&moved), self))
    }
}

async fn left(draining: &CancellationToken, sessions: &Sessions) {
    draining.cancelled().await;
    while sessions.online() > 0 {
        sleep(LEAVING).await;
    }
    // What the last one's going meant may not have been told.
    sleep(LEAVING).await;
}

fn pages(reports: &[Report]) -> Vec<WatchAppliedResponse> {
    let page = |reports: &[Report]| WatchAppliedResponse {
        reports: reports.iter().map(convert::report_message).collect(),
        surveyed: false,
    };
    reports.chunks(PAGE).map(page).collect()
}

fn nodes(ids: &[bytes::Bytes]) -> Result<Vec<NodeId>, Status> {
    if ids.len() > MAX_NODES {
        return Err(Status::invalid_argument(format!("node_ids: at most {MAX_NODES}")));
    }
    ids.iter().map(|id| convert::node("node_ids", id).map_err(invalid)).collect()
}

fn invalid(error: InvalidField) -> Status {
    Status::invalid_argument(error.to_string())
}
