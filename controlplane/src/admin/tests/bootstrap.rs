//! The first operator: made once, found after an interruption, never made again.

use std::{fs, os::unix::fs::PermissionsExt as _, time::SystemTime};

use wattle_certs::{KeyPair, certificates_from_pem, peer_identity};
use wattle_proto::{admin::Role, store as record};
use wattle_runtime::credential::OperatorCredential;

use super::world::World;
use crate::{
    admin::{BootstrapError, bootstrap_credential},
    store::{Store as _, Transaction, keys},
};

#[tokio::test]
async fn the_first_start_makes_an_administrator_and_their_file() {
    let world = World::new().await;
    let path = world.folder.path().join("operator.json");
    assert!(bootstrap_credential(&world.replica, &path, SystemTime::now()).await.unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let credential = OperatorCredential::load(&path).unwrap();
    let key = KeyPair::from_pem(credential.private_key.expose()).unwrap();
    let certificate = certificates_from_pem(&credential.certificate).unwrap().remove(0);
    assert_eq!(peer_identity(&certificate).unwrap().fingerprint, key.fingerprint());
    let stored = world.operator_record(credential.id).await;
    assert_eq!((stored.name.as_str(), stored.role()), ("admin", record::Role::Admin));
    assert_eq!(stored.fingerprint, key.fingerprint().as_bytes().as_slice());

    let (before, head) = (fs::read(&path).unwrap(), world.head().await);
    assert!(!bootstrap_credential(&world.replica, &path, SystemTime::now()).await.unwrap());
    assert_eq!((fs::read(&path).unwrap(), world.head().await), (before, head));
}

#[tokio::test]
async fn an_interrupted_first_start_goes_on_with_the_file_that_is_there() {
    let world = World::new().await;
    let path = world.folder.path().join("operator.json");
    bootstrap_credential(&world.replica, &path, SystemTime::now()).await.unwrap();
    let credential = OperatorCredential::load(&path).unwrap();
    // As if the process had ended between the file and the record.
    let undo = Transaction::default()
        .delete(keys::operator(credential.id))
        .delete(keys::operator_name(&credential.name));
    let _ = world.store.commit(undo).await.unwrap();
    let before = fs::read(&path).unwrap();
    assert!(bootstrap_credential(&world.replica, &path, SystemTime::now()).await.unwrap());
    assert_eq!(fs::read(&path).unwrap(), before);
    assert!(!world.operator_record(credential.id).await.revoked);
}

#[tokio::test]
async fn where_there_are_operators_a_missing_file_stays_missing() {
    let world = World::new().await;
    world.operator("ann", Role::Admin).await;
    let path = world.folder.path().join("operator.json");
    assert!(!bootstrap_credential(&world.replica, &path, SystemTime::now()).await.unwrap());
    assert!(!path.exists());
}

/// Revoked, and so long ago that the horizon has passed it: the file is no way back in.
#[tokio::test]
async fn a_first_operator_who_was_forgotten_does_not_come_back() {
    let world = World::new().await;
    let path = world.folder.path().join("operator.json");
    bootstrap_credential(&world.replica, &path, SystemTime::now()).await.unwrap();
    let credential = OperatorCredential::load(&path).unwrap();
    let forget = Transaction::default().delete(keys::operator(credential.id));
    let _ = world.store.commit(forget).await.unwrap();
    assert!(!bootstrap_credential(&world.replica, &path, SystemTime::now()).await.unwrap());
    assert!(world.store.get(&keys::operator(credential.id)).await.unwrap().is_none());
    std::fs::remove_file(&path).unwrap();
    assert!(!bootstrap_credential(&world.replica, &path, SystemTime::now()).await.unwrap());
    assert!(!path.exists());
    // Others may have the name.
    world.operator("admin", Role::Admin).await;
}

#[tokio::test]
async fn a_file_of_another_control_plane_is_refused_and_left_alone() {
    let (world, other) = (World::new().await, World::new().await);
    let path = world.folder.path().join("operator.json");
    bootstrap_credential(&other.replica, &path, SystemTime::now()).await.unwrap();
    let (before, head) = (fs::read(&path).unwrap(), world.head().await);
    let refused = bootstrap_credential(&world.replica, &path, SystemTime::now()).await;
    assert!(matches!(refused, Err(BootstrapError::Foreign)), "{refused:?}");
    assert_eq!((fs::read(&path).unwrap(), world.head().await), (before, head));
}
