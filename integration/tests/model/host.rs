//! A host: an agent on a machine of its own, with a disk and a device that outlive it.

use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use wattle_agent::{
    app::{self, Exit},
    config::{DeviceArgs, NameArgs, RunArgs, StateArgs},
    kernel::{DataPlaneChoice, fake::FakeDevice},
};
use wattle_model::{Endpoint, NodeId, Revision};
use wattle_runtime::clock::TestClock;

use crate::{PATIENCE, machine::Machine};

pub(crate) struct Host {
    pub(crate) number: u16,
    pub(crate) clock: TestClock,
    pub(crate) device: FakeDevice,
    /// The node that it is, once it has joined.
    pub(crate) node: Option<NodeId>,
    /// The port of its declared endpoint.
    pub(crate) port: u16,
    /// How its agent ended, where it ended for good.
    pub(crate) exit: Option<Exit>,
    /// The head when its device was last found right.
    pub(crate) quiet_at: Revision,
    /// Its device was changed by hand: a restarted agent looks at once.
    pub(crate) tampered: bool,
    /// Until so many rounds have ended, it isn't started again.
    away: u8,
    folder: TempDir,
    running: Option<(Machine<anyhow::Result<Exit>>, CancellationToken)>,
}

impl Host {
    pub(crate) fn new(number: u16) -> Self {
        Self {
            number,
            clock: TestClock::default(),
            device: FakeDevice::default(),
            node: None,
            port: 51820,
            exit: None,
            quiet_at: Revision::ZERO,
            tampered: false,
            away: 0,
            folder: tempfile::tempdir().unwrap(),
            running: None,
        }
    }

    /// Starts the agent; with a token and a name, it may enrol.
    pub(crate) fn start(&mut self, join: Option<(String, String)>) {
        assert!(self.running.is_none(), "host {} runs already", self.number);
        let (token, name) = join.unzip();
        let endpoint = format!("192.0.2.{}:{}", self.number % 250 + 1, self.port);
        let args = RunArgs {
            token: token.map(|token| token.parse().expect("any text will do")),
            token_file: None,
            state: StateArgs { state_dir: self.folder.path().to_owned(), socket: None },
            device: DeviceArgs {
                interface: format!("model{}", self.number),
                dataplane: DataPlaneChoice::Auto,
                listen_port: 51820,
                mtu: None,
                mark: 0x5747,
                routes: vec![],
                endpoints: vec![Endpoint::new(endpoint.parse().unwrap()).unwrap()],
            },
            name: NameArgs { name: name.map(|name| name.parse().unwrap()) },
        };
        let (device, stop) = (self.device.clone(), CancellationToken::new());
        let stopped = stop.clone().cancelled_owned();
        let machine = Machine::start(&self.clock, || app::run_on(device, args, stopped));
        self.running = Some((machine, stop));
    }

    pub(crate) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Ends the agent in order.
    pub(crate) async fn stop(&mut self) {
        if let Some((machine, stop)) = self.running.take() {
            stop.cancel();
            self.ended(machine.end().await.unwrap());
        }
    }

    /// Ends the agent where it stands.
    pub(crate) async fn kill(&mut self) {
        if let Some((machine, _)) = self.running.take() {
            // It may have ended by itself just before.
            if let Some(exit) = machine.pull_the_plug().await {
                self.ended(exit.unwrap());
            }
        }
    }

    /// Ends the agent where it stands, and leaves it so through the end of this round.
    pub(crate) async fn go_away(&mut self) {
        if self.is_running() {
            self.kill().await;
            self.away = 2;
        }
    }

    pub(crate) const fn is_away(&self) -> bool {
        self.away > 0
    }

    /// The end of a round, or of all: whoever should run does, and looks at its device.
    pub(crate) async fn come_back(&mut self, for_good: bool) {
        self.away = if for_good { 0 } else { self.away.saturating_sub(1) };
        if std::mem::take(&mut self.tampered) {
            self.kill().await;
        }
        if !self.is_running() && self.exit.is_none() && !self.is_away() {
            self.start(None);
        }
    }

    /// If the agent ended by itself: how, or with which error.
    pub(crate) async fn take_end(&mut self) -> Option<anyhow::Result<()>> {
        let (machine, _) = self.running.take_if(|(machine, _)| machine.has_ended())?;
        Some(machine.end().await.map(|exit| self.ended(exit)))
    }

    fn ended(&mut self, exit: Exit) {
        self.exit = Some(exit).filter(|exit| *exit != Exit::Stopped);
    }

    /// What the agent says of itself; `None` while it doesn't answer.
    pub(crate) async fn status(&self) -> Option<Value> {
        self.ask("status").await
    }

    /// Has the agent leave. Whether it did is also to be seen by its end.
    pub(crate) async fn leave(&self) -> bool {
        self.ask("leave").await.is_some_and(|reply| reply.get("error").is_none())
    }

    async fn ask(&self, question: &str) -> Option<Value> {
        let ask = async {
            let mut stream = UnixStream::connect(self.folder.path().join("agent.sock")).await?;
            stream.write_all(format!("{question}\n").as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            Ok::<_, std::io::Error>(serde_json::from_str(&answer).ok())
        };
        timeout(PATIENCE, ask).await.ok()?.ok()?
    }

    /// Waits for an agent that has just been started with a token: until it runs, or has ended.
    pub(crate) async fn joined(&mut self) -> anyhow::Result<()> {
        loop {
            if let Some(end) = self.take_end().await {
                return end;
            }
            if let Some(status) = self.status().await {
                self.node = status["node"]["id"].as_str().map(|id| id.parse().unwrap());
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
