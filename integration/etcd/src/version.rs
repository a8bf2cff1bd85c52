//! Which etcd is run, and where its program is.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

/// A version of etcd that is supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Debian's: the oldest one.
    V34,
    /// The recommended one.
    V36,
}

impl Version {
    /// Its program; an error says how to get it.
    pub fn program(self) -> Result<PathBuf> {
        match self {
            Self::V34 => {
                let said = Command::new("etcd").arg("--version").output();
                let said = said.context("etcd 3.4 is missing: run `scripts/tools.sh etcd`")?;
                let said = String::from_utf8_lossy(&said.stdout).into_owned();
                if !said.contains("etcd Version: 3.4.") {
                    bail!("`etcd` isn't Debian's 3.4 but {:?}", said.lines().next());
                }
                Ok("etcd".into())
            }
            Self::V36 => {
                let path = PathBuf::from(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/../../target/tools/bin/etcd-3.6"
                ));
                if !path.exists() {
                    bail!("{} is missing: run `scripts/tools.sh etcd`", path.display());
                }
                Ok(path)
            }
        }
    }
}
