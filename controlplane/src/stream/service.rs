//! The gRPC service. By hand and not by tonic's codec, so that a page's bytes are shared between
//! all the agents that are sent it; requests are decoded the usual way.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{Status, body::Body, metadata::GRPC_CONTENT_TYPE, server::NamedService};
use tower::Service;

use super::{
    Call, Shared, agent_loop,
    body::{Gate, LoopBody},
    requests::Requests,
};
use crate::access::{PeerInfo, Principal};

const SYNC: &str = "/wattle.sync.v1.SyncService/Sync";

/// `wattle.sync.v1.SyncService`. Cheap to clone.
#[derive(Clone)]
pub struct SyncService {
    shared: Arc<Shared>,
}

impl NamedService for SyncService {
    const NAME: &'static str = "wattle.sync.v1.SyncService";
}

impl SyncService {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Pages encoded since the replica started, each for however many agents it was sent to.
    pub fn encodes(&self) -> u64 {
        self.shared.frames.encodes()
    }

    /// A place among the full sets, as a stream has one.
    #[cfg(test)]
    pub(super) fn turn(&self) -> super::admission::Turn {
        self.shared.admission.turn(Arc::default())
    }

    fn sync(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        if request.uri().path() != SYNC {
            return Err(Status::unimplemented("the sync service has the one method Sync"));
        }
        let call = caller(&request)?;
        if self.shared.shutdown.token().is_cancelled() {
            // Whoever comes through a name that leads here still may find another one behind it.
            return Err(Status::unavailable("this replica is stopping"));
        }
        let requests = Box::new(Requests::new(request.into_body()));
        let (shared, gate) = (Arc::clone(&self.shared), Arc::new(Gate::default()));
        let watched = shared.stalls.watch(Arc::clone(&gate), call.connection.clone());
        let body =
            LoopBody::new(gate, |outlet| agent_loop::run(shared, call, watched, outlet, requests));
        let mut response = Response::new(Body::new(body));
        response.headers_mut().insert(http::header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
        Ok(response)
    }
}

impl Service<Request<Body>> for SyncService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        ready(Ok(self.sync(request).unwrap_or_else(Status::into_http)))
    }
}

/// Who calls, as the access layer found.
fn caller(request: &Request<Body>) -> Result<Call, Status> {
    let extensions = request.extensions();
    let Some(Principal::Node { network, node, .. }) = extensions.get::<Principal>() else {
        return Err(Status::permission_denied("only nodes have streams"));
    };
    let peer = extensions.get::<PeerInfo>();
    let peer = peer.ok_or_else(|| Status::internal("a connection nobody knows anything of"))?;
    let address = peer.address.ip();
    let connection = extensions.get().cloned().unwrap_or_default();
    Ok(Call { network: network.clone(), node: *node, address, connection })
}
