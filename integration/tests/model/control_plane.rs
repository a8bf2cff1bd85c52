//! The control plane: the whole program on a machine of its own, with a disk that outlives it.

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use tempfile::TempDir;
use tokio::{sync::oneshot, time::sleep};
use tonic::transport::Channel;
use wattle_controlplane::{
    app,
    config::{Config, Settings},
    replica::Replica,
    store::Store,
};
use wattle_proto::admin::admin_service_client::AdminServiceClient;
use wattle_runtime::{clock::TestClock, dial, shutdown::Shutdown};

use crate::{PATIENCE, machine::Machine};

pub(crate) struct ControlPlane {
    pub(crate) clock: TestClock,
    folder: TempDir,
    advertised: SocketAddr,
    running: Option<Running>,
}

struct Running {
    machine: Machine<()>,
    stop: Shutdown,
    replica: Weak<Replica>,
}

impl ControlPlane {
    /// One that has never run. Agents are told to reach it at `advertised`.
    pub(crate) fn new(advertised: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { clock: TestClock::default(), folder, advertised, running: None }
    }

    /// Starts it, as often as it takes while its predecessor's last breath holds the store.
    /// Returns where it listens.
    pub(crate) async fn start(&mut self) -> SocketAddr {
        for _ in 0..100 {
            match self.try_start().await {
                Ok(address) => return address,
                Err(error) if error.contains("in use") => sleep(Duration::from_millis(50)).await,
                Err(error) => panic!("the control plane doesn't start: {error}"),
            }
        }
        panic!("nobody gives the store back");
    }

    async fn try_start(&mut self) -> Result<SocketAddr, String> {
        let (tell, told) = oneshot::channel();
        let (config, stop) = (self.config(), Shutdown::new());
        let stopping = stop.clone();
        let machine = Machine::start(&self.clock, async move || match app::build(config).await {
            Ok(bound) => {
                let told = tell.send(Ok((bound.address(), Arc::downgrade(bound.replica()))));
                told.expect("somebody started it");
                bound.run(&stopping).await;
            }
            Err(error) => drop(tell.send(Err(format!("{error:#}")))),
        });
        let (address, replica) = told.await.expect("it starts or says why not")?;
        self.running = Some(Running { machine, stop, replica });
        Ok(address)
    }

    fn config(&self) -> Config {
        let settings = Settings {
            data_dir: Some(self.folder.path().to_owned()),
            listen: Some(([127, 0, 0, 1], 0).into()),
            advertise: Some(vec![self.advertised.to_string().parse().unwrap()]),
            heartbeat: Some("1s".parse().unwrap()),
            drain_grace: Some("1s".parse().unwrap()),
            ..Settings::default()
        };
        settings.check(None).unwrap()
    }

    pub(crate) fn is_running(&self) -> bool {
        if let Some(running) = &self.running {
            assert!(!running.machine.has_ended(), "the control plane ended by itself");
        }
        self.running.is_some()
    }

    /// Stops it in order.
    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop.begin();
            running.machine.end().await;
        }
    }

    /// Ends it where it stands.
    pub(crate) async fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.machine.pull_the_plug().await;
        }
    }

    /// Its store, for as long as it runs: nobody may keep it.
    pub(crate) fn store(&self) -> Option<Arc<dyn Store>> {
        Some(self.running.as_ref()?.replica.upgrade()?.store.clone())
    }

    /// The admin service at its local socket, which asks for no certificate.
    pub(crate) async fn admin(&self) -> Option<AdminServiceClient<Channel>> {
        let socket = self.folder.path().join("admin.sock");
        let channel = tokio::time::timeout(PATIENCE, dial::unix(&socket)).await;
        channel.ok()?.ok().map(AdminServiceClient::new)
    }

    /// What its clock says.
    pub(crate) fn now(&self) -> SystemTime {
        SystemTime::now() + self.clock.ahead()
    }
}
