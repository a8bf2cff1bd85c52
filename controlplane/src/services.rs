//! Every service of the replica, behind the one access check. Wiring only.

use std::{
    convert::Infallible,
    future::Ready,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::future::Either;
use http::{Request, Response};
use prometheus_client::registry::Registry;
use tokio::time::sleep;
use tonic::{body::Body, server::NamedService as _, service::Routes};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::{Layer as _, Service, util::BoxCloneSyncService};
use wattle_proto::{
    admin::admin_service_server::AdminServiceServer,
    enroll::enrollment_service_server::EnrollmentServiceServer,
    replica::replica_service_server::ReplicaServiceServer,
};
use wattle_runtime::shutdown::Shutdown;

use crate::{
    access::AccessLayer,
    admin::Admin,
    authority,
    enroll::Enrollment,
    listener::Handler,
    metrics,
    nodes::Nodes,
    replica::Replica,
    replicas::Replicas,
    rotation,
    store::feed::Live,
    stream::{self, Pace, SyncService},
};

/// The names under which health is asked for; the empty one is the whole replica.
const HEALTH_NAMES: [&str; 4] =
    ["", "wattle.admin.v1.AdminService", "wattle.enroll.v1.EnrollmentService", STREAMS];
const STREAMS: &str = "wattle.sync.v1.SyncService";
/// How often health looks whether the view is stale.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Bytes of an enrolment at the most: strangers may send them.
const ENROLMENT_BYTES: usize = 64 << 10;

/// Makes the services. Streams end with `serving`, within their grace; what calls rely on ends with
/// `background`, after them.
pub fn build(
    replica: &Arc<Replica>,
    serving: &Shutdown,
    background: &Shutdown,
    pace: Pace,
    replica_address: String,
) -> anyhow::Result<Services> {
    let nodes = Nodes::new(replica.store.clone(), background);
    let (streams, sessions) = stream::start(replica.clone(), nodes.clone(), serving, pace);
    let tell = authority::tell(replica.authority.changes(), sessions.clone(), background.token());
    background.spawn("roots", tell);
    let enrollment = Enrollment::new(replica.clone(), nodes.clone());
    let (own, stop) = (replica.clone(), serving.token());
    let replicas = Replicas::new(own, sessions, replica_address, stop.clone());
    let metrics = metrics::registry(replicas.clone(), streams.clone());
    rotation::start(replicas.clone(), nodes.clone(), serving);
    let admin = Admin::new(replicas.clone(), nodes, stop);
    let (reporter, health) = tonic_health::server::health_reporter();
    let routes = Routes::new(health)
        .add_service(
            EnrollmentServiceServer::new(enrollment).max_decoding_message_size(ENROLMENT_BYTES),
        )
        .add_service(AdminServiceServer::new(admin))
        .add_service(ReplicaServiceServer::new(replicas.service()))
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .prepare();
    let access =
        AccessLayer::new(replica.store.clone(), replica.live.clone(), replica.trust_domain.clone());
    let handler = BoxCloneSyncService::new(access.layer(Split { streams, routes }));
    Ok(Services { handler, health: Health(reporter), metrics, replicas })
}

/// Streams pass by the router: in it, every message would go through two more boxes in either
/// direction.
#[derive(Clone)]
struct Split {
    streams: SyncService,
    routes: Routes,
}

impl Service<Request<Body>> for Split {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<
        Ready<Result<Response<Body>, Infallible>>,
        <Routes as Service<Request<Body>>>::Future,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        ready!(Service::<Request<Body>>::poll_ready(&mut self.streams, cx))?;
        Service::<Request<Body>>::poll_ready(&mut self.routes, cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut path = request.uri().path().split('/').skip(1);
        match path.next() {
            Some(SyncService::NAME) => Either::Left(self.streams.call(request)),
            _ => Either::Right(self.routes.call(request)),
        }
    }
}

/// What `app` connects to the ports.
pub struct Services {
    /// Answers calls.
    pub handler: Handler,
    /// What the health service answers.
    pub health: Health,
    /// What scrapes are answered.
    pub metrics: Registry,
    /// This replica among the others.
    pub replicas: Replicas,
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(wattle_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// What the health service answers.
pub struct Health(HealthReporter);

impl Health {
    /// Calls are answered.
    pub async fn serving(&self) {
        self.set(ServingStatus::Serving).await;
    }

    /// Calls should go elsewhere.
    pub async fn not_serving(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    /// Says that calls should go elsewhere for as long as the view is stale. Not of streams: a stale
    /// replica keeps those it has, and takes agents that come back. Runs until it is dropped.
    pub async fn follow(&self, live: &Live) {
        let mut told = false;
        loop {
            let stale = live.is_stale();
            if std::mem::replace(&mut told, stale) != stale {
                let status = if stale { ServingStatus::NotServing } else { ServingStatus::Serving };
                for name in HEALTH_NAMES.into_iter().filter(|name| *name != STREAMS) {
                    self.0.set_service_status(name, status).await;
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    async fn set(&self, status: ServingStatus) {
        for name in HEALTH_NAMES {
            self.0.set_service_status(name, status).await;
        }
    }
}
