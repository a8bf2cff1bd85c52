//! The settings of an etcd, checked together: each mistake names the setting.

use anyhow::{Context as _, anyhow, bail, ensure};

use super::{Settings, StoreChoice};
use crate::store::etcd::{EtcdConfig, EtcdUser, TlsFiles};

/// Endpoints, at most.
const MOST: usize = 16;

/// The etcd that was asked for, if one was.
pub(super) fn checked(
    settings: &Settings,
    store: StoreChoice,
) -> anyhow::Result<Option<EtcdConfig>> {
    if store != StoreChoice::Etcd {
        if let Some(name) = first_given(settings) {
            bail!("{name}: only with the store \"etcd\"");
        }
        return Ok(None);
    }
    let endpoints = settings.etcd_endpoints.clone().unwrap_or_default();
    ensure!(!endpoints.is_empty(), "etcd-endpoints: needed for the store \"etcd\"");
    ensure!(endpoints.len() <= MOST, "etcd-endpoints: at most {MOST}");
    let secured = endpoints.iter().filter(|endpoint| endpoint.tls()).count();
    ensure!(
        secured == 0 || secured == endpoints.len(),
        "etcd-endpoints: all of them https, or all of them http"
    );
    Ok(Some(EtcdConfig {
        prefix: settings.etcd_prefix.clone().unwrap_or_default(),
        tls: tls(settings, secured > 0)?,
        user: user(settings)?,
        endpoints,
    }))
}

fn tls(settings: &Settings, secured: bool) -> anyhow::Result<Option<TlsFiles>> {
    let given = [
        ("etcd-ca", &settings.etcd_ca),
        ("etcd-cert", &settings.etcd_cert),
        ("etcd-key", &settings.etcd_key),
    ];
    if !secured {
        let given = given.iter().find(|(_, file)| file.is_some());
        ensure!(
            given.is_none(),
            "{}: only with https endpoints",
            given.map_or("", |(name, _)| name)
        );
        return Ok(None);
    }
    let ca = settings.etcd_ca.clone();
    let client = match (settings.etcd_cert.clone(), settings.etcd_key.clone()) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => bail!("etcd-key: needed with etcd-cert"),
        (None, Some(_)) => bail!("etcd-cert: needed with etcd-key"),
    };
    let ca = ca.context("etcd-ca: needed for https endpoints, whose certificates it verifies")?;
    Ok(Some(TlsFiles { ca, client }))
}

fn user(settings: &Settings) -> anyhow::Result<Option<EtcdUser>> {
    match (settings.etcd_user.clone(), &settings.etcd_password_file) {
        (None, None) => Ok(None),
        (Some(_), None) => bail!("etcd-password-file: needed with etcd-user"),
        (None, Some(_)) => bail!("etcd-user: needed with etcd-password-file"),
        (Some(name), Some(file)) => {
            let user = EtcdUser { name, password_file: file.clone() };
            user.password().map_err(|why| anyhow!("etcd-password-file: {why}"))?;
            Ok(Some(user))
        }
    }
}

fn first_given(settings: &Settings) -> Option<&'static str> {
    [
        ("etcd-endpoints", settings.etcd_endpoints.is_some()),
        ("etcd-prefix", settings.etcd_prefix.is_some()),
        ("etcd-ca", settings.etcd_ca.is_some()),
        ("etcd-cert", settings.etcd_cert.is_some()),
        ("etcd-key", settings.etcd_key.is_some()),
        ("etcd-user", settings.etcd_user.is_some()),
        ("etcd-password-file", settings.etcd_password_file.is_some()),
    ]
    .into_iter()
    .find_map(|(name, given)| given.then_some(name))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn settings() -> Settings {
        Settings {
            store: Some(StoreChoice::Etcd),
            etcd_endpoints: Some(vec!["https://a:1".parse().unwrap()]),
            etcd_ca: Some("/ca".into()),
            ..Settings::default()
        }
    }

    #[test]
    fn what_is_needed_together_is_demanded_together() {
        assert!(settings().check(None).is_ok());
        type Mistake = fn(&mut Settings);
        let mistakes: [(&str, Mistake); 8] = [
            ("etcd-endpoints", |s| s.etcd_endpoints = None),
            ("etcd-endpoints", |s| {
                s.etcd_endpoints =
                    Some(vec!["https://a:1".parse().unwrap(), "http://b:1".parse().unwrap()]);
            }),
            ("etcd-ca", |s| s.etcd_ca = None),
            ("etcd-ca", |s| s.etcd_endpoints = Some(vec!["http://b:1".parse().unwrap()])),
            ("etcd-key", |s| s.etcd_cert = Some("/cert".into())),
            ("etcd-password-file", |s| s.etcd_user = Some("wattle".into())),
            ("etcd-password-file", |s| {
                s.etcd_user = Some("wattle".into());
                s.etcd_password_file = Some("/no/such/file".into());
            }),
            ("etcd-endpoints", |s| s.store = None),
        ];
        for (name, make) in mistakes {
            let mut wrong = settings();
            make(&mut wrong);
            let error = format!("{:#}", wrong.check(None).unwrap_err());
            assert!(error.starts_with(name), "{name}: {error}");
        }
    }

    #[test]
    fn a_password_is_read_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        fs::write(&file, "secret\n").unwrap();
        let mut settings = settings();
        settings.etcd_user = Some("wattle".into());
        settings.etcd_password_file = Some(file);
        let config = settings.check(None).unwrap();
        let user = config.etcd.as_ref().unwrap().user.as_ref().unwrap();
        assert_eq!(user.password().unwrap().as_str(), "secret");
        assert!(!format!("{config:?}").contains("secret"));
    }
}
