//! `ca init`.

use anyhow::{Context as _, ensure};
use wattle_certs::{Ca, TrustDomain};
use wattle_runtime::{clock, files};

use super::super::place::{self, Place};
use crate::{app, authority::CaFiles, beginning::UNUSED_CA, cluster::random_trust_domain};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A control plane with an embedded store makes its own CA at its first start; this is for what is \
started in several places at once. Give both files to every replica (--ca-cert, --ca-key): a secret's \
mount will do, replicas only read them. Start the first one within an hour, or say `store init` once. \
Nothing is overwritten.

Examples:
  wattle-controlplane ca init --ca-cert ca.crt --ca-key ca.key
  kubectl create secret generic wattle-ca --from-file=ca.crt --from-file=ca.key")]
pub(in crate::command) struct Init {
    /// The name in every certificate, for good; a random one where none is given
    #[arg(long, value_name = "NAME")]
    trust_domain: Option<TrustDomain>,

    #[command(flatten)]
    place: Place,
}

impl Init {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let config = self.place.config()?;
        let files = &config.ca;
        for path in [&files.certificate, &files.key] {
            ensure!(!path.exists(), "{} exists and is not overwritten", path.display());
        }
        let own = *files == CaFiles::of(&config.data_dir);
        if own {
            app::make_data_dir(&config.data_dir)?;
        }
        let trust_domain = self.trust_domain.unwrap_or_else(random_trust_domain);
        let ca = Ca::generate(&trust_domain, clock::now());
        if own {
            // Otherwise a CA without a store would pass for one whose store was lost.
            let unused = config.data_dir.join(UNUSED_CA);
            files::write_private(&unused, b"").with_context(|| unused.display().to_string())?;
        }
        files.create(&ca)?;
        place::say(&format!(
            "trust domain  {trust_domain}\npin           {}\ncertificate   {}\nprivate key   {}: \
             whoever has it is the control plane",
            ca.pin(),
            files.certificate.display(),
            files.key.display()
        ))
    }
}
