//! The layer before every service: finds the method's rule, asks who calls, lets the call through
//! with a [`Principal`] or answers it here.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use tonic::{Status, body::Body};
use tower::{Layer, Service};
use wattle_certs::TrustDomain;

use super::{
    PeerInfo, Principal,
    lookup::Lookup,
    rules::{Rule, rule},
};
use crate::store::{Store, feed::Live};

/// Puts an access check before a service.
#[derive(Clone)]
pub struct AccessLayer(Arc<Lookup>);

impl AccessLayer {
    /// A check against the records of `store`; of operators, where that can't be asked, against what
    /// `live` was told.
    pub fn new(store: Arc<dyn Store>, live: Live, trust_domain: TrustDomain) -> Self {
        Self(Arc::new(Lookup { store, live, trust_domain }))
    }
}

impl<S> Layer<S> for AccessLayer {
    type Service = Access<S>;

    fn layer(&self, inner: S) -> Access<S> {
        Access { inner, lookup: self.0.clone() }
    }
}

/// A service behind an access check.
#[derive(Clone)]
pub struct Access<S> {
    inner: S,
    lookup: Arc<Lookup>,
}

impl<S, B> Service<http::Request<B>> for Access<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        // The one that was polled ready is the one to call.
        let spare = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, spare);
        let lookup = self.lookup.clone();
        Box::pin(async move {
            let peer = request.extensions().get::<PeerInfo>().cloned();
            match check(&lookup, request.uri().path(), peer).await {
                Ok(principal) => {
                    request.extensions_mut().insert(principal);
                    inner.call(request).await
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

async fn check(lookup: &Lookup, path: &str, peer: Option<PeerInfo>) -> Result<Principal, Status> {
    let rule = rule(path).ok_or_else(|| Status::unimplemented("no such method"))?;
    let peer = peer.ok_or_else(|| Status::internal("a connection nobody knows anything of"))?;
    if rule == Rule::Anyone {
        return Ok(Principal::Anonymous);
    }
    let principal = lookup.principal(&peer).await?;
    if rule.allows(&principal) {
        return Ok(principal);
    }
    tracing::info!(%principal, peer = %peer.address, path, "call refused");
    let message = format!("only {} may call this, not {principal}", rule.asks_for());
    Err(match principal {
        Principal::Anonymous => Status::unauthenticated(message),
        _ => Status::permission_denied(message),
    })
}
