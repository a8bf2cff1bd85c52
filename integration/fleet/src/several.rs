//! Several replicas over an etcd of three members, all of them started here.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tokio::process::Child;
use wattle_etcd::{EtcdCluster, Version, free_addresses};
use wattle_runtime::credential::OperatorCredential;

use crate::server::{Usage, no_errors, serve, terminate};

/// Members of etcd.
const MEMBERS: usize = 3;

/// The replicas. Dropped, all is killed and removed.
#[derive(Debug)]
pub(crate) struct Several {
    program: PathBuf,
    replicas: Vec<Replica>,
    credential: OperatorCredential,
    arguments: Vec<String>,
    _etcd: EtcdCluster,
    folder: TempDir,
}

#[derive(Debug)]
struct Replica {
    address: String,
    child: Option<Child>,
    /// What its processes used that have ended.
    spent_micros: u64,
}

impl Several {
    /// Starts members and replicas; the first one makes the control plane.
    pub(crate) async fn start(program: &Path, count: usize) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("wattle-fleet-").tempdir()?;
        let etcd = EtcdCluster::start(Version::V36, MEMBERS)?;
        let addresses = free_addresses(count)?;
        let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
        let own = ["--store", "etcd", "--etcd-endpoints", &etcd.urls().join(",")];
        let arguments: Vec<String> = own.into_iter().map(str::to_owned).collect();
        let replica = |address| Replica { address, child: None, spent_micros: 0 };
        let mut replicas: Vec<_> = addresses.iter().cloned().map(replica).collect();
        replicas[0].start(program, &arguments, folder.path(), 0).await?;
        let first = data(folder.path(), 0);
        let mut credential = OperatorCredential::load(&first.join("operator.json"))?;
        credential.control_planes = addresses;
        for (number, replica) in replicas.iter_mut().enumerate().skip(1) {
            let data = data(folder.path(), number);
            fs::create_dir_all(&data)?;
            for file in ["ca.crt", "ca.key"] {
                fs::copy(first.join(file), data.join(file))?;
            }
            replica.start(program, &arguments, folder.path(), number).await?;
        }
        let program = program.to_owned();
        Ok(Self { program, replicas, credential, arguments, _etcd: etcd, folder })
    }

    /// Who may tell them what to do.
    pub(crate) const fn credential(&self) -> &OperatorCredential {
        &self.credential
    }

    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.replicas.len()
    }

    /// What they use together; processor time with that of their processes that have ended.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let mut all = Usage { rss_kb: 0, cpu_micros: 0 };
        for replica in &self.replicas {
            all.cpu_micros += replica.spent_micros;
            if let Some(usage) = replica.usage()? {
                all.rss_kb += usage.rss_kb;
                all.cpu_micros += usage.cpu_micros;
            }
        }
        Ok(all)
    }

    /// Stops one in order.
    pub(crate) async fn stop(&mut self, number: usize) -> Result<()> {
        let replica = &mut self.replicas[number];
        replica.note_spent()?;
        match replica.child.take() {
            Some(mut child) => terminate(&mut child).await,
            None => Ok(()),
        }
    }

    /// kill -9.
    pub(crate) async fn kill(&mut self, number: usize) -> Result<()> {
        let replica = &mut self.replicas[number];
        replica.note_spent()?;
        match replica.child.take() {
            Some(mut child) => Ok(child.kill().await?),
            None => Ok(()),
        }
    }

    /// Starts one again, on what it had.
    pub(crate) async fn start_again(&mut self, number: usize) -> Result<()> {
        let replica = &mut self.replicas[number];
        replica.start(&self.program, &self.arguments, self.folder.path(), number).await
    }

    /// Ends them. What they logged as ERROR fails the run.
    pub(crate) async fn end(mut self) -> Result<()> {
        for number in 0..self.len() {
            self.stop(number).await?;
        }
        (0..self.len()).try_for_each(|number| no_errors(&log(self.folder.path(), number)))
    }
}

impl Replica {
    async fn start(
        &mut self,
        program: &Path,
        arguments: &[String],
        folder: &Path,
        number: usize,
    ) -> Result<()> {
        let own = ["--listen", &self.address, "--advertise", &self.address];
        let own = own.into_iter().map(str::to_owned);
        let arguments: Vec<String> = arguments.iter().cloned().chain(own).collect();
        let (data, log) = (data(folder, number), log(folder, number));
        self.child = Some(serve(program, &data, &log, &arguments).await?);
        Ok(())
    }

    fn usage(&self) -> Result<Option<Usage>> {
        let Some(child) = &self.child else { return Ok(None) };
        Usage::of(child.id().context("a replica has ended")?).map(Some)
    }

    fn note_spent(&mut self) -> Result<()> {
        self.spent_micros += self.usage()?.map_or(0, |usage| usage.cpu_micros);
        Ok(())
    }
}

fn data(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("replica-{number}"))
}

fn log(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("replica-{number}.log"))
}
