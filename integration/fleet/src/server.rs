//! The control plane under test: the real program as a child with a data folder of its own, or one
//! that runs already.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};
use wattle_runtime::credential::OperatorCredential;

use crate::{pages, several::Several};

/// How long it may take to say where it listens.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to end.
const FAREWELL: Duration = Duration::from_secs(20);

/// A control plane.
#[derive(Debug)]
pub(crate) enum Server {
    /// Started here, with a store of its own.
    Own(Box<Own>),
    /// Several replicas that were started here.
    Several(Box<Several>),
    /// Somebody else's.
    Other(Box<OperatorCredential>),
}

/// A child and its folder. Dropped, the child is killed and the folder removed.
#[derive(Debug)]
pub(crate) struct Own {
    child: Child,
    credential: OperatorCredential,
    folder: TempDir,
}

impl Server {
    /// Starts `program`.
    pub(crate) async fn start(program: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("wattle-fleet-").tempdir()?;
        let data = folder.path().join("data");
        let arguments = ["--listen", "127.0.0.1:0"].map(str::to_owned);
        let child = serve(program, &data, &folder.path().join("log"), &arguments).await?;
        let credential = OperatorCredential::load(&data.join("operator.json"))?;
        Ok(Self::Own(Box::new(Own { child, credential, folder })))
    }

    /// Starts so many replicas over an etcd.
    pub(crate) async fn start_several(program: &Path, replicas: usize) -> Result<Self> {
        Ok(Self::Several(Box::new(Several::start(program, replicas).await?)))
    }

    /// The replicas, where there are several.
    pub(crate) fn several(&mut self) -> Result<&mut Several> {
        match self {
            Self::Several(several) => Ok(several),
            _ => bail!("this takes several replicas: say --replicas 3"),
        }
    }

    /// Who may tell it what to do.
    pub(crate) fn credential(&self) -> &OperatorCredential {
        match self {
            Self::Own(own) => &own.credential,
            Self::Several(several) => several.credential(),
            Self::Other(credential) => credential,
        }
    }

    /// What it uses, where it can be seen from here.
    pub(crate) fn usage(&self) -> Result<Option<Usage>> {
        match self {
            Self::Own(own) => Usage::of(own.child.id().context("it has ended")?).map(Some),
            Self::Several(several) => several.usage().map(Some),
            Self::Other(_) => Ok(None),
        }
    }

    /// Whether it was started here.
    pub(crate) const fn is_own(&self) -> bool {
        !matches!(self, Self::Other(_))
    }

    /// Ends it. What it logged as ERROR fails the run.
    pub(crate) async fn end(self) -> Result<()> {
        match self {
            Self::Own(mut own) => {
                terminate(&mut own.child).await?;
                no_errors(&own.folder.path().join("log"))
            }
            Self::Several(several) => several.end().await,
            Self::Other(_) => Ok(()),
        }
    }
}

/// Starts a control plane and waits until it says where it is.
pub(crate) async fn serve(
    program: &Path,
    data: &Path,
    log: &Path,
    arguments: &[String],
) -> Result<Child> {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WATTLE_")) {
        command.env_remove(name);
    }
    let mut child = command
        .args(["serve", "--drain-grace", "5s", "--data-dir"])
        .arg(data)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::options().create(true).append(true).open(log)?)
        .envs(pages::large())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    let out = child.stdout.take().context("it has an output")?;
    let mut lines = BufReader::new(out).lines();
    let first = timeout(PATIENCE, lines.next_line()).await.context("it says nothing")??;
    if first.is_none() {
        bail!("the control plane ended: {}", tail(log));
    }
    Ok(child)
}

/// SIGTERM, and its end.
pub(crate) async fn terminate(child: &mut Child) -> Result<()> {
    if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()) {
        let pid = rustix::process::Pid::from_raw(pid).context("it has an id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    }
    if timeout(FAREWELL, child.wait()).await.is_err() {
        child.kill().await?;
    }
    Ok(())
}

/// Fails where a log says ERROR.
pub(crate) fn no_errors(log: &Path) -> Result<()> {
    let log = fs::read_to_string(log).unwrap_or_default();
    let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).take(5).collect();
    if !errors.is_empty() {
        bail!("the control plane logged errors:\n{}", errors.join("\n"));
    }
    Ok(())
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// The control plane's binary: the one named, or the one beside this program.
pub(crate) fn program(named: Option<PathBuf>) -> Result<PathBuf> {
    let path = match named {
        Some(path) => path,
        None => {
            let here = std::env::current_exe()?;
            here.parent().context("a program is in a folder")?.join("wattle-controlplane")
        }
    };
    if !path.is_file() {
        bail!(
            "{} isn't there: build it with `cargo build --release -p wattle-controlplane`, name \
             it with --server, or take a control plane that runs already with --context",
            path.display()
        );
    }
    Ok(path)
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) rss_kb: u64,
    pub(crate) cpu_micros: u64,
}

impl Usage {
    /// What this process has used.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| path.clone())
        };
        let status = read("status")?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss = rss.and_then(|rss| rss.trim().strip_suffix(" kB")?.trim().parse().ok());
        let stat = read("stat")?;
        // Behind the name, which may hold anything: state, ..., utime and stime.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace());
        let times = fields.map(|fields| fields.skip(11).take(2).flat_map(str::parse::<u64>).sum());
        let ticks: u64 = times.context("/proc/PID/stat")?;
        Ok(Self {
            rss_kb: rss.context("/proc/PID/status has no VmRSS")?,
            cpu_micros: ticks * 1_000_000 / rustix::param::clock_ticks_per_second(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_used_something() {
        let begin = std::time::Instant::now();
        let mut x = 1_u64;
        while begin.elapsed() < Duration::from_millis(100) {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.rss_kb > 1000 && usage.cpu_micros >= 50_000, "{usage:?}");
        Usage::of(u32::MAX).unwrap_err();
    }

    #[test]
    fn a_missing_binary_says_how_to_get_one() {
        let error = program(Some("/nowhere/at/all".into())).unwrap_err().to_string();
        for part in ["/nowhere/at/all", "cargo build --release", "--server", "--context"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
