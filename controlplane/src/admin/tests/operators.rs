//! Operators: certificates, names, and the last administrator.

use bytes::Bytes;
use prost::Message as _;
use tonic::{Code, Status};
use wattle_certs::{Identity, KeyPair, peer_identity};
use wattle_model::OperatorId;
use wattle_proto::{
    admin::{
        CreateOperatorRequest, ListOperatorsRequest, RevokeOperatorRequest, Role,
        admin_service_server::AdminService as _,
    },
    store as record,
};

use super::world::{World, local, refused, said};
use crate::store::{Store as _, Transaction, keys};

async fn revoke(world: &World, id: OperatorId) -> Result<u64, Status> {
    let id = Bytes::copy_from_slice(id.as_bytes());
    let request = RevokeOperatorRequest { request_id: world.id(), id };
    Ok(world.admin.revoke_operator(local(request)).await?.into_inner().revision)
}

fn create(world: &World, name: &str) -> CreateOperatorRequest {
    CreateOperatorRequest {
        request_id: world.id(),
        name: name.into(),
        role: Role::Viewer.into(),
        csr: KeyPair::generate().csr().into(),
        time_to_live: None,
    }
}

#[tokio::test]
async fn a_certificate_says_who_and_has_the_requests_key() {
    let world = World::new().await;
    let key = KeyPair::generate();
    let request = CreateOperatorRequest { csr: key.csr().into(), ..create(&world, "ann") };
    let made = said(world.admin.create_operator(local(request.clone())).await);
    let peer = peer_identity(&made.certificate.to_vec().into()).unwrap();
    let id = OperatorId::try_from(made.operator.as_ref().unwrap().id.as_ref()).unwrap();
    assert_eq!((peer.id.identity, peer.fingerprint), (Identity::Operator(id), key.fingerprint()));
    assert_eq!(made.control_planes, world.replica.advertised);
    let stored = world.operator_record(id).await;
    assert_eq!(stored.fingerprint, key.fingerprint().as_bytes().as_slice());
    assert_eq!(stored.role(), record::Role::Viewer);
    // Whoever lost the answer gets the same certificate again: it is no secret.
    assert_eq!(said(world.admin.create_operator(local(request)).await), made);
}

#[tokio::test]
async fn a_name_is_free_again_once_nobody_live_has_it() {
    let world = World::new().await;
    let ann = world.operator("ann", Role::Viewer).await;
    let status = refused(world.admin.create_operator(local(create(&world, "ann"))).await);
    assert_eq!(status.code(), Code::AlreadyExists);
    assert!(status.message().starts_with("name: there is an operator ann already"), "{status}");
    revoke(&world, ann).await.unwrap();
    let second = world.operator("ann", Role::Viewer).await;

    let stored = world.operator_record(second).await;
    let expired = record::Operator { expires_at_millis: 1, ..stored }.encode_to_vec();
    let transaction = Transaction::default().put(keys::operator(second), expired.into());
    let _ = world.store.commit(transaction).await.unwrap();
    let third = world.operator("ann", Role::Viewer).await;
    let list = said(world.admin.list_operators(local(ListOperatorsRequest::default())).await);
    assert_eq!(list.operators.len(), 3, "who once was is still listed");
    assert!(third != second && second != ann);
}

#[tokio::test]
async fn the_last_live_administrator_stays() {
    let world = World::new().await;
    let ann = world.operator("ann", Role::Admin).await;
    let bob = world.operator("bob", Role::Admin).await;
    let viewer = world.operator("eve", Role::Viewer).await;
    revoke(&world, ann).await.unwrap();
    let head = world.head().await;
    let status = revoke(&world, bob).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("last administrator: create another"), "{status}");
    assert_eq!(world.head().await, head);
    // Others may go, and one who is gone may be revoked again.
    revoke(&world, viewer).await.unwrap();
    revoke(&world, ann).await.unwrap();
    world.operator("carol", Role::Admin).await;
    revoke(&world, bob).await.unwrap();
    assert!(world.operator_record(bob).await.revoked);
    let unknown = revoke(&world, OperatorId::new([9; 16])).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn an_administrator_whose_time_is_up_is_not_the_last_one() {
    let world = World::new().await;
    let ann = world.operator("ann", Role::Admin).await;
    let bob = world.operator("bob", Role::Admin).await;
    let stored = world.operator_record(bob).await;
    let expired = record::Operator { expires_at_millis: 1, ..stored }.encode_to_vec();
    let transaction = Transaction::default().put(keys::operator(bob), expired.into());
    let _ = world.store.commit(transaction).await.unwrap();
    assert_eq!(revoke(&world, ann).await.unwrap_err().code(), Code::FailedPrecondition);
    revoke(&world, bob).await.unwrap();
}
