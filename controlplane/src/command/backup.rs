//! `backup`: one file from which a control plane can be made again. A running control plane reads its
//! own store; without one, the store is read here.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use wattle_model::{Epoch, Revision};
use wattle_proto::admin::{
    BackupEnd, BackupHeader, BackupRecord, BackupRequest, backup_response::Part,
};
use wattle_runtime::shutdown::Shutdown;
use zeroize::Zeroizing;

use super::place::{self, Place};
use crate::{
    authority::CaFiles,
    config::Config,
    moving::{
        Record,
        content::Tally,
        file::{Ca, Writer},
        source::{Header, Source},
    },
    store::Key,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The file (mode 0600, never overwritten, there only once it is whole) holds what the store says at one \
revision: networks, nodes, policies, tokens (hashed), operators. It doesn't hold the CA's private key, \
without which no replica starts: keep a copy of that apart, or add it with --with-ca and guard the \
file like the key.

Examples:
  wattle-controlplane backup --out /backup/wattle-$(date +%F)
  wattle-controlplane backup --out all --with-ca")]
pub(super) struct Backup {
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Also the CA's certificate and private key
    #[arg(long)]
    with_ca: bool,

    #[command(flatten)]
    place: Place,
}

impl Backup {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let config = self.place.config()?;
        let ca = if self.with_ca { Some(read_ca(&config.ca)?) } else { None };
        let revision_and_tally = match place::running(&config).await {
            Ok(mut admin) => {
                let request = BackupRequest {};
                let answer = admin.backup(request).await.map_err(|s| place::refused(&s))?;
                from_running(answer.into_inner(), &self.out, ca).await?
            }
            Err(_) => from_store(&config, &self.out, ca).await?,
        };
        let (revision, tally) = revision_and_tally;
        place::say(&format!(
            "{}: {} records at revision {revision}, digest {}{}",
            self.out.display(),
            tally.records,
            tally.hex(),
            if self.with_ca {
                "; with the CA's private key"
            } else {
                "; without the CA's private key: keep a copy of it apart"
            }
        ))
    }
}

fn read_ca(files: &CaFiles) -> anyhow::Result<Ca> {
    // Read as a whole first: what makes no authority helps nobody later.
    files.read()?.with_context(|| format!("{}: no such file", files.key.display()))?;
    let read =
        |path: &Path| std::fs::read_to_string(path).with_context(|| path.display().to_string());
    Ok(Ca { certificates: read(&files.certificate)?, key: Zeroizing::new(read(&files.key)?) })
}

async fn from_store(
    config: &Config,
    out: &Path,
    ca: Option<Ca>,
) -> anyhow::Result<(Revision, Tally)> {
    let store = place::existing(config, config.store, &Shutdown::new()).await?;
    let mut source = Source::open(&*store).await?;
    let mut writer = Writer::create(out, &source.header)?;
    let mut progress = place::progress("saved");
    let mut records = 0;
    while let Some(record) = source.next().await? {
        writer.record(&record)?;
        records += 1;
        progress(records);
    }
    let revision = source.header.revision;
    end(writer, ca, source.tally()).map(|tally| (revision, tally))
}

async fn from_running(
    mut parts: tonic::Streaming<wattle_proto::admin::BackupResponse>,
    out: &Path,
    ca: Option<Ca>,
) -> anyhow::Result<(Revision, Tally)> {
    let mut next = async || -> anyhow::Result<Part> {
        let message = parts.message().await.map_err(|status| place::refused(&status))?;
        let part = message.and_then(|message| message.part);
        part.context("the control plane ended the backup before its end: make it again")
    };
    let Part::Header(header) = next().await? else { bail!("the backup begins without a header") };
    let header = read_header(header)?;
    let mut writer = Writer::create(out, &header)?;
    let (mut progress, mut saved) = (place::progress("saved"), 0);
    loop {
        match next().await? {
            Part::Header(_) => bail!("the backup has two headers"),
            Part::Records(records) => {
                saved += records.records.len() as u64;
                for BackupRecord { key, value } in records.records {
                    writer.record(&Record { key: Key::new(key), value })?;
                }
                progress(saved);
            }
            Part::End(BackupEnd { records, digest }) => {
                let digest = digest.as_ref().try_into().context("the backup's digest")?;
                let tally = end(writer, ca, Tally { records, digest })?;
                return Ok((header.revision, tally));
            }
        }
    }
}

fn read_header(header: BackupHeader) -> anyhow::Result<Header> {
    Ok(Header {
        epoch: Epoch::try_from(header.epoch.as_ref()).context("the backup's epoch")?,
        revision: Revision(header.revision),
        trust_domain: header.trust_domain,
    })
}

fn end(mut writer: Writer, ca: Option<Ca>, sent: Tally) -> anyhow::Result<Tally> {
    if let Some(ca) = &ca {
        writer.ca(ca)?;
    }
    Ok(writer.finish(sent)?)
}
