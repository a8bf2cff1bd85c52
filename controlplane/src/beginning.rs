//! Whether a control plane may begin in a store that holds none. A store that was lost must not come
//! back empty under the CA that machines know: it would look healthy and know nobody. So it begins
//! by itself only where the CA can't have been used, and otherwise where somebody says so
//! ([`on_purpose`]).

use std::{
    io::ErrorKind,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, anyhow};
use wattle_certs::certificates_from_pem;
use wattle_runtime::{clock, files, shutdown::Shutdown};

use crate::{
    app,
    authority::CaFiles,
    cluster::{self, Cluster},
    config::{Config, StoreChoice},
    moving::{MoveError, target},
    store::{Store, Stored, keys},
};

/// Beside a CA that `ca init` made and no control plane has begun with.
pub(crate) const UNUSED_CA: &str = "ca.unused";
/// In the data directory of a replica that has served: what, and from where.
const SERVED: &str = "store.served";
/// A CA by file, which nothing can be written beside, counts as unused for so long: an hour, and the
/// five minutes by which a root begins before it is made.
const UNUSED_FOR: Duration = Duration::from_secs(65 * 60);

/// Opens the embedded store, and finds its control plane or makes one.
pub(crate) async fn embedded(
    config: &Config,
    background: &Shutdown,
) -> anyhow::Result<(Arc<dyn Store>, Cluster)> {
    let signed = has_signed(config)?;
    let store = app::open_store(config, StoreChoice::Embedded, background).await?;
    if signed && store.list(&keys::all(), None, 1).await?.items.is_empty() {
        return Err(lost(config));
    }
    let cluster = cluster::open(store.as_ref(), &config.ca, clock::now()).await?;
    Ok((store, cluster))
}

/// Finds the control plane in an etcd, or makes one where none was ever there.
pub(crate) async fn in_etcd(config: &Config, store: &dyn Store) -> anyhow::Result<Cluster> {
    if let Some(found) = cluster::find(store, &config.ca).await? {
        return Ok(found);
    }
    // It may have been a member that lags who said so. From here on none is believed that does.
    store.head().await?;
    // Before the record is looked for again: whoever leaves anything has found that or made it.
    let traces = store.list(&keys::all(), None, 1).await?.items;
    if let Some(found) = cluster::find(store, &config.ca).await? {
        return Ok(found);
    }
    if let Some(why) = doubt(config, traces.first(), clock::now())? {
        return Err(anyhow!(
            "there is no control plane in {}, and {why}: either it was lost, or prefix or endpoints \
             are another one's. Correct --etcd-prefix and --etcd-endpoints, or put a backup there \
             with `wattle-controlplane restore`. To begin a new control plane that knows no machine, \
             say `wattle-controlplane store init` once, with the same settings",
            place(config)
        ));
    }
    Ok(cluster::open(store, &config.ca, clock::now()).await?)
}

/// Finds the control plane, or makes one because somebody says so. Says whether it is new.
pub(crate) async fn on_purpose(
    config: &Config,
    store: &dyn Store,
) -> anyhow::Result<(Cluster, bool)> {
    if let Some(found) = cluster::find(store, &config.ca).await? {
        return Ok((found, false));
    }
    // One that runs would show its agents the new one, which knows none of them.
    if let Some(process) = target::in_use(store).await? {
        return Err(MoveError::InUse(process).into());
    }
    let made = cluster::open(store, &config.ca, clock::now()).await?;
    Ok((made, true))
}

/// From here on a CA without its store is a lost store.
pub(crate) fn begun(config: &Config, cluster: &Cluster) {
    let unused = config.data_dir.join(UNUSED_CA);
    match std::fs::remove_file(&unused) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(%error, file = %unused.display(), "not removed");
        }
        _ => {}
    }
    let served = served(config);
    if served.exists() {
        return;
    }
    let text = format!("{} in {}\n", cluster.trust_domain, place(config));
    if let Err(error) = files::write_private(&served, text.as_bytes()) {
        tracing::warn!(
            %error, file = %served.display(),
            "not written: a store that is lost may be taken for a new one"
        );
    }
}

/// Where the store is, for people.
pub(crate) fn place(config: &Config) -> String {
    match &config.etcd {
        Some(etcd) if config.store == StoreChoice::Etcd => etcd.to_string(),
        _ => app::store_file(&config.data_dir).display().to_string(),
    }
}

fn served(config: &Config) -> PathBuf {
    config.data_dir.join(SERVED)
}

/// Why a store without a control plane has perhaps lost one; `None` where it can't have had one.
fn doubt(
    config: &Config,
    trace: Option<&Stored>,
    now: SystemTime,
) -> anyhow::Result<Option<String>> {
    if let Some(trace) = trace {
        return Ok(Some(format!("one has left {} there", trace.key)));
    }
    let served = served(config);
    match std::fs::read_to_string(&served) {
        Ok(text) => {
            let (served, text) = (served.display(), text.trim_end());
            return Ok(Some(format!("this replica has served {text} ({served} says so)")));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| served.display().to_string()),
    }
    let Some(ca) = config.ca.read()? else { return Ok(None) };
    let own = config.ca == CaFiles::of(&config.data_dir);
    if own && config.data_dir.join(UNUSED_CA).exists() {
        return Ok(None);
    }
    let file = config.ca.certificate.display();
    let text = std::fs::read_to_string(&config.ca.certificate);
    if certificates_from_pem(&text.with_context(|| file.to_string())?)?.len() > 1 {
        return Ok(Some(format!("{file} holds several certificates, as after a rotation")));
    }
    let begins = ca.root().not_before;
    let age = now.duration_since(begins).unwrap_or_else(|ahead| ahead.duration());
    let hours = Duration::from_secs(age.as_secs() / 3600 * 3600);
    let old = || format!("{file} was made {} ago", humantime::format_duration(hours));
    Ok((age > UNUSED_FOR).then(old))
}

/// Whether the CA belongs to an embedded store that has begun. One in the data directory that nobody has
/// used, made beforehand or at a first start that was interrupted, has a mark beside it.
fn has_signed(config: &Config) -> anyhow::Result<bool> {
    let own = config.ca == CaFiles::of(&config.data_dir);
    let unused = config.data_dir.join(UNUSED_CA);
    if own && unused.exists() {
        return Ok(false);
    }
    let signed = match own {
        true => config.ca.key.exists(),
        false => doubt(config, None, clock::now())?.is_some(),
    };
    let store = app::store_file(&config.data_dir);
    let empty = std::fs::metadata(&store).map_or(true, |file| file.len() == 0);
    if empty && signed {
        return Err(lost(config));
    }
    if empty && own {
        files::write_private(&unused, b"").with_context(|| unused.display().to_string())?;
    }
    Ok(signed)
}

fn lost(config: &Config) -> anyhow::Error {
    anyhow!(
        "{} is lost, and {} is there: put back a copy of the store, or `restore` a backup. To begin a \
         new control plane that knows no machine, say `wattle-controlplane store init`, or move the \
         CA's files away",
        app::store_file(&config.data_dir).display(),
        config.ca.key.display()
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use wattle_certs::Ca;
    use wattle_model::Revision;

    use super::*;
    use crate::config::Settings;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A replica with a CA by file that was made so long ago.
    fn replica(folder: &tempfile::TempDir, age: Duration) -> Config {
        let at = |name: &str| Some(folder.path().join(name));
        let settings = Settings {
            data_dir: at("data"),
            ca_cert: at("tls.crt"),
            ca_key: at("tls.key"),
            ..Settings::default()
        };
        std::fs::create_dir(folder.path().join("data")).unwrap();
        let config = settings.check(None).unwrap();
        config.ca.create(&ca(age)).unwrap();
        config
    }

    fn ca(age: Duration) -> Ca {
        Ca::generate(&"mesh.example".parse().unwrap(), SystemTime::now() - age)
    }

    fn doubted(config: &Config, trace: Option<&Stored>) -> String {
        doubt(config, trace, SystemTime::now()).unwrap().unwrap_or_default()
    }

    #[test]
    fn a_ca_by_file_counts_as_unused_for_an_hour() {
        for (age, doubted_for) in [(0, ""), (59, ""), (61, "made 1h ago"), (60 * 24 * 3, "3days")] {
            let folder = tempfile::tempdir().unwrap();
            let said = doubted(&replica(&folder, MINUTE * age), None);
            assert_eq!(said.is_empty(), doubted_for.is_empty(), "{age} minutes: {said}");
            assert!(said.contains(doubted_for), "{said}");
        }
        // Somebody's clock is wrong, and nothing is known.
        let folder = tempfile::tempdir().unwrap();
        let config = replica(&folder, Duration::ZERO);
        let early = SystemTime::now() - MINUTE * 600;
        assert!(doubt(&config, None, early).unwrap().is_some());
    }

    #[test]
    fn a_rotated_ca_was_used_however_new_its_root_is() {
        let folder = tempfile::tempdir().unwrap();
        let config = replica(&folder, Duration::ZERO);
        let certificates = [
            std::fs::read_to_string(&config.ca.certificate).unwrap(),
            wattle_certs::certificate_to_pem(ca(MINUTE * 60 * 24 * 400).certificate()),
        ];
        std::fs::write(&config.ca.certificate, certificates.concat()).unwrap();
        assert!(doubted(&config, None).contains("as after a rotation"));
    }

    #[test]
    fn what_a_replica_has_served_or_left_outlives_every_ca() {
        let folder = tempfile::tempdir().unwrap();
        let config = replica(&folder, Duration::ZERO);
        let trace = Stored { key: keys::epoch(), value: Bytes::new(), modified: Revision(1) };
        assert!(doubted(&config, Some(&trace)).contains("v1/meta/epoch"));
        assert_eq!(doubted(&config, None), "");
        std::fs::write(config.data_dir.join(SERVED), "mesh.example in etcd\n").unwrap();
        assert!(doubted(&config, None).contains("has served mesh.example in etcd ("));
        std::fs::remove_file(&config.ca.key).unwrap();
        assert!(!doubted(&config, None).is_empty(), "also without a CA");
        std::fs::remove_file(config.data_dir.join(SERVED)).unwrap();
        assert_eq!(doubted(&config, None), "", "it will make one");
    }

    #[test]
    fn a_ca_that_was_made_in_place_is_unused_until_it_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = replica(&folder, Duration::ZERO);
        config.ca = CaFiles::of(&config.data_dir);
        config.ca.create(&ca(MINUTE * 600)).unwrap();
        assert!(doubted(&config, None).contains("ca.crt was made 10h ago"));
        std::fs::write(config.data_dir.join(UNUSED_CA), "").unwrap();
        assert_eq!(doubted(&config, None), "");
    }
}
