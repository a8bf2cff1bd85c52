//! The CA's files and the store's roots: how a control plane begins with them, and how a running
//! replica follows both.
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::{fs, os::unix::fs::symlink, path::Path, sync::Arc, time::SystemTime};

use prost::Message as _;
use tempfile::TempDir;
use wattle_certs::{Ca, certificate_to_pem};
use wattle_controlplane::{
    authority::{Authority, CaFiles, Roots, Trust, follow},
    cluster::{self, Cluster, ClusterError},
    store::{Outcome, Store, Transaction, embedded::Embedded, keys},
};
use wattle_proto::store as proto;

/// A store and a folder.
struct Place {
    store: Arc<dyn Store>,
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Embedded::open(&folder.path().join("store.redb")).unwrap());
        Self { store, folder }
    }

    fn files(&self) -> CaFiles {
        CaFiles::of(self.folder.path())
    }

    async fn open(&self, files: &CaFiles) -> Result<Cluster, ClusterError> {
        cluster::open(self.store.as_ref(), files, SystemTime::now()).await
    }

    async fn record(&self) -> proto::Cluster {
        let stored = self.store.get(&keys::cluster()).await.unwrap().unwrap();
        proto::Cluster::decode(stored.value).unwrap()
    }

    async fn change(&self, change: impl FnOnce(Roots) -> Roots) {
        let mut record = self.record().await;
        change(Roots::read(&record).unwrap()).write(&mut record);
        let put = Transaction::default().put(keys::cluster(), record.encode_to_vec().into());
        assert!(matches!(self.store.commit(put).await.unwrap(), Outcome::Committed(_)));
    }
}

fn ca() -> Ca {
    Ca::generate(&"mesh.example".parse().unwrap(), SystemTime::now())
}

/// As a mounted secret: the names lead through `..data` to a folder that is swapped as a whole.
fn mount(at: &Path, version: &str, certificates: &[&Ca], key: &Ca) -> CaFiles {
    let folder = at.join(version);
    fs::create_dir(&folder).unwrap();
    let bundle: String =
        certificates.iter().map(|ca| certificate_to_pem(ca.certificate())).collect();
    fs::write(folder.join("tls.crt"), bundle).unwrap();
    fs::write(folder.join("tls.key"), key.key_pem().as_bytes()).unwrap();
    symlink(version, at.join("..next")).unwrap();
    fs::rename(at.join("..next"), at.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        let _ = symlink(Path::new("..data").join(name), at.join(name));
    }
    CaFiles { certificate: at.join("tls.crt"), key: at.join("tls.key") }
}

#[tokio::test]
async fn a_new_control_plane_takes_the_ca_it_is_given() {
    let (place, mounted, ca, other) =
        (Place::new(), tempfile::tempdir().unwrap(), ca(), self::ca());
    let files = mount(mounted.path(), "..1", &[&other, &ca], &ca);
    let cluster = place.open(&files).await.unwrap();
    assert_eq!(cluster.trust.ca.pin(), ca.pin(), "the one whose key is there");
    assert_eq!(cluster.trust_domain.as_str(), "mesh.example");
    assert_eq!(cluster.trust.roots.trusted(), [ca.certificate().clone()]);
    assert!(!place.files().key.exists(), "no other one is made");
    // A second replica with the same secret, and one with none.
    assert_eq!(place.open(&files).await.unwrap().epoch, cluster.epoch);
    let error = place.open(&place.files()).await.unwrap_err().to_string();
    assert!(error.contains("ca.key: no such file") && error.contains("--ca-key"), "{error}");
    assert!(!place.files().key.exists(), "and none is invented");
}

#[tokio::test]
async fn where_no_ca_can_be_written_none_is_invented() {
    let place = Place::new();
    let nowhere = CaFiles::of(&place.folder.path().join("store.redb"));
    let error = place.open(&nowhere).await.unwrap_err().to_string();
    assert!(error.contains("wattle-controlplane ca init"), "{error}");
    assert!(place.store.get(&keys::cluster()).await.unwrap().is_none());
}

/// Replicas that begin together on one empty store: one makes the CA, the others are told where to
/// get it and leave nothing behind.
#[tokio::test]
async fn of_replicas_that_begin_together_one_makes_the_ca() {
    let (place, folders) = (Place::new(), [(); 3].map(|()| tempfile::tempdir().unwrap()));
    let files: Vec<_> = folders.iter().map(|folder| CaFiles::of(folder.path())).collect();
    let opened = futures::future::join_all(files.iter().map(|files| place.open(files))).await;
    let (mut made, mut refused) = (0, 0);
    for (opened, files) in opened.iter().zip(&files) {
        assert_eq!(opened.is_ok(), files.key.exists(), "{opened:?}");
        made += usize::from(opened.is_ok());
        refused += usize::from(matches!(opened, Err(ClusterError::Files(_))));
    }
    assert_eq!((made, refused), (1, 2), "{opened:?}");
}

#[tokio::test]
async fn a_half_moved_store_is_nobody_s() {
    let place = Place::new();
    let marker = proto::Moving { from: "a backup".into(), begun_at_millis: 1 };
    let put = Transaction::default().put(keys::moving(), marker.encode_to_vec().into());
    let _ = place.store.commit(put).await.unwrap();
    let error = place.open(&place.files()).await.unwrap_err().to_string();
    assert!(error.contains("from a backup are half-way"), "{error}");
    assert!(!place.files().key.exists());
}

/// The whole way of a replica through a rotation: it trusts the new root when the store does, signs
/// with it when its file is swapped, says so, and gives up the old one when the store does.
#[tokio::test]
async fn a_running_replica_follows_the_store_and_the_file() {
    let (place, mounted) = (Place::new(), tempfile::tempdir().unwrap());
    let (old, new) = (ca(), ca());
    let files = mount(mounted.path(), "..1", &[&old], &old);
    let cluster = place.open(&files).await.unwrap();
    let authority = Authority::new(cluster.trust).unwrap();
    let mut changes = authority.changes();
    let look = || follow::look(&authority, &files, place.store.as_ref());
    assert_eq!(look().await.unwrap(), None);
    assert!(!changes.has_changed().unwrap(), "nothing has");

    let cross = old.cross_sign(new.certificate(), SystemTime::now()).unwrap();
    place.change(|roots| roots.with(new.certificate().clone(), cross).unwrap()).await;
    assert_eq!(look().await.unwrap(), None);
    assert!(changes.has_changed().unwrap());
    let now = changes.borrow_and_update().clone();
    assert_eq!((now.ca.pin(), now.roots.trusted().len()), (old.pin(), 2));
    assert_eq!(now.chain(), [old.certificate().clone()]);

    mount(mounted.path(), "..2", &[&new, &old], &new);
    assert_eq!(look().await.unwrap(), None);
    let now = authority.now();
    assert_eq!((now.ca.pin(), now.chain().len()), (new.pin(), 3));
    assert_eq!(now.token_pin(), old.pin(), "which every replica can prove");
    assert_eq!(Roots::read(&place.record().await).unwrap().signing(), new.pin(), "it says so");
    assert_eq!(look().await.unwrap(), None);
    assert_eq!(authority.now().told[0], new.certificate().as_ref(), "and everybody is told");

    // Another replica's key is still the old one: it takes nothing back.
    let late = Authority::new(Trust::new(Arc::new(old), authority.now().roots.clone())).unwrap();
    follow::look(&late, &place.files(), place.store.as_ref()).await.unwrap().unwrap();
    assert_eq!(Roots::read(&place.record().await).unwrap().signing(), new.pin());

    place.change(|roots| roots.retire(SystemTime::now()).unwrap()).await;
    assert_eq!(look().await.unwrap(), None);
    let now = authority.now();
    assert_eq!(now.roots.trusted(), [new.certificate().clone()]);
    assert_eq!((now.token_pin(), now.chain().len()), (new.pin(), 3), "old tokens still find it");
}

/// A key of nobody's is said once, and changes nothing.
#[tokio::test]
async fn a_file_that_makes_no_sense_leaves_the_key_that_does() {
    let place = Place::new();
    let cluster = place.open(&place.files()).await.unwrap();
    let (pin, authority) = (cluster.trust.ca.pin(), Authority::new(cluster.trust).unwrap());
    for (text, words) in
        [(ca().key_pem().to_string(), "none of the store's"), ("x".into(), "ca.key")]
    {
        fs::write(place.files().key, text).unwrap();
        let problem = follow::look(&authority, &place.files(), place.store.as_ref()).await.unwrap();
        assert!(problem.as_ref().is_some_and(|problem| problem.contains(words)), "{problem:?}");
        assert_eq!(authority.now().ca.pin(), pin);
    }
    fs::remove_file(place.files().key).unwrap();
    let problem = follow::look(&authority, &place.files(), place.store.as_ref()).await.unwrap();
    assert!(problem.is_some() && authority.now().ca.pin() == pin);
}

/// Said as any other problem of the CA, and the replica goes on with what it knows.
#[tokio::test]
async fn roots_that_make_no_sense_leave_those_that_do() {
    let place = Place::new();
    let cluster = place.open(&place.files()).await.unwrap();
    let (pin, authority) = (cluster.trust.ca.pin(), Authority::new(cluster.trust).unwrap());
    for value in [&b"\xff\xff"[..], b""] {
        let put = Transaction::default().put(keys::cluster(), value.to_vec().into());
        assert!(matches!(place.store.commit(put).await.unwrap(), Outcome::Committed(_)));
        let problem = follow::look(&authority, &place.files(), place.store.as_ref()).await.unwrap();
        let named = |problem: &String| problem.contains("v1/meta/cluster");
        assert!(problem.as_ref().is_some_and(named), "{problem:?}");
        assert_eq!(authority.now().ca.pin(), pin);
    }
}
