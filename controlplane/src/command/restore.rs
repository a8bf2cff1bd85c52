//! `restore`: a control plane out of a backup file, in an empty store.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use wattle_runtime::{clock, files, shutdown::Shutdown};
use zeroize::Zeroizing;

use super::place::{self, Place};
use crate::{
    authority::CaFiles,
    moving::{
        Moved,
        file::{Backup, Part},
        target::{Occupied, Target},
    },
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
No control plane may be running on the store, and the store must be empty: move an old store.redb \
away first, or have what is there deleted with --replace. The file is read as a whole before anything is written; a damaged one is refused, with the \
place. The restored control plane begins a new epoch: agents come back by themselves, each is sent one \
full set. Machines that joined after the backup was made are unknown to it: their `wattle-agent status` \
says so, and what to do. Nodes, tokens and operators that were deleted or revoked after it are good \
again: end them once more. An interrupted restore is begun again by the same command, and no control \
plane starts on half of one.

Examples:
  wattle-controlplane restore --in /backup/wattle-2026-11-25
  wattle-controlplane restore --in all --with-ca --data-dir /var/lib/wattle/controlplane")]
pub(super) struct Restore {
    /// The file that `backup` wrote
    #[arg(long = "in", value_name = "FILE")]
    file: PathBuf,

    /// Also write the CA's certificate and private key, which the file must hold; nothing that is
    /// there is overwritten
    #[arg(long)]
    with_ca: bool,

    /// Delete what the store holds first, for good
    #[arg(long)]
    replace: bool,

    #[command(flatten)]
    place: Place,
}

impl Restore {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let config = self.place.config()?;
        let backup = Backup::open(&self.file)?;
        ensure!(
            backup.has_ca || !self.with_ca,
            "{} holds no CA: it was made without --with-ca",
            self.file.display()
        );
        let ca = if self.with_ca { Some(BackedUpCa::read(&backup)?) } else { None };
        if let Some(ca) = &ca {
            ca.refuse_another(&config.ca)?;
        }
        let background = Shutdown::new();
        let store = place::fresh(&config, config.store, &background).await?;
        let occupied = if self.replace { Occupied::Replace } else { Occupied::Refuse };
        let named = self.file.display().to_string();
        let target = Target::begin(&*store, occupied, &named, clock::now()).await?;
        if let Some(ca) = &ca {
            ca.write(&config.ca)?;
        }
        let moved = fill(&backup, target).await?;
        place::say(&format!(
            "restored {} records of {}, digest {}; the control plane begins epoch {}",
            moved.target.records,
            backup.header.trust_domain,
            moved.target.hex(),
            moved.epoch
        ))?;
        if !config.ca.key.exists() {
            place::say(&format!(
                "the CA's private key isn't here: put it at {} before `serve`",
                config.ca.key.display()
            ))?;
        }
        Ok(())
    }
}

async fn fill(backup: &Backup, mut target: Target<'_>) -> anyhow::Result<Moved> {
    let mut progress = place::progress("restored");
    for part in backup.parts()? {
        if let Part::Records(records) = part? {
            for record in records {
                target.put(record, &mut progress).await?;
            }
        }
    }
    Ok(target.finish(backup.tally, &mut progress).await?)
}

/// The CA of a backup, whose two files are as it holds them.
struct BackedUpCa {
    certificates: String,
    key: Zeroizing<String>,
}

impl BackedUpCa {
    fn read(backup: &Backup) -> anyhow::Result<Self> {
        let (mut certificates, mut key) = (String::new(), Zeroizing::new(String::new()));
        for part in backup.parts()? {
            match part? {
                Part::Records(_) => {}
                Part::CaCertificates(text) => certificates = text,
                Part::CaKey(text) => key = text,
            }
        }
        Ok(Self { certificates, key })
    }

    fn texts<'a>(&'a self, files: &'a CaFiles) -> [(&'a Path, &'a str); 2] {
        [(&files.certificate, &self.certificates), (&files.key, &self.key)]
    }

    /// Before anything is written: with another CA the restored store would be useless.
    fn refuse_another(&self, files: &CaFiles) -> anyhow::Result<()> {
        for (path, text) in self.texts(files).into_iter().filter(|(path, _)| path.exists()) {
            let same = std::fs::read_to_string(path).is_ok_and(|there| there == text);
            ensure!(
                same,
                "{} is there already, and is another one: move it away, or leave out --with-ca",
                path.display()
            );
        }
        Ok(())
    }

    /// What is there already is the same.
    fn write(&self, files: &CaFiles) -> anyhow::Result<()> {
        for (path, text) in self.texts(files) {
            match files::create_private(path, text.as_bytes()) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                written => written.with_context(|| path.display().to_string())?,
            }
        }
        Ok(())
    }
}
