//! The real program on port 0: what it serves, to whom, and how it ends.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod apply;
mod drain;
mod etcd;
mod methods;
mod metrics;
mod process;
mod replicas;
mod serve;
mod whole;

use std::{path::Path, sync::Arc, time::Duration};

use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use wattle_controlplane::{
    app::{self, Bound},
    config::{Config, Settings},
    replica::Replica,
    replicas::Replicas,
};
use wattle_runtime::{dial, shutdown::Shutdown};

/// A replica that runs inside the test.
pub(crate) struct Running {
    pub(crate) replica: Arc<Replica>,
    pub(crate) replicas: Replicas,
    pub(crate) address: String,
    pub(crate) shutdown: Shutdown,
    pub(crate) task: JoinHandle<()>,
}

pub(crate) fn config(data_dir: &Path) -> Config {
    let settings = Settings {
        data_dir: Some(data_dir.to_owned()),
        listen: Some(([127, 0, 0, 1], 0).into()),
        drain_grace: Some("2s".parse().unwrap()),
        ..Settings::default()
    };
    settings.check(None).unwrap()
}

pub(crate) async fn start(data_dir: &Path) -> Running {
    start_with(config(data_dir)).await
}

pub(crate) async fn start_with(config: Config) -> Running {
    Running::run(app::build(config).await.unwrap())
}

impl Running {
    pub(crate) fn run(bound: Bound) -> Self {
        let (replicas, address) = (bound.replicas().clone(), bound.address().to_string());
        let shutdown = Shutdown::new();
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { bound.run(&stop).await });
        Self { replica: replicas.own().clone(), replicas, address, shutdown, task }
    }

    /// A connection of somebody who knows the roots and has no certificate.
    pub(crate) async fn anonymous(&self) -> Channel {
        let replica = &self.replica;
        let tls = wattle_certs::client_config(&replica.roots(), None, Some(&replica.trust_domain));
        let addresses = [self.address.clone()];
        let patience = Duration::from_secs(5);
        dial::channel(&addresses, Arc::new(tls.unwrap()), patience).await.unwrap().channel
    }

    pub(crate) async fn stop(self) {
        self.shutdown.begin();
        self.task.await.unwrap();
    }
}

pub(crate) fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}
