//! One member: a process, its ports and its data.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{cluster::Tls, ports::free_addresses};

/// A member, running or not.
#[derive(Debug)]
pub struct Member {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) client: SocketAddr,
    pub(crate) peer: SocketAddr,
    /// Plain HTTP, whatever clients speak.
    metrics: SocketAddr,
    tls: Option<Tls>,
    child: Option<Child>,
}

impl Member {
    pub(crate) fn new(name: String, folder: PathBuf, tls: Option<Tls>) -> Result<Self> {
        let free = free_addresses(3)?;
        let [client, peer, metrics] = [free[0], free[1], free[2]];
        Ok(Self { name, folder, client, peer, metrics, tls, child: None })
    }

    /// Its client URL.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.client)
    }

    /// Where it listens for clients.
    pub const fn address(&self) -> SocketAddr {
        self.client
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Runs it on what data it has.
    pub(crate) fn start(
        &mut self,
        program: &PathBuf,
        cluster: &str,
        arguments: &[String],
    ) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(self.log())?;
        let peer = format!("http://{}", self.peer);
        let mut command = Command::new(program);
        command
            .args(["--name", &self.name])
            .arg("--data-dir")
            .arg(self.folder.join("data"))
            .args(["--listen-client-urls", &self.url(), "--advertise-client-urls", &self.url()])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", cluster, "--initial-cluster-state", "new"])
            .args(["--listen-metrics-urls", &format!("http://{}", self.metrics)])
            .args(["--logger", "zap", "--log-level", "warn"])
            .args(arguments);
        if let Some(tls) = &self.tls {
            command.arg("--cert-file").arg(&tls.certificate).arg("--key-file").arg(&tls.key);
            command.arg("--trusted-ca-file").arg(&tls.ca).arg("--client-cert-auth");
        }
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        self.child = Some(child.with_context(|| format!("starting {}", program.display()))?);
        Ok(())
    }

    /// Where its data is, while it doesn't run.
    pub(crate) fn data(&self) -> Result<PathBuf> {
        ensure!(self.child.is_none(), "{} runs: its data isn't at rest", self.name);
        Ok(self.folder.join("data"))
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it doesn't run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Stops it where it is: it answers nothing, and its connections stay.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.pid().context("it doesn't run")?)?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// Fails, with the end of its log, where it has ended by itself.
    pub(crate) fn check_running(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        match child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}):\n{}", self.name, self.tail()),
        }
    }

    /// It has a leader, and answers.
    pub fn is_healthy(&self) -> bool {
        self.http("/health").is_ok_and(|body| body.contains("\"health\":\"true\""))
    }

    /// It is the leader.
    pub fn leads(&self) -> bool {
        self.http("/metrics").is_ok_and(|body| body.contains("\netcd_server_is_leader 1"))
    }

    fn http(&self, path: &str) -> Result<String> {
        let patience = Duration::from_secs(1);
        let mut stream = TcpStream::connect_timeout(&self.metrics, patience)?;
        stream.set_read_timeout(Some(patience))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: etcd\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// The end of what it has written.
    pub fn tail(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        // What it answers to our own questions says nothing.
        let lines: Vec<_> = text.lines().filter(|line| !line.contains("/health")).collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }
}

impl Drop for Member {
    #[expect(clippy::print_stderr, reason = "tests talk to a person")]
    fn drop(&mut self) {
        if std::thread::panicking() && self.child.is_some() {
            eprintln!("\n{} wrote last:\n{}", self.name, self.tail());
        }
        if let Some(mut child) = self.child.take() {
            // Errors mean that it has ended already. A frozen one dies of this, too.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
