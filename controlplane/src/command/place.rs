//! Where a control plane is, for the commands that look for it: a running one behind its local socket,
//! or its store and the CA's files.

use std::{
    io::{Write as _, stderr, stdout},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use tonic::transport::Channel;
use wattle_proto::admin::admin_service_client::AdminServiceClient;
use wattle_runtime::{dial, shutdown::Shutdown};

use crate::{
    app,
    config::{Config, Settings, StoreChoice},
    store::{
        Store,
        etcd::{EtcdAddress, EtcdPrefix},
    },
};

/// How often a long piece of work says how far it is.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// The settings that `serve` has, as far as they say where things are.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Place {
    /// The TOML file that `serve` is given
    #[arg(long, env = "WATTLE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// The control plane's data directory [default: /var/lib/wattle/controlplane]
    #[arg(long, env = "WATTLE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// The CA's certificate [default: ca.crt in the data directory]
    #[arg(long, env = "WATTLE_CA_CERT", value_name = "FILE")]
    ca_cert: Option<PathBuf>,

    /// The CA's private key [default: ca.key in the data directory]
    #[arg(long, env = "WATTLE_CA_KEY", value_name = "FILE")]
    ca_key: Option<PathBuf>,

    /// The local socket of a running control plane [default: admin.sock in the data directory]
    #[arg(long, env = "WATTLE_ADMIN_SOCKET", value_name = "FILE")]
    admin_socket: Option<PathBuf>,

    /// What keeps the state: embedded or etcd [default: embedded]
    #[arg(long, env = "WATTLE_STORE", value_name = "STORE")]
    store: Option<StoreChoice>,

    /// The client URLs of etcd's members
    #[arg(long, env = "WATTLE_ETCD_ENDPOINTS", value_name = "URL", value_delimiter = ',')]
    etcd_endpoints: Option<Vec<EtcdAddress>>,

    /// What every key in etcd begins with
    #[arg(long, env = "WATTLE_ETCD_PREFIX", value_name = "PREFIX")]
    etcd_prefix: Option<EtcdPrefix>,

    /// PEM file of the CA that signed etcd's certificates
    #[arg(long, env = "WATTLE_ETCD_CA", value_name = "FILE")]
    etcd_ca: Option<PathBuf>,

    /// PEM file of the certificate that is shown to etcd
    #[arg(long, env = "WATTLE_ETCD_CERT", value_name = "FILE")]
    etcd_cert: Option<PathBuf>,

    /// PEM file of that certificate's private key
    #[arg(long, env = "WATTLE_ETCD_KEY", value_name = "FILE")]
    etcd_key: Option<PathBuf>,

    /// The user, where etcd asks for one
    #[arg(long, env = "WATTLE_ETCD_USER", value_name = "NAME")]
    etcd_user: Option<String>,

    /// A file with the user's password
    #[arg(long, env = "WATTLE_ETCD_PASSWORD_FILE", value_name = "FILE")]
    etcd_password_file: Option<PathBuf>,
}

impl Place {
    /// What `serve` would go by.
    pub(super) fn config(&self) -> anyhow::Result<Config> {
        self.config_with(self.store)
    }

    /// The same with this store.
    pub(super) fn config_with(&self, store: Option<StoreChoice>) -> anyhow::Result<Config> {
        let settings = Settings {
            store,
            etcd_endpoints: self.etcd_endpoints.clone(),
            etcd_prefix: self.etcd_prefix.clone(),
            etcd_ca: self.etcd_ca.clone(),
            etcd_cert: self.etcd_cert.clone(),
            etcd_key: self.etcd_key.clone(),
            etcd_user: self.etcd_user.clone(),
            etcd_password_file: self.etcd_password_file.clone(),
            data_dir: self.data_dir.clone(),
            ca_cert: self.ca_cert.clone(),
            ca_key: self.ca_key.clone(),
            admin_socket: self.admin_socket.clone(),
            ..Settings::default()
        };
        settings.check(self.config.as_deref())
    }
}

/// The admin service of a running control plane on this machine.
pub(super) async fn running(config: &Config) -> anyhow::Result<AdminServiceClient<Channel>> {
    let socket = &config.admin_socket;
    let channel = dial::unix(socket).await.with_context(|| {
        format!(
            "no control plane answers on {}: start it with `wattle-controlplane serve`, or say its \
             --data-dir",
            socket.display()
        )
    })?;
    Ok(AdminServiceClient::new(channel))
}

/// A store that must be there already.
pub(super) async fn existing(
    config: &Config,
    store: StoreChoice,
    background: &Shutdown,
) -> anyhow::Result<Arc<dyn Store>> {
    if store == StoreChoice::Embedded {
        let path = app::store_file(&config.data_dir);
        ensure!(path.exists(), "{}: there is no store", path.display());
    }
    app::open_store(config, store, background).await
}

/// A store to fill.
pub(super) async fn fresh(
    config: &Config,
    store: StoreChoice,
    background: &Shutdown,
) -> anyhow::Result<Arc<dyn Store>> {
    if store == StoreChoice::Embedded {
        app::make_data_dir(&config.data_dir)?;
    }
    app::open_store(config, store, background).await
}

/// What the control plane said no with.
pub(super) fn refused(status: &tonic::Status) -> anyhow::Error {
    anyhow!("{}", status.message())
}

/// A line on stdout.
pub(super) fn say(text: &str) -> anyhow::Result<()> {
    writeln!(stdout(), "{text}").context("writing to stdout")
}

/// How far a long piece of work is, on stderr, now and then.
pub(super) fn progress(what: &'static str) -> impl FnMut(u64) + Send {
    let mut said = Instant::now();
    move |records| {
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            // Nobody may be reading.
            let _ = writeln!(stderr(), "{records} records {what}");
        }
    }
}
