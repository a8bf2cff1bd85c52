//! Every service of the replica, behind the one access check. Wiring only.

use std::{sync::Arc, time::Duration};

use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::{Layer as _, util::BoxCloneSyncService};
use wattle_runtime::shutdown::Shutdown;

use crate::{access::AccessLayer, listener::Handler, replica::Replica};

/// The names under which health is asked for; the empty one is the whole replica.
const HEALTH_NAMES: [&str; 4] = [
    "",
    "wattle.admin.v1.AdminService",
    "wattle.enroll.v1.EnrollmentService",
    "wattle.sync.v1.SyncService",
];

/// Makes the services. Streams end with `serving`, within `grace`.
pub fn build(
    replica: &Arc<Replica>,
    _serving: &Shutdown,
    _grace: Duration,
) -> anyhow::Result<(Handler, Health)> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let routes = Routes::new(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .prepare();
    let access = AccessLayer::new(replica.store.clone(), replica.trust_domain.clone());
    Ok((BoxCloneSyncService::new(access.layer(routes)), Health(reporter)))
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

    async fn set(&self, status: ServingStatus) {
        for name in HEALTH_NAMES {
            self.0.set_service_status(name, status).await;
        }
    }
}
