//! Settings: command line before environment before file before default, the same names in all
//! three. [`Settings`] is what somebody wrote, [`Config`] is what holds once it is checked.

use std::{
    fmt,
    net::SocketAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

mod etcd;

use anyhow::{Context as _, ensure};
use figment::{
    Figment,
    providers::{Format as _, Serialized, Toml},
};
use serde::{Deserialize, Serialize};
use wattle_runtime::telemetry::LogFormat;

use crate::{
    advertise::Advertise,
    authority::CaFiles,
    store::{
        etcd::{EtcdAddress, EtcdConfig, EtcdPrefix},
        feed::Pulse,
    },
};

/// Where a control plane keeps its state where nobody says otherwise.
pub const DEFAULT_DATA_DIR: &str = "/var/lib/wattle/controlplane";
const DEFAULT_LISTEN: &str = "0.0.0.0:7443";
const DEFAULT_LIFETIME: Duration = Duration::from_secs(24 * 3600);
const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(15);
const DEFAULT_GRACE: Duration = Duration::from_secs(10);
/// Below this, certificates would run out between two looks at the clock; none need live longer than a
/// year, and far above that no date can be written.
const LIFETIMES: RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(31_557_600);
/// Below this, comparing would be most of what a control plane does.
const SHORTEST_AUDIT: Duration = Duration::from_secs(1);

/// Below this, heartbeats would be most of what is sent; above the second, a dead connection would
/// go unnoticed for many minutes.
const HEARTBEATS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);

/// Settings as written: on the command line, in `WATTLE_*` variables, or in a TOML file.
#[derive(Debug, Clone, Default, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Where the store, the CA's key and the first operator's credential are kept
    /// [default: /var/lib/wattle/controlplane]
    #[arg(long, env = "WATTLE_DATA_DIR", value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,

    /// The CA's certificate, PEM; others may lie in the same file. All replicas have the same CA
    /// [default: ca.crt in the data directory]
    #[arg(long, env = "WATTLE_CA_CERT", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_cert: Option<PathBuf>,

    /// The CA's private key, PEM: a file that this replica can read and others can't, such as a
    /// mounted secret. Exchanged while it runs, it is taken up within seconds
    /// [default: ca.key in the data directory]
    #[arg(long, env = "WATTLE_CA_KEY", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_key: Option<PathBuf>,

    /// Where agents and operators connect [default: 0.0.0.0:7443]
    #[arg(long, env = "WATTLE_LISTEN", value_name = "ADDRESS:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,

    /// A host or host:port where agents reach this control plane; join tokens carry all of them.
    /// May be repeated [default: this machine's addresses]
    #[arg(long, env = "WATTLE_ADVERTISE", value_name = "HOST[:PORT]", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<Vec<Advertise>>,

    /// Where other replicas reach this one: never a load balancer [default: the address it listens
    /// on, or this machine's]
    #[arg(long, env = "WATTLE_REPLICA_ADDRESS", value_name = "HOST[:PORT]")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica_address: Option<Advertise>,

    /// What keeps the state: `embedded` is one file in the data directory, for one control plane;
    /// `etcd` is shared by any number of them [default: embedded]
    #[arg(long, env = "WATTLE_STORE", value_name = "STORE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreChoice>,

    /// The client URLs of etcd's members, all http or all https. May be repeated
    #[arg(long, env = "WATTLE_ETCD_ENDPOINTS", value_name = "URL", value_delimiter = ',')]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd_endpoints: Option<Vec<EtcdAddress>>,

    /// What every key in etcd begins with; control planes that share an etcd need one each
    /// [default: /wattle/]
    #[arg(long, env = "WATTLE_ETCD_PREFIX", value_name = "PREFIX")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd_prefix: Option<EtcdPrefix>,

    /// PEM file of the CA that signed etcd's certificates; needed for https
    #[arg(long, env = "WATTLE_ETCD_CA", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd_ca: Option<PathBuf>,

    /// PEM file of the certificate that is shown to etcd. Read again at every connection, as are the
    /// CA and the key
    #[arg(long, env = "WATTLE_ETCD_CERT", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd_cert: Option<PathBuf>,

    /// PEM file of that certificate's key
    #[arg(long, env = "WATTLE_ETCD_KEY", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd_key: Option<PathBuf>,

    /// The user, where etcd asks for one
    #[arg(long, env = "WATTLE_ETCD_USER", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd_user: Option<String>,

    /// File with that user's password
    #[arg(long, env = "WATTLE_ETCD_PASSWORD_FILE", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etcd_password_file: Option<PathBuf>,

    /// Where Prometheus scrapes /metrics, over plain HTTP: an address that only the monitoring
    /// reaches [default: nowhere]
    #[arg(long, env = "WATTLE_METRICS_LISTEN", value_name = "ADDRESS:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics_listen: Option<SocketAddr>,

    /// The local socket for `wattle-controlplane admin` [default: admin.sock in the data directory]
    #[arg(long, env = "WATTLE_ADMIN_SOCKET", value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_socket: Option<PathBuf>,

    /// How long the certificates of nodes live, a year at most; they renew at two thirds of it
    /// [default: 24h]
    #[arg(long, env = "WATTLE_CERTIFICATE_LIFETIME", value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_lifetime: Option<Span>,

    /// How often what this control plane shows is compared with all that the store holds, and put
    /// right [default: 5m]
    #[arg(long, env = "WATTLE_ANTI_ENTROPY", value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anti_entropy: Option<Span>,

    /// How often an agent hears from the control plane when nothing changes; after three it hasn't
    /// heard, it connects anew [default: 15s]
    #[arg(long, env = "WATTLE_HEARTBEAT", value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Span>,

    /// How long streams may take to move elsewhere when the control plane stops [default: 10s]
    #[arg(long, env = "WATTLE_DRAIN_GRACE", value_name = "DURATION")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_grace: Option<Span>,

    /// How logs look: text or json [default: text]
    #[arg(long, env = "WATTLE_LOG_FORMAT", value_name = "FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
}

/// Checked settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the state is kept.
    pub data_dir: PathBuf,
    /// The CA's certificate and key.
    pub ca: CaFiles,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where agents reach it; empty: guessed.
    pub advertise: Vec<Advertise>,
    /// Where other replicas reach it, if somebody said so.
    pub replica_address: Option<Advertise>,
    /// What keeps the state.
    pub store: StoreChoice,
    /// The etcd that does, if one does.
    pub etcd: Option<EtcdConfig>,
    /// Where scrapes are answered, if at all.
    pub metrics_listen: Option<SocketAddr>,
    /// The local socket.
    pub admin_socket: PathBuf,
    /// How long certificates live.
    pub certificate_lifetime: Duration,
    /// How closely the view looks at the store.
    pub pulse: Pulse,
    /// Between heartbeats.
    pub heartbeat: Duration,
    /// How long streams have when it stops.
    pub drain_grace: Duration,
    /// How logs look.
    pub log_format: LogFormat,
}

impl Settings {
    /// These settings before those of a file before the defaults.
    pub fn check(&self, file: Option<&Path>) -> anyhow::Result<Config> {
        let mut figment = Figment::new();
        if let Some(path) = file {
            ensure!(path.exists(), "{}: no such configuration file", path.display());
            figment = figment.merge(Toml::file_exact(path));
        }
        let all: Self = figment
            .merge(Serialized::defaults(self))
            .extract()
            .context("the configuration can't be used")?;
        all.into_config()
    }

    fn into_config(self) -> anyhow::Result<Config> {
        let store = self.store.unwrap_or_default();
        let etcd = etcd::checked(&self, store)?;
        let data_dir = self.data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        let listen = self.listen.unwrap_or(DEFAULT_LISTEN.parse().expect("it is an address"));
        let lifetime = self.certificate_lifetime.map_or(DEFAULT_LIFETIME, |span| span.0);
        ensure!(
            LIFETIMES.contains(&lifetime),
            "certificate-lifetime: from {} to {}",
            humantime::format_duration(*LIFETIMES.start()),
            humantime::format_duration(*LIFETIMES.end())
        );
        let heartbeat = self.heartbeat.map_or(DEFAULT_HEARTBEAT, |span| span.0);
        ensure!(
            HEARTBEATS.contains(&heartbeat),
            "heartbeat: from {} to {}",
            humantime::format_duration(*HEARTBEATS.start()),
            humantime::format_duration(*HEARTBEATS.end())
        );
        let pulse = Pulse::default();
        let audit_every = self.anti_entropy.map_or(pulse.audit_every, |span| span.0);
        ensure!(
            audit_every >= SHORTEST_AUDIT,
            "anti-entropy: at least {}",
            humantime::format_duration(SHORTEST_AUDIT)
        );
        let files = CaFiles::of(&data_dir);
        let ca = CaFiles {
            certificate: self.ca_cert.unwrap_or(files.certificate),
            key: self.ca_key.unwrap_or(files.key),
        };
        Ok(Config {
            ca,
            admin_socket: self.admin_socket.unwrap_or_else(|| admin_socket(&data_dir)),
            data_dir,
            listen,
            metrics_listen: self.metrics_listen,
            advertise: self.advertise.unwrap_or_default(),
            replica_address: self.replica_address,
            store,
            etcd,
            certificate_lifetime: lifetime,
            pulse: Pulse { audit_every, ..pulse },
            heartbeat,
            drain_grace: self.drain_grace.map_or(DEFAULT_GRACE, |span| span.0),
            log_format: self.log_format.unwrap_or_default(),
        })
    }
}

/// The local socket of a data directory.
pub fn admin_socket(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.sock")
}

/// What keeps the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreChoice {
    /// One file in the data directory.
    #[default]
    Embedded,
    /// An etcd.
    Etcd,
}

impl fmt::Display for StoreChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded => "embedded",
            Self::Etcd => "etcd",
        })
    }
}

impl FromStr for StoreChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "embedded" => Ok(Self::Embedded),
            "etcd" => Ok(Self::Etcd),
            other => Err(format!("store {other:?}: there are \"embedded\" and \"etcd\"")),
        }
    }
}

/// A length of time such as `24h` or `1m 30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = humantime::parse_duration(text);
        parsed.map(Self).map_err(|error| format!("{text:?} is no duration such as 24h: {error}"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn flags(line: &str) -> Settings {
        Line::parse_from(["serve"].into_iter().chain(line.split_whitespace())).settings
    }

    fn with_file(text: &str, line: &str) -> anyhow::Result<Config> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wattle.toml");
        fs::write(&path, text).unwrap();
        flags(line).check(Some(&path))
    }

    #[test]
    fn defaults_hold_where_nothing_is_said() {
        let config = flags("").check(None).unwrap();
        assert_eq!(config.listen.to_string(), "0.0.0.0:7443");
        assert_eq!(config.admin_socket, Path::new("/var/lib/wattle/controlplane/admin.sock"));
        assert_eq!(config.certificate_lifetime, Duration::from_secs(86_400));
        assert_eq!(config.advertise, []);
    }

    #[test]
    fn flags_win_over_the_file_which_wins_over_defaults() {
        let file = "listen = '127.0.0.1:1'\ndata-dir = '/a'\nadvertise = ['one', 'two:5']\n";
        let config = with_file(file, "--data-dir /b --drain-grace 3s").unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:1");
        assert_eq!(config.data_dir, Path::new("/b"));
        assert_eq!(config.admin_socket, Path::new("/b/admin.sock"));
        assert_eq!(config.drain_grace, Duration::from_secs(3));
        assert_eq!(config.advertise.len(), 2);
        let config = with_file(file, "--advertise three --advertise four,five").unwrap();
        assert_eq!(config.advertise.len(), 3, "a list is replaced, not merged");
    }

    #[test]
    fn every_setting_can_be_written_in_the_file() {
        let all = Settings {
            data_dir: Some("/a".into()),
            ca_cert: Some("/ca/tls.crt".into()),
            ca_key: Some("/ca/tls.key".into()),
            listen: Some(([127, 0, 0, 1], 5).into()),
            advertise: Some(vec!["host:5".parse().unwrap()]),
            replica_address: Some("10.0.0.1".parse().unwrap()),
            store: Some(StoreChoice::Etcd),
            etcd_endpoints: Some(vec!["https://etcd-0:2379".parse().unwrap()]),
            etcd_prefix: Some("/mesh/".parse().unwrap()),
            etcd_ca: Some("/ca".into()),
            etcd_cert: Some("/cert".into()),
            etcd_key: Some("/key".into()),
            etcd_user: None,
            etcd_password_file: None,
            metrics_listen: Some(([127, 0, 0, 1], 6).into()),
            admin_socket: Some("/b".into()),
            certificate_lifetime: Some("2h".parse().unwrap()),
            anti_entropy: Some("1m".parse().unwrap()),
            heartbeat: Some("5s".parse().unwrap()),
            drain_grace: Some("1s".parse().unwrap()),
            log_format: Some(LogFormat::Json),
        };
        let file = "data-dir = '/a'\nca-cert = '/ca/tls.crt'\nca-key = '/ca/tls.key'\nlisten = '127.0.0.1:5'\nadvertise = ['host:5']\nreplica-address = '10.0.0.1'\nstore = 'etcd'\netcd-endpoints = ['https://etcd-0:2379']\netcd-prefix = '/mesh/'\netcd-ca = '/ca'\netcd-cert = '/cert'\netcd-key = '/key'\nmetrics-listen = '127.0.0.1:6'\nadmin-socket = '/b'\ncertificate-lifetime = '2h'\nanti-entropy = '1m'\nheartbeat = '5s'\ndrain-grace = '1s'\nlog-format = 'json'\n";
        assert_eq!(with_file(file, "").unwrap(), all.check(None).unwrap());
    }

    #[test]
    fn mistakes_name_the_key() {
        let said = |file, line| format!("{:#}", with_file(file, line).unwrap_err());
        let unknown = said("data_dir = '/a'", "");
        assert!(unknown.contains("data_dir") && unknown.contains("wattle.toml"), "{unknown}");
        let wrong = said("listen = 5", "");
        assert!(wrong.contains("listen"), "{wrong}");
        let wrong = said("drain-grace = 'soon'", "");
        assert!(wrong.contains("drain-grace") && wrong.contains("soon"), "{wrong}");
        let short = said("", "--certificate-lifetime 1s");
        assert!(short.contains("certificate-lifetime"), "{short}");
        let long = said("", "--certificate-lifetime 10000years");
        assert!(long.contains("certificate-lifetime") && long.contains("1year"), "{long}");
        let eager = said("", "--anti-entropy 10ms");
        assert!(eager.contains("anti-entropy"), "{eager}");
        let slow = said("", "--heartbeat 10m");
        assert!(slow.contains("heartbeat") && slow.contains("5m"), "{slow}");
        let missing = flags("").check(Some(Path::new("/none.toml"))).unwrap_err().to_string();
        assert!(missing.contains("/none.toml"), "{missing}");
    }
}
