//! An etcd that asks who one is, and one that is shared.

use std::{fs, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use wattle_controlplane::store::{
    Key, Store, StoreError,
    etcd::{Etcd, EtcdConfig, EtcdUser, TlsFiles},
};
use wattle_etcd::{EtcdCluster, Tls, Version};
use wattle_runtime::shutdown::Shutdown;

use super::client;
use crate::contract::{done, key, put};

/// A CA and two certificates of it, in files.
fn authority(folder: &Path) -> (Tls, TlsFiles) {
    let file = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let root_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let ca = file("ca.pem", params.self_signed(&root_key).unwrap().pem());
    let issuer = Issuer::new(params, root_key);
    let issue = |name: &str, usages: &[ExtendedKeyUsagePurpose]| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = usages.to_vec();
        let certificate = params.signed_by(&key, &issuer).unwrap().pem();
        (
            file(&format!("{name}.pem"), certificate),
            file(&format!("{name}-key.pem"), key.serialize_pem()),
        )
    };
    // etcd calls itself, with the same certificate.
    let both = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let (certificate, key) = issue("etcd", &both);
    let wattle = issue("wattle", &[ExtendedKeyUsagePurpose::ClientAuth]);
    (Tls { ca: ca.clone(), certificate, key }, TlsFiles { ca, client: Some(wattle) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_with_tls_is_shown_a_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (members, ours) = authority(folder.path());
    let cluster = EtcdCluster::start_with(Version::V36, 1, Some(&members), &[]).unwrap();
    let config = |tls: TlsFiles| EtcdConfig {
        endpoints: cluster.urls().iter().map(|url| url.parse().unwrap()).collect(),
        prefix: Default::default(),
        tls: Some(tls),
        user: None,
    };
    let shutdown = Shutdown::new();
    let store = std::sync::Arc::new(Etcd::open(&config(ours.clone()), &shutdown).unwrap());
    let store: std::sync::Arc<dyn Store> = store;
    let revision = done(&store, put("a", "1")).await;
    assert_eq!(store.get(&key("a")).await.unwrap().unwrap().modified, revision);
    assert!(store.beat().await.unwrap() > revision);

    let refused = async |tls: TlsFiles| {
        let store = Etcd::open(&config(tls), &shutdown).unwrap();
        store.head().await.unwrap_err().to_string()
    };
    let without = refused(TlsFiles { client: None, ..ours.clone() }).await;
    // By an alert, or by nothing but the end of the connection: whichever is read first.
    assert!(without.contains("etcd at https://"), "{without}");
    let strange = tempfile::tempdir().unwrap();
    let other_ca = authority(strange.path()).1.ca;
    let untrusted = refused(TlsFiles { ca: other_ca, ..ours.clone() }).await;
    assert!(untrusted.contains("certificate"), "{untrusted}");
    let missing = refused(TlsFiles { ca: "/no/such/file".into(), ..ours }).await;
    assert!(missing.contains("/no/such/file"), "{missing}");
    shutdown.begin();
}

/// From here on an etcd asks for users: `root`, and `wattle` for what is under `/mesh/`.
async fn sign_in_with_passwords(cluster: &EtcdCluster) {
    let mut root = etcd_client::Client::connect(cluster.urls(), None).await.unwrap();
    root.role_add("wattle").await.unwrap();
    let permission = etcd_client::Permission::read_write("/mesh/").with_prefix();
    root.role_grant_permission("wattle", permission).await.unwrap();
    root.role_add("root").await.unwrap();
    for user in ["root", "wattle"] {
        root.user_add(user, "secret", None).await.unwrap();
        root.user_grant_role(user, user).await.unwrap();
    }
    root.auth_enable().await.unwrap();
}

/// Ours, with this password in its file.
fn user(folder: &Path, password: &str) -> EtcdUser {
    let password_file = folder.join(format!("password-{password}"));
    fs::write(&password_file, password).unwrap();
    EtcdUser { name: "wattle".into(), password_file }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_with_users_lets_ours_in() {
    let cluster = EtcdCluster::start(Version::V36, 1).unwrap();
    sign_in_with_passwords(&cluster).await;

    let folder = tempfile::tempdir().unwrap();
    let config = |prefix: &str, password: Option<&str>| EtcdConfig {
        endpoints: cluster.urls().iter().map(|url| url.parse().unwrap()).collect(),
        prefix: prefix.parse().unwrap(),
        tls: None,
        user: password.map(|password| user(folder.path(), password)),
    };
    let shutdown = Shutdown::new();
    let open = |prefix, password| -> std::sync::Arc<dyn Store> {
        std::sync::Arc::new(Etcd::open(&config(prefix, password), &shutdown).unwrap())
    };
    let store = open("/mesh/", Some("secret"));
    let revision = done(&store, put("a", "1")).await;
    let mut watch = store.watch(&Key::new("v1/"), revision).await.unwrap();
    let beat = store.beat().await.unwrap();
    let told = futures::StreamExt::next(&mut watch).await.unwrap().unwrap();
    assert_eq!(told.revision, beat);

    for (prefix, password) in
        [("/mesh/", None), ("/mesh/", Some("wrong")), ("/other/", Some("secret"))]
    {
        let outcome = open(prefix, password).commit(put("a", "2")).await;
        let Err(StoreError::Unavailable(why)) = outcome else { panic!("{outcome:?}") };
        assert!(why.contains("etcdserver:"), "{why}");
    }
    shutdown.begin();
}

/// With tokens that say at which change of its users they were given, and that are good for none
/// after it; and with another password, which is in our file by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_whose_users_change_lets_ours_in_again() {
    let (folder, pair) = (tempfile::tempdir().unwrap(), KeyPair::generate().unwrap());
    let (private, public) = (folder.path().join("jwt-key.pem"), folder.path().join("jwt.pem"));
    fs::write(&private, pair.serialize_pem()).unwrap();
    fs::write(&public, pair.public_key_pem()).unwrap();
    let [private, public] = [private, public].map(|path| path.display().to_string());
    let tokens = format!("jwt,pub-key={public},priv-key={private},sign-method=ES256,ttl=1h");
    let arguments = ["--auth-token", &tokens];
    let cluster = EtcdCluster::start_with(Version::V36, 1, None, &arguments).unwrap();
    sign_in_with_passwords(&cluster).await;
    let (shutdown, ours) = (Shutdown::new(), user(folder.path(), "secret"));
    let config = EtcdConfig {
        endpoints: cluster.urls().iter().map(|url| url.parse().unwrap()).collect(),
        prefix: "/mesh/".parse().unwrap(),
        tls: None,
        user: Some(ours.clone()),
    };
    let store = std::sync::Arc::new(Etcd::open(&config, &shutdown).unwrap());
    let store: std::sync::Arc<dyn Store> = store;
    done(&store, put("a", "1")).await;
    let options = etcd_client::ConnectOptions::new().with_user("root", "secret");
    let connect = || etcd_client::Client::connect(cluster.urls(), Some(options.clone()));

    connect().await.unwrap().user_add("somebody", "else", None).await.unwrap();
    let revision = done(&store, put("a", "2")).await;
    assert_eq!(store.get(&key("a")).await.unwrap().unwrap().modified, revision);
    assert!(store.beat().await.unwrap() > revision);

    fs::write(&ours.password_file, "another\n").unwrap();
    connect().await.unwrap().user_change_password("wattle", "another").await.unwrap();
    done(&store, put("a", "3")).await;
    assert!(store.head().await.is_ok());
    shutdown.begin();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn meshes_that_share_an_etcd_see_nothing_of_each_other() {
    let cluster = EtcdCluster::start(Version::V36, 1).unwrap();
    let (one, _end) = client(&cluster.urls(), "/mesh/");
    let (two, _end_two) = client(&cluster.urls(), "/mesh/two/");
    let start = one.head().await.unwrap();
    let mut watch = one.watch(&Key::new("v1/"), start).await.unwrap();
    done(&two, put("a", "two")).await;
    let last = done(&one, put("a", "one")).await;
    assert_eq!(futures::StreamExt::next(&mut watch).await.unwrap().unwrap().revision, last);
    for (store, value) in [(&one, "one"), (&two, "two")] {
        let page = store.list(&Key::new("v1/"), None, 10).await.unwrap();
        let values: Vec<_> = page.items.iter().map(|item| item.value.clone()).collect();
        assert_eq!(values, [value]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_announced_goes_with_its_process() {
    let cluster = EtcdCluster::start(Version::V34, 1).unwrap();
    let (reader, _end) = client(&cluster.urls(), "/live/");
    let config = EtcdConfig {
        endpoints: cluster.urls().iter().map(|url| url.parse().unwrap()).collect(),
        prefix: "/live/".parse().unwrap(),
        tls: None,
        user: None,
    };
    let shutdown = Shutdown::new();
    let store = Etcd::open(&config, &shutdown).unwrap();
    let key = Key::new("v1/live/replica/1");
    store.announce(key.clone(), "here".into()).await.unwrap();
    store.beat().await.unwrap();
    assert_eq!(reader.list(&Key::new("v1/live/"), None, 10).await.unwrap().items.len(), 2);

    // Its lease taken from it, it announces all of it again.
    let mut etcd = etcd_client::Client::connect(cluster.urls(), None).await.unwrap();
    for lease in etcd.leases().await.unwrap().leases() {
        etcd.lease_revoke(lease.id()).await.unwrap();
    }
    assert!(reader.get(&key).await.unwrap().is_none());
    store.beat().await.unwrap();
    assert_eq!(reader.get(&key).await.unwrap().unwrap().value, "here");

    shutdown.drain(std::time::Duration::from_secs(5)).await;
    let left = reader.list(&Key::new("v1/live/"), None, 10).await.unwrap();
    assert!(left.items.is_empty(), "{left:?}");
}
