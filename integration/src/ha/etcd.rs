//! Members of an etcd on hosts of their own.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};
use etcd_client::Client;
use nix::sys::signal::Signal;
use wattle_etcd::Version;

use crate::{Host, Inside, Process, wait_until};

/// How long three of them may take to agree on a leader on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one may take to say how it is.
const ANSWER: Duration = Duration::from_secs(2);
const CLIENTS: u16 = 2379;
const PEERS: u16 = 2380;

/// One member.
#[derive(Debug)]
pub struct Member {
    host: Host,
    process: Option<Process>,
    data: PathBuf,
    logs: PathBuf,
    cluster: String,
}

impl Member {
    /// Starts all members of a new etcd and waits until they have a leader, asking from `inside`.
    pub fn start_all(hosts: Vec<Host>, folder: &Path, inside: &Inside) -> Result<Vec<Self>> {
        let peer = |host: &Host| format!("{}=http://{}:{PEERS}", host.name(), host.ipv4);
        let cluster = hosts.iter().map(peer).collect::<Vec<_>>().join(",");
        let mut members = Vec::new();
        for host in hosts {
            let data = folder.join(host.name());
            let (logs, cluster) = (folder.to_owned(), cluster.clone());
            let mut member = Self { host, process: None, data, logs, cluster };
            member.start()?;
            members.push(member);
        }
        wait_until("a leader of etcd", PATIENCE, || {
            for member in &mut members {
                member.process.as_mut().context("it was started")?.check_running()?;
            }
            Ok(leader(&members, inside))
        })?;
        Ok(members)
    }

    /// Starts it, or starts it again.
    pub fn start(&mut self) -> Result<()> {
        let (ip, name) = (self.host.ipv4, self.host.name());
        let mut command = self.host.command(Version::V36.program()?);
        command
            .args(["--name", name, "--data-dir"])
            .arg(&self.data)
            .args(["--listen-client-urls", &format!("http://{ip}:{CLIENTS}")])
            .args(["--advertise-client-urls", &format!("http://{ip}:{CLIENTS}")])
            .args(["--listen-peer-urls", &format!("http://{ip}:{PEERS}")])
            .args(["--initial-advertise-peer-urls", &format!("http://{ip}:{PEERS}")])
            .args(["--initial-cluster", &self.cluster, "--initial-cluster-state", "new"])
            .args(["--logger", "zap", "--log-level", "warn"]);
        // Nothing of this machine's own settings.
        clean(&mut command);
        self.process = Some(Process::spawn(name, command, &self.logs)?);
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// Where it answers clients.
    pub fn address(&self) -> String {
        format!("{}:{CLIENTS}", self.host.ipv4)
    }

    /// Whether it was started and hasn't been killed.
    pub const fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// kill -9.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().with_context(|| format!("{} doesn't run", self.name()))?.kill()
    }

    /// SIGSTOP or SIGCONT.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process
            .as_ref()
            .with_context(|| format!("{} doesn't run", self.name()))?
            .signal(signal)
    }
}

/// Which of the members leads, by what those who answer say.
pub(crate) fn leader(members: &[Member], inside: &Inside) -> Option<usize> {
    let addresses: Vec<String> =
        members.iter().map(|member| format!("http://{}", member.address())).collect();
    inside.run(async move { ask_for_leader(&addresses).await }).ok()?
}

async fn ask_for_leader(addresses: &[String]) -> Option<usize> {
    for (place, address) in addresses.iter().enumerate() {
        let Ok(mut client) = Client::connect([address], None).await else { continue };
        let Ok(Ok(status)) = tokio::time::timeout(ANSWER, client.status()).await else { continue };
        let own = status.header().map(|header| header.member_id());
        if status.leader() != 0 && own == Some(status.leader()) {
            return Some(place);
        }
    }
    None
}

fn clean(command: &mut Command) {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETCD_")) {
        command.env_remove(name);
    }
}
