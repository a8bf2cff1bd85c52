//! A cluster of members.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::{Member, Version};

/// Within which members must be there, and agree on a leader.
const START_WITHIN: Duration = Duration::from_secs(30);

/// PEM files: members show the certificate, and demand one of the CA from clients.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The CA of both sides.
    pub ca: PathBuf,
    /// The members' certificate, good for 127.0.0.1.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Members of one etcd. Dropped, they are killed and their data is gone.
#[derive(Debug)]
pub struct EtcdCluster {
    program: PathBuf,
    arguments: Vec<String>,
    members: Vec<Member>,
    _folder: TempDir,
}

impl EtcdCluster {
    /// Starts so many members and waits until they are healthy.
    pub fn start(version: Version, members: usize) -> Result<Self> {
        Self::start_with(version, members, None, &[])
    }

    /// As [`EtcdCluster::start`], with TLS for clients and more arguments for every member.
    pub fn start_with(
        version: Version,
        members: usize,
        tls: Option<&Tls>,
        arguments: &[&str],
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let make = |n| {
            let place = folder.path().join(n_name(n));
            fs::create_dir(&place)?;
            Member::new(n_name(n), place, tls.cloned())
        };
        let members = (0..members).map(make).collect::<Result<Vec<_>>>()?;
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut cluster = Self { program: version.program()?, arguments, members, _folder: folder };
        for n in 0..cluster.members.len() {
            cluster.run(n)?;
        }
        cluster.wait_until_healthy()?;
        Ok(cluster)
    }

    /// The client URLs of all members.
    pub fn urls(&self) -> Vec<String> {
        self.members.iter().map(Member::url).collect()
    }

    /// How many there are, running or not.
    pub const fn len(&self) -> usize {
        self.members.len()
    }

    /// There is always one.
    pub const fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A member.
    pub fn member(&self, n: usize) -> &Member {
        &self.members[n]
    }

    /// A member, to be killed.
    pub fn member_mut(&mut self, n: usize) -> &mut Member {
        &mut self.members[n]
    }

    /// Runs a member that was killed, on its old data. Doesn't wait.
    pub fn run(&mut self, n: usize) -> Result<()> {
        let peers = self.members.iter().map(|m| format!("{}=http://{}", m.name, m.peer));
        let peers = peers.collect::<Vec<_>>().join(",");
        let program = self.program.clone();
        self.members[n].start(&program, &peers, &self.arguments)
    }

    /// Copies a member's data, which must not run, to a folder that isn't there.
    pub fn save(&self, n: usize, folder: &Path) -> Result<()> {
        copy(&self.members[n].data()?, folder)
    }

    /// Gives a member, which must not run, the data that was saved; none where `folder` is `None`.
    pub fn put_back(&self, n: usize, folder: Option<&Path>) -> Result<()> {
        let data = self.members[n].data()?;
        fs::remove_dir_all(&data)?;
        folder.map_or(Ok(()), |folder| copy(folder, &data))
    }

    /// Waits until every member that runs is healthy.
    pub fn wait_until_healthy(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_WITHIN;
        loop {
            for member in &mut self.members {
                member.check_running()?;
            }
            let mut running = self.members.iter().filter(|member| member.pid().is_some());
            if running.all(Member::is_healthy) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let logs: Vec<_> = self.members.iter().map(Member::tail).collect();
                bail!("etcd isn't healthy after {START_WITHIN:?}:\n{}", logs.join("\n\n"));
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// The member that leads, once there is one.
    pub fn leader(&self) -> Result<usize> {
        let deadline = Instant::now() + START_WITHIN;
        while Instant::now() < deadline {
            if let Some(n) = self.members.iter().position(Member::leads) {
                return Ok(n);
            }
            sleep(Duration::from_millis(50));
        }
        None.context("no member leads")
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn n_name(n: usize) -> String {
    format!("etcd-{n}")
}
