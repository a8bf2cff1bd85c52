//! One machine: its state directory, its device, its agent, and the replica it knows.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Parser as _;
use tempfile::TempDir;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, timeout},
};
use wattle_model::{Epoch, PublicKey};

use crate::{
    app::{Agent, Build, Exit},
    kernel::{Host, fake::FakeDevice},
    reconcile::{Open, Wishes},
    scripted::{Authority, PATIENCE, Replica, Stream, peer},
    state::{StateDir, identity::Identity},
    status::{
        document::Document,
        socket::{self, Asked},
    },
    wireguard_key,
};

pub(super) const EPOCH: Epoch = Epoch::new([1; 16]);

pub(super) struct Bench {
    pub(super) replica: Replica,
    pub(super) device: FakeDevice,
    pub(super) folder: TempDir,
    /// What the agent takes for this machine until it looks at it.
    pub(super) host: Host,
}

pub(super) struct Running {
    socket: PathBuf,
    identity: Identity,
    stop: oneshot::Sender<()>,
    agent: JoinHandle<anyhow::Result<Exit>>,
}

impl Bench {
    /// A machine that has joined.
    pub(super) async fn new() -> Self {
        Self::with_others(&[]).await
    }

    /// A machine that knows further replicas.
    pub(super) async fn with_others(others: &[&Replica]) -> Self {
        let authority = match others {
            [] => Authority::new(),
            _ => others[0].authority.clone(),
        };
        let replica = Replica::start(&authority).await;
        let addresses = [&replica].into_iter().chain(others.iter().copied());
        let identity = authority.identity(addresses.map(|r| r.address.clone()).collect());
        let folder = tempfile::tempdir().unwrap();
        StateDir::open(folder.path()).unwrap().save_identity(&identity).unwrap();
        let device = FakeDevice::new(wireguard_key::public(&identity.wireguard_key).unwrap());
        let host = Host::with_addresses(&["192.0.2.7/24"]);
        Self { replica, device, folder, host }
    }

    /// Starts the agent on what the state directory holds.
    pub(super) async fn start(&self) -> Running {
        let state = Arc::new(StateDir::open(self.folder.path()).unwrap());
        let identity = state.identity().unwrap().unwrap();
        let device = self.device.clone();
        let link_key = device.observed().public_key;
        let open: Open = Box::new(move |(key, _)| {
            let device = device.clone();
            let key = wireguard_key::public(&key).unwrap();
            Box::pin(async move {
                device.tamper(|observed| observed.public_key = Some(key));
                Ok(Box::new(device.open()) as _)
            })
        });
        let socket = self.folder.path().join("agent.sock");
        let build = Build {
            state,
            identity: identity.clone(),
            link_key,
            open,
            socket: socket.clone(),
            wishes: Wishes {
                interface: "test0".into(),
                listen_port: 51820,
                mark: 0x5747,
                mtu: None,
                via: [].into(),
            },
            declared: vec![wattle_model::Endpoint::new(([192, 0, 2, 7], 51820).into()).unwrap()],
            host: self.host.clone(),
        };
        let agent = Agent::build(build).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let agent = tokio::spawn(agent.run(async {
            let _ = stopped.await;
            Ok(())
        }));
        Running { socket, identity, stop, agent }
    }

    /// The agent's next stream, after a full set of these peers at revision 5.
    pub(super) async fn filled(&mut self, peers: &[u8]) -> Stream {
        let mut stream = self.replica.stream().await;
        let entries: Vec<_> = peers.iter().map(|n| peer(*n)).collect();
        stream.welcome(EPOCH, true).await;
        stream.commit(5, true, (entries.clone(), &[]), &entries).await;
        stream.ack_where(5, |_| true).await;
        stream
    }

    /// The device's peers.
    pub(super) fn peers(&self) -> Vec<PublicKey> {
        self.device.observed().peers.into_keys().collect()
    }

    /// Runs another command of the program on this machine.
    pub(super) async fn command(&self, args: &[&str]) -> anyhow::Result<Exit> {
        let folder = self.folder.path().to_str().unwrap();
        let all = [&["wattle-agent"], args, &["--state-dir", folder]].concat();
        crate::app::run(crate::config::Config::parse_from(all)).await
    }

    /// A token that would let a machine join.
    pub(super) fn token(&self) -> String {
        self.replica.token(self.replica.authority.ca.pin()).expose()
    }

    /// What the state directory says.
    pub(super) fn identity(&self) -> Option<Identity> {
        StateDir::open(self.folder.path()).unwrap().identity().unwrap()
    }
}

impl Running {
    pub(super) async fn status(&self) -> Document {
        let answer = socket::ask(&self.socket, Asked::Status).await.unwrap();
        serde_json::from_str(&answer.expect("the agent should answer")).unwrap()
    }

    /// Asks for the status until it is as wanted.
    pub(super) async fn status_where(&self, wanted: impl Fn(&Document) -> bool) -> Document {
        let began = Instant::now();
        loop {
            let status = self.status().await;
            if wanted(&status) {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "still {status:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) async fn leave(&self, force: bool) -> String {
        socket::ask(&self.socket, Asked::Leave { force }).await.unwrap().unwrap()
    }

    /// Stops the agent as a signal does.
    pub(super) async fn stop(self) {
        self.stop.send(()).unwrap();
        let exit = timeout(PATIENCE, self.agent).await.unwrap().unwrap().unwrap();
        assert_eq!(exit, Exit::Stopped);
    }

    /// Waits until the agent ends by itself.
    pub(super) async fn ends(self) -> Exit {
        timeout(PATIENCE, self.agent).await.expect("the agent should end").unwrap().unwrap()
    }

    /// What must be printed nowhere.
    pub(super) fn secrets(&self) -> Vec<String> {
        let pem = self.identity.tls_key.to_pem();
        let wireguard = STANDARD.encode(self.identity.wireguard_key.expose_bytes());
        vec![pem.lines().nth(1).unwrap().to_owned(), wireguard]
    }
}
