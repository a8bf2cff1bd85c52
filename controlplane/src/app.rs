//! The whole control plane, put together: settings in, a bound replica out, then run, then drain.
//! It decides nothing that a part could decide itself. Tests run it on port 0.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use prometheus_client::registry::Registry;
use tokio::task::spawn_blocking;
use wattle_model::ReplicaId;
use wattle_runtime::{clock, files, shutdown::Shutdown};

use crate::{
    admin, advertise,
    authority::{Authority, follow},
    beginning,
    certificate::OwnCertificate,
    cluster::{self, Cluster},
    config::{Config, StoreChoice},
    horizon,
    listener::{Connections, Handler, LocalListener, TlsListener},
    metrics::Endpoint,
    replica::Replica,
    replicas::{Replicas, Roster},
    services::{self, Services},
    store::{Store, embedded::Embedded, etcd::Etcd, feed::Feed},
    stream::Pace,
};

/// The embedded store's file in the data directory.
const STORE: &str = "store.redb";
/// How long the tasks behind the calls have to end, once no call is left.
const BACKGROUND_GRACE: Duration = Duration::from_secs(2);

/// A replica that has read its store and bound its sockets, and accepts nobody yet.
pub struct Bound {
    replica: Arc<Replica>,
    replicas: Replicas,
    address: SocketAddr,
    admin_socket: PathBuf,
    operator_file: PathBuf,
    metrics_address: Option<SocketAddr>,
    grace: Duration,
    tls: TlsListener,
    local: LocalListener,
    handler: Handler,
    connections: Connections,
    health: services::Health,
    /// Calls, and what ends with the first beat.
    serving: Shutdown,
    /// What calls rely on: it ends after them.
    background: Shutdown,
}

/// Whether a store may have other replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// Nobody else can open it.
    Alone,
    /// Others may run on it.
    Others,
}

/// Builds a replica; with a new data directory, a new control plane.
pub async fn build(config: Config) -> anyhow::Result<Bound> {
    make_data_dir(&config.data_dir)?;
    let background = Shutdown::new();
    let (store, cluster, company) = match config.store {
        StoreChoice::Embedded => {
            let (store, cluster) = beginning::embedded(&config, &background).await?;
            (store, cluster, Company::Alone)
        }
        StoreChoice::Etcd => {
            let store = open_store(&config, config.store, &background).await?;
            let cluster = beginning::in_etcd(&config, store.as_ref()).await?;
            (store, cluster, Company::Others)
        }
    };
    put_together(config, store, cluster, company, background).await
}

/// Builds a replica on a store that is open, with a new control plane where it is empty; `background`
/// ends last.
pub async fn build_on(
    config: Config,
    store: Arc<dyn Store>,
    company: Company,
    background: Shutdown,
) -> anyhow::Result<Bound> {
    let cluster = cluster::open(store.as_ref(), &config.ca, clock::now()).await?;
    put_together(config, store, cluster, company, background).await
}

async fn put_together(
    config: Config,
    store: Arc<dyn Store>,
    cluster: Cluster,
    company: Company,
    background: Shutdown,
) -> anyhow::Result<Bound> {
    let serving = Shutdown::new();
    let (feed, live) = Feed::with_pulse(store.clone(), config.pulse);
    background.spawn("feed", feed.run(background.token()));
    background.spawn("horizon", horizon::keep(store.clone(), background.token()));
    // Whoever hasn't listed everything serves nobody.
    live.ready().await;

    // The store knows the CA now.
    beginning::begun(&config, &cluster);
    let Cluster { trust_domain, trust, .. } = cluster;
    let (id, authority) = (ReplicaId::new(rand::random()), Authority::new(trust)?);
    let lifetime = config.certificate_lifetime;
    let certificate = OwnCertificate::issue(&authority, trust_domain.clone(), id, lifetime)?;
    let trusted = authority.trusted();
    let mut tls = wattle_certs::following_server_config(certificate.presented(), trusted)?;
    tls.time_provider = clock::for_handshakes();
    background.spawn("certificate", certificate.keep(background.token()));
    let tls = TlsListener::bind(config.listen, tls).await.with_context(|| {
        format!("listening on {}: choose another address with --listen", config.listen)
    })?;
    let address = tls.address()?;
    let local = LocalListener::bind(&config.admin_socket)
        .with_context(|| format!("listening on {}", config.admin_socket.display()))?;

    let advertised = advertise::addresses(&config.advertise, address);
    let follow = follow::keep(authority.clone(), config.ca, store.clone(), background.token());
    background.spawn("authority", follow);
    let replica = Arc::new(Replica {
        id,
        store,
        live,
        authority,
        trust_domain,
        roster: Roster::alone(&advertised),
        advertised,
        certificate_lifetime: lifetime,
        started: clock::now(),
    });
    let pace = Pace { heartbeat: config.heartbeat, grace: config.drain_grace, ..Pace::default() };
    let replica_address = advertise::replica_address(config.replica_address.as_ref(), address);
    let Services { handler, health, metrics, replicas } =
        services::build(&replica, &serving, &background, pace, replica_address)?;
    if company == Company::Others {
        replicas.begin(&background).await.context("telling other replicas of this one")?;
    }
    let operator_file = config.data_dir.join("operator.json");
    admin::bootstrap_credential(&replica, &operator_file, clock::now())
        .await
        .with_context(|| format!("the first operator's file {}", operator_file.display()))?;
    warn_of_stale_file(&replica, &operator_file);
    let metrics_address = match config.metrics_listen {
        Some(address) => Some(serve_metrics(address, metrics, &background).await?),
        None => None,
    };
    Ok(Bound {
        replica,
        replicas,
        address,
        admin_socket: config.admin_socket,
        operator_file,
        metrics_address,
        grace: config.drain_grace,
        tls,
        local,
        handler,
        connections: Connections::new(serving.token()),
        health,
        serving,
        background,
    })
}

impl Bound {
    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it is scraped, if it is.
    pub const fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Its local socket.
    pub fn admin_socket(&self) -> &Path {
        &self.admin_socket
    }

    /// What its services share.
    pub const fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// This replica among the others.
    pub const fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    /// One line for whoever started it: where it listens and what to do next.
    pub fn greeting(&self) -> String {
        let agents = self.replica.advertised.join(", ");
        let next = if self.operator_file.exists() {
            format!(
                "make the first token with: wattle --context {} token create",
                self.operator_file.display()
            )
        } else {
            // Somebody has moved the file; it is never made again.
            format!(
                "make another operator with: wattle-controlplane admin create NAME --admin-socket {}",
                self.admin_socket.display()
            )
        };
        format!(
            "wattle-controlplane listens on {}, agents reach it at {agents}; {next}",
            self.address
        )
    }

    /// Serves until `shutdown` is asked for, then drains.
    pub async fn run(self, shutdown: &Shutdown) {
        self.tls.serve(&self.connections, self.handler.clone());
        self.local.serve(&self.connections, self.handler);
        self.health.serving().await;
        tracing::info!(address = %self.address, replica = %self.replica.id, "serving");
        tokio::select! {
            () = shutdown.requested() => {}
            // One of our own tasks broke.
            () = self.serving.requested() => {}
            () = self.background.requested() => {}
            () = self.health.follow(&self.replica.live) => {}
        }
        tracing::info!(grace = ?self.grace, "draining");
        self.health.not_serving().await;
        self.serving.begin();
        // Where there is no other replica, nobody need be told to go to one.
        let alone = self.replicas.roster().others().is_empty();
        let notice = if alone { Duration::ZERO } else { self.grace / 2 };
        let (cut, drained) = tokio::join!(
            self.connections.drain(notice, self.grace),
            self.serving.drain(self.grace)
        );
        tracing::info!(cut, tasks = ?drained, "drained");
        self.background.drain(BACKGROUND_GRACE).await;
    }
}

/// Scrapes are answered until the very end: a drain is what one wants to see.
async fn serve_metrics(
    address: SocketAddr,
    metrics: Registry,
    background: &Shutdown,
) -> anyhow::Result<SocketAddr> {
    let endpoint = Endpoint::bind(address).await.with_context(|| {
        format!("listening on {address} for scrapes: choose another with --metrics-listen")
    })?;
    let address = endpoint.address()?;
    background.spawn("metrics", endpoint.serve(metrics, background.token()));
    tracing::info!(%address, "metrics are at /metrics");
    Ok(address)
}

/// The first operator's file is never rewritten: who listens elsewhere now says so.
fn warn_of_stale_file(replica: &Replica, file: &Path) {
    if let Some(stale) = admin::stale_addresses(replica, file) {
        tracing::warn!(
            file = %file.display(), ?stale, now = ?replica.advertised,
            "the first operator's file leads elsewhere: correct control_planes in it"
        );
    }
}

/// The data directory holds the CA's key: it is its owner's alone.
pub(crate) fn make_data_dir(path: &Path) -> anyhow::Result<()> {
    files::make_private_dir(path).map_err(|error| {
        let advice = match error.kind() {
            ErrorKind::PermissionDenied => ": run as root, or choose another with --data-dir",
            _ => "",
        };
        anyhow::Error::new(error)
            .context(format!("making the data directory {}{advice}", path.display()))
    })
}

/// The embedded store's file.
pub(crate) fn store_file(data_dir: &Path) -> PathBuf {
    data_dir.join(STORE)
}

/// Opens a store where the settings say that it is.
pub(crate) async fn open_store(
    config: &Config,
    store: StoreChoice,
    background: &Shutdown,
) -> anyhow::Result<Arc<dyn Store>> {
    match (store, &config.etcd) {
        (StoreChoice::Etcd, Some(etcd)) => {
            Etcd::same_for_all(etcd).await?;
            Ok(Arc::new(Etcd::open(etcd, background)?))
        }
        (StoreChoice::Etcd, None) => bail!("etcd-endpoints: needed for the store \"etcd\""),
        (StoreChoice::Embedded, _) => {
            let path = store_file(&config.data_dir);
            let store = spawn_blocking(move || Embedded::open(&path)).await;
            Ok(Arc::new(store.context("opening the store")??))
        }
    }
}
