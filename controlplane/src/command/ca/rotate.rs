//! `ca rotate`. Each step can be given again: what is done already is left as it is.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;
use wattle_certs::{Ca, certificate_to_pem};
use wattle_model::Fingerprint;
use wattle_proto::admin::{
    GetCaRequest, GetCaResponse, RetireRootsRequest, TrustRootRequest,
    admin_service_client::AdminServiceClient,
};
use wattle_runtime::{clock, files};

use super::{
    super::place::{self, Place},
    show::Stage,
};
use crate::{authority::CaFiles, config::Config};

/// How long a running replica may take to notice its new key.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Nobody is cut off, and no step waits for a certificate to run out:

  1. wattle-controlplane ca rotate
     makes a new root (ca-next.crt, ca-next.key) that the old one vouches for. Every replica and
     every agent trusts both from then on.
  2. wattle-controlplane ca rotate --switch
     puts the new key in the old one's place, and keeps the old one beside it. Where replicas read
     the key from a mounted secret, put ca-next.crt and ca-next.key there instead. Agents get
     certificates of the new root by themselves within minutes; operators with `wattle operator
     renew`. Join tokens made before go on working.
  3. wattle-controlplane ca rotate --finish
     ends the trust in the old root, once nobody has a certificate of it: until then it says who.

`wattle-controlplane ca show` says at any time where a rotation stands. Until step 2 it can be
given up, where the new key was lost for instance: `ca rotate --abort`. After step 2, finish it and
begin another one. Make a backup afterwards: an older one knows the old root alone.")]
pub(in crate::command) struct Rotate {
    /// Step 2: put the new key in the old one's place
    #[arg(long, group = "step")]
    switch: bool,

    /// Step 3: end the trust in the old root
    #[arg(long, group = "step")]
    finish: bool,

    /// Instead of step 2: give the rotation up, and delete the new root's files
    #[arg(long, group = "step")]
    abort: bool,

    /// With --finish, also while somebody has a certificate of the old root: agents then get a new one
    /// with their key when they come back, operators have to be made anew
    #[arg(long, requires = "finish")]
    force: bool,

    /// Where the new root's files are, ca-next.crt and ca-next.key [default: the CA key's folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    #[command(flatten)]
    place: Place,
}

impl Rotate {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let config = self.place.config()?;
        let mut admin = place::running(&config).await?;
        let present = ca(&mut admin).await?;
        let folder = self.out.clone().unwrap_or_else(|| folder_of(&config.ca.key));
        let next =
            CaFiles { certificate: folder.join("ca-next.crt"), key: folder.join("ca-next.key") };
        if self.switch {
            switch(&mut admin, &present, &config, &next).await
        } else if self.finish {
            finish(&mut admin, self.force).await
        } else if self.abort {
            abort(&mut admin, &next).await
        } else {
            begin(&mut admin, &present, &config, &next).await
        }
    }
}

async fn ca(admin: &mut AdminServiceClient<Channel>) -> anyhow::Result<GetCaResponse> {
    let answer = admin.get_ca(GetCaRequest {}).await;
    Ok(answer.map_err(|status| place::refused(&status))?.into_inner())
}

/// Step 1. The files come first: whatever is interrupted after them goes on with them.
async fn begin(
    admin: &mut AdminServiceClient<Channel>,
    present: &GetCaResponse,
    config: &Config,
    next: &CaFiles,
) -> anyhow::Result<()> {
    let stage = Stage::of(present);
    if stage != Stage::None {
        return place::say(&stage.next(present.behind_count));
    }
    let old = config.ca.read()?;
    let old = old.with_context(|| format!("{}: no such file", config.ca.key.display()))?;
    let signs = present.roots.iter().find(|root| root.signs);
    ensure!(
        signs.is_some_and(|root| root.pin == old.pin().as_bytes().as_slice()),
        "{} is not the key of the root that signs",
        config.ca.key.display()
    );
    let new = match next.read()? {
        Some(new) if new.pin() == old.pin() => {
            bail!("{} is the present key: move it away", next.key.display())
        }
        Some(new) => new,
        None => {
            let trust_domain = present.trust_domain.parse().context("the trust domain")?;
            let new = Ca::generate(&trust_domain, clock::now());
            next.create(&new).context("choose another folder with --out")?;
            new
        }
    };
    let cross = old.cross_sign(new.certificate(), clock::now())?;
    let request = TrustRootRequest {
        request_id: Bytes::copy_from_slice(&rand::random::<[u8; 16]>()),
        certificate: Bytes::copy_from_slice(new.certificate()),
        cross_certificate: Bytes::copy_from_slice(&cross),
    };
    admin.trust_root(request).await.map_err(|status| place::refused(&status))?;
    place::say(&format!(
        "new root {} in {} and {}\n{}",
        new.pin(),
        next.certificate.display(),
        next.key.display(),
        Stage::Trusted.next(0)
    ))
}

/// Step 2. The old files are kept under their root's name; then the certificates, then the key: with
/// either key the replica starts.
async fn switch(
    admin: &mut AdminServiceClient<Channel>,
    present: &GetCaResponse,
    config: &Config,
    next: &CaFiles,
) -> anyhow::Result<()> {
    let newest = present.roots.iter().rfind(|root| root.trusted);
    let newest = newest.context("the control plane has no root")?;
    let newest = Fingerprint::try_from(newest.pin.as_ref()).context("the new root's pin")?;
    ensure!(Stage::of(present) != Stage::None, "no rotation is under way: begin with `ca rotate`");
    let here = config.ca.read()?;
    let here = here.with_context(|| format!("{}: no such file", config.ca.key.display()))?;
    if here.pin() != newest {
        let new = next.read()?.filter(|new| new.pin() == newest);
        let new = new.with_context(|| {
            format!(
                "{} is not the new root's key: say where it is with --out, or give the rotation up \
                 with --abort",
                next.key.display()
            )
        })?;
        put(&here, &new, &config.ca)?;
    }
    // Where they were moved by hand, there are none.
    if next.read().is_ok_and(|next| next.is_some_and(|next| next.pin() == newest)) {
        next.discard();
    }
    let deadline = Instant::now() + NOTICED_WITHIN;
    loop {
        let now = ca(admin).await?;
        let signs = now.roots.iter().find(|root| root.replica_signs);
        let told = Stage::of(&now) == Stage::Signing;
        if told && signs.is_some_and(|root| root.pin == newest.as_bytes().as_slice()) {
            return place::say(&Stage::Signing.next(now.behind_count));
        }
        ensure!(
            Instant::now() < deadline,
            "the key is in place, and the replica hasn't taken it up: see its log"
        );
        sleep(Duration::from_millis(200)).await;
    }
}

fn put(old: &Ca, new: &Ca, ca: &CaFiles) -> anyhow::Result<()> {
    let name = &old.pin().to_string()[..8];
    let kept = |path: &Path, ending| path.with_file_name(format!("ca-{name}.{ending}"));
    let write = |path: &Path, text: &str| {
        let written = files::write_private(path, text.as_bytes());
        written.with_context(|| {
            format!(
                "{}: where the CA is a mounted secret, put the new root's files there instead",
                path.display()
            )
        })
    };
    let own = certificate_to_pem(old.certificate());
    write(&kept(&ca.certificate, "crt"), &own)?;
    write(&kept(&ca.key, "key"), &old.key_pem())?;
    write(&ca.certificate, &[certificate_to_pem(new.certificate()), own].concat())?;
    write(&ca.key, &new.key_pem())
}

/// Step 3.
async fn finish(admin: &mut AdminServiceClient<Channel>, force: bool) -> anyhow::Result<()> {
    if retire(admin, RetireRootsRequest { force, ..Default::default() }).await?.is_empty() {
        return place::say(&Stage::None.next(0));
    }
    place::say("make a backup: an older one knows the old root alone")
}

/// Instead of step 2. The files go last, and only those of a root that was given up.
async fn abort(admin: &mut AdminServiceClient<Channel>, next: &CaFiles) -> anyhow::Result<()> {
    let given_up = retire(admin, RetireRootsRequest { newer: true, ..Default::default() }).await?;
    if given_up.is_empty() {
        return place::say(&Stage::None.next(0));
    }
    let of_it = |next: Ca| given_up.contains(&Bytes::copy_from_slice(next.pin().as_bytes()));
    if next.read().is_ok_and(|next| next.is_some_and(of_it)) {
        next.discard();
    }
    place::say("the rotation is given up; begin another one with `ca rotate`")
}

/// Ends the trust in some roots, and says which.
async fn retire(
    admin: &mut AdminServiceClient<Channel>,
    request: RetireRootsRequest,
) -> anyhow::Result<Vec<Bytes>> {
    let request_id = Bytes::copy_from_slice(&rand::random::<[u8; 16]>());
    let answer = admin.retire_roots(RetireRootsRequest { request_id, ..request }).await;
    let retired = answer.map_err(|status| place::refused(&status))?.into_inner().retired_pins;
    for pin in &retired {
        place::say(&format!("root {} is no longer trusted", hex::encode(pin)))?;
    }
    Ok(retired)
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new(".")).to_owned()
}
