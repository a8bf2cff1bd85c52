//! A control plane and agents on hosts: the product's own binaries, driven by its own CLI.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Host, Process, Underlay, binary, run, wait_until};

/// How long a process may take to be ready on a busy machine; an emulated one is 15 times slower.
const PATIENCE: Duration = Duration::from_secs(60);

/// What tests change from the product's defaults.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `--dataplane` of every agent.
    pub dataplane: String,
    /// Further arguments of the control plane.
    pub control_plane: Vec<String>,
    /// What `WATTLE_LOG` says to every process; the product's default where unset.
    pub log: Option<String>,
}

impl Default for Settings {
    /// The data plane is the one named by `WATTLE_TEST_DATAPLANE`, or the userspace one.
    fn default() -> Self {
        let dataplane = std::env::var("WATTLE_TEST_DATAPLANE");
        Self {
            dataplane: dataplane.unwrap_or_else(|_| "userspace".to_owned()),
            control_plane: Vec::new(),
            log: None,
        }
    }
}

/// Has `command` log as `log` says.
fn log_as(command: &mut Command, log: Option<&str>) {
    command.envs(log.map(|log| ("WATTLE_LOG", log)));
}

/// One control plane and the hosts around it.
#[derive(Debug)]
pub struct Cluster {
    /// The control plane.
    pub control_plane: ControlPlane,
    // Dropped after the processes, so that nothing runs in a namespace that goes away.
    underlay: Underlay,
    next: AtomicU8,
    settings: Settings,
    folder: TempDir,
}

impl Cluster {
    /// Starts a control plane on a host of its own and waits until it is ready.
    pub fn start(settings: Settings) -> Result<Self> {
        Self::start_on(Underlay::new()?, settings)
    }

    /// The same on another underlay.
    pub fn start_on(underlay: Underlay, settings: Settings) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let host = underlay.host("control", 1)?;
        let control_plane = ControlPlane::start(host, folder.path(), &settings)?;
        Ok(Self { control_plane, underlay, next: AtomicU8::new(10), settings, folder })
    }

    /// The network between the hosts.
    pub const fn underlay(&self) -> &Underlay {
        &self.underlay
    }

    /// A host without an agent.
    pub fn host(&self, name: &str) -> Result<Host> {
        self.underlay.host(name, self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// A host with an agent that joins with `token` and runs.
    pub fn agent(&self, name: &str, token: &str) -> Result<Agent> {
        self.agent_on(self.host(name)?, token)
    }

    /// An agent on a host that is there already.
    pub fn agent_on(&self, host: Host, token: &str) -> Result<Agent> {
        Agent::start(host, self.folder.path(), token, &self.settings)
    }

    /// Agents that join at the same time.
    pub fn agents(&self, names: &[&str], token: &str) -> Result<Vec<Agent>> {
        names.iter().map(|name| self.agent(name, token)).collect()
    }

    /// The folder of states and logs; gone with the cluster.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// The control plane's host, process and operator; one replica of it, where there are several.
#[derive(Debug)]
pub struct ControlPlane {
    name: String,
    process: Option<Process>,
    host: Host,
    data: PathBuf,
    logs: PathBuf,
    operator: PathBuf,
    arguments: Vec<String>,
    log: Option<String>,
}

impl ControlPlane {
    fn start(host: Host, folder: &Path, settings: &Settings) -> Result<Self> {
        let mut control_plane = Self::new("control-plane", host, folder, settings);
        control_plane.restart()?;
        Ok(control_plane)
    }

    /// One that doesn't run yet; its data and its log have its name.
    pub fn new(name: &str, host: Host, folder: &Path, settings: &Settings) -> Self {
        let data = folder.join(name);
        Self {
            name: name.to_owned(),
            process: None,
            host,
            operator: data.join("operator.json"),
            data,
            logs: folder.to_owned(),
            arguments: settings.control_plane.clone(),
            log: settings.log.clone(),
        }
    }

    /// From now on `wattle` has this credential, instead of the one that the control plane wrote.
    pub fn operate_with(&mut self, credential: PathBuf) {
        self.operator = credential;
    }

    /// From now on it is started with these further arguments.
    pub fn serve_with(&mut self, arguments: &[&str]) {
        self.arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    }

    /// Starts it, or starts it again, and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        self.spawn()?;
        self.wait_ready()
    }

    /// Starts it, or starts it again.
    pub fn spawn(&mut self) -> Result<()> {
        let mut command = self.host.command(binary("wattle-controlplane")?);
        command.arg("serve").arg("--data-dir").arg(&self.data).args(&self.arguments);
        log_as(&mut command, self.log.as_deref());
        self.process = Some(Process::spawn(&self.name, command, &self.logs)?);
        Ok(())
    }

    /// Waits until it answers.
    pub fn wait_ready(&mut self) -> Result<()> {
        let what = format!("the first answer of {}", self.name);
        wait_until(&what, PATIENCE, || {
            self.process.as_mut().context("it doesn't run")?.check_running()?;
            Ok(self.wattle(&["status"]).ok().map(drop))
        })
    }

    /// kill -9.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().with_context(|| format!("{} doesn't run", self.name))?.kill()
    }

    /// SIGTERM; waits for its end.
    pub fn terminate(&mut self, limit: Duration) -> Result<()> {
        let process = self.process.take();
        let process = process.with_context(|| format!("{} doesn't run", self.name))?;
        process.terminate(limit).map(|_| ())
    }

    /// The running process.
    pub const fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Its host.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// All that it has written since the first start.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.logs.join(format!("{}.log", self.name)))?)
    }

    /// The operator's `wattle` with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.host.command(binary("wattle")?);
        command.env("WATTLE_CONTEXT", &self.operator).args(arguments);
        Ok(command)
    }

    /// What `wattle` prints.
    pub fn wattle(&self, arguments: &[&str]) -> Result<String> {
        run(&mut self.command(arguments)?)
    }

    /// What `wattle … -o json` prints.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.wattle(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("{arguments:?} printed {text}"))
    }

    /// `wattle-controlplane` with these arguments, on its host and data folder.
    pub fn manage(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.host.command(binary("wattle-controlplane")?);
        run(command.args(arguments).arg("--data-dir").arg(&self.data))
    }

    /// How many agents it has sent a whole set since it was started.
    pub fn full_sets(&self) -> Result<u64> {
        let status = self.json(&["status"])?;
        let reasons = status["full_sets"].as_object().context("status has no full_sets")?;
        Ok(reasons.values().filter_map(Value::as_u64).sum())
    }

    /// A join token for any number of machines.
    pub fn token(&self) -> Result<String> {
        let arguments = ["token", "create", "--network", "default", "--uses", "0", "--ttl", "1h"];
        Ok(self.wattle(&arguments)?.trim().to_owned())
    }
}

/// An agent's host and process.
#[derive(Debug)]
pub struct Agent {
    process: Option<Process>,
    host: Host,
    state: PathBuf,
    logs: PathBuf,
    dataplane: String,
    log: Option<String>,
}

impl Agent {
    pub(crate) fn start(
        host: Host,
        folder: &Path,
        token: &str,
        settings: &Settings,
    ) -> Result<Self> {
        let mut agent = Self {
            process: None,
            state: folder.join(format!("agent-{}", host.name())),
            logs: folder.to_owned(),
            host,
            dataplane: settings.dataplane.clone(),
            log: settings.log.clone(),
        };
        let token_file = folder.join(format!("token-{}", agent.host.name()));
        std::fs::write(&token_file, token)?;
        agent.spawn(&["--token-file", &token_file.display().to_string()])?;
        Ok(agent)
    }

    fn spawn(&mut self, arguments: &[&str]) -> Result<()> {
        let mut command = self.command(&["run", "--dataplane", &self.dataplane])?;
        command.args(["--name", self.host.name()]).args(arguments);
        let name = format!("agent-{}", self.host.name());
        self.process = Some(Process::spawn(&name, command, &self.logs)?);
        Ok(())
    }

    /// `wattle-agent` on this host with its state folder and these arguments.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.host.command(binary("wattle-agent")?);
        command
            .env("WATTLE_AGENT_STATE_DIR", &self.state)
            .env("WATTLE_AGENT_SOCKET", self.state.join("agent.sock"))
            .args(arguments);
        log_as(&mut command, self.log.as_deref());
        Ok(command)
    }

    /// Starts it again from its state.
    pub fn restart(&mut self) -> Result<()> {
        self.restart_with(&[])
    }

    /// Starts it again from its state, with further arguments.
    pub fn restart_with(&mut self, arguments: &[&str]) -> Result<()> {
        self.spawn(arguments)
    }

    /// kill -9.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the agent doesn't run")?.kill()
    }

    /// Waits until it ends by itself; its exit code.
    pub fn wait_end(&mut self, limit: Duration) -> Result<Option<i32>> {
        let process = self.process.as_mut().context("the agent doesn't run")?;
        Ok(process.wait(limit)?.code())
    }

    /// The running process.
    pub const fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// Its host.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// Its name in the network.
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// Its state folder.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// All that it has written.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.logs.join(format!("agent-{}.log", self.name())))?)
    }

    /// What `wattle-agent status -o json` prints.
    pub fn status(&self) -> Result<Value> {
        let text = run(&mut self.command(&["status", "-o", "json"])?)?;
        serde_json::from_str(&text).with_context(|| format!("status printed {text}"))
    }

    /// Its overlay addresses, once it has some: IPv4, then IPv6.
    pub fn addresses(&self) -> Result<[IpAddr; 2]> {
        wait_until(&format!("addresses of {}", self.name()), PATIENCE, || {
            let Ok(status) = self.status() else { return Ok(None) };
            let text = |i: usize| status["node"]["addresses"][i].as_str().map(str::to_owned);
            let (Some(one), Some(other)) = (text(0), text(1)) else { return Ok(None) };
            let address = |text: &str| text.split('/').next().unwrap_or_default().parse();
            let mut both: [IpAddr; 2] = [address(&one)?, address(&other)?];
            both.sort();
            Ok(Some(both))
        })
    }

    /// Names of the peers that its device holds.
    pub fn peers(&self) -> Result<Vec<String>> {
        let status = self.status()?;
        let peers = status["peers"].as_array().context("status has no peers")?;
        let mut names: Vec<_> =
            peers.iter().filter_map(|peer| peer["name"].as_str().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    /// Waits until its device holds exactly these peers.
    pub fn wait_peers(&self, expected: &[&str], limit: Duration) -> Result<()> {
        let mut seen = None;
        wait_until(&format!("peers of {} to be {expected:?}", self.name()), limit, || {
            seen = self.peers().ok();
            Ok(seen.as_ref().is_some_and(|peers| peers == expected).then_some(()))
        })
        .with_context(|| format!("it has {seen:?}"))
    }
}
