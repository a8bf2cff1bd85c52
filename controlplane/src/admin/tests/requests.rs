//! Request ids: a change happens once, however often it is asked for.

use bytes::Bytes;
use tonic::Code;
use wattle_model::OperatorId;
use wattle_proto::admin::{
    CreateJoinTokenRequest, CreateNetworkRequest, DeleteNetworkRequest, GetNetworkRequest, Mode,
    UpdateNetworkRequest, admin_service_server::AdminService as _,
};

use super::world::{World, by, local, operator, refused, said};
use crate::access::Principal;

fn create(id: &'static [u8], name: &str) -> CreateNetworkRequest {
    let request_id = Bytes::from_static(id);
    CreateNetworkRequest { request_id, name: name.into(), ..Default::default() }
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer_and_changes_nothing() {
    let world = World::new().await;
    let first = said(world.admin.create_network(local(create(b"1", "lab"))).await);
    assert_eq!(first.revision, world.head().await.0);
    assert_eq!(first.network.as_ref().unwrap().revision, first.revision);
    world.network("other", "10.1.0.0/16").await;
    let head = world.head().await;
    let again = said(world.admin.create_network(local(create(b"1", "lab"))).await);
    assert_eq!((again, world.head().await), (first, head));
}

#[tokio::test]
async fn the_answer_stays_the_first_one_when_the_thing_has_moved_on() {
    let world = World::new().await;
    let first = said(world.admin.create_network(local(create(b"1", "lab"))).await);
    let request_id = world.id();
    let delete = DeleteNetworkRequest { request_id, name: "lab".into() };
    said(world.admin.delete_network(local(delete)).await);
    let again = said(world.admin.create_network(local(create(b"1", "lab"))).await);
    assert_eq!(again, first);
    let get = GetNetworkRequest { name: "lab".into() };
    let status = refused(world.admin.get_network(local(get)).await);
    assert_eq!(status.code(), Code::NotFound, "it wasn't made again");
}

#[tokio::test]
async fn the_same_id_with_another_body_or_method_is_refused() {
    let world = World::new().await;
    said(world.admin.create_network(local(create(b"1", "lab"))).await);
    let head = world.head().await;
    let other = refused(world.admin.create_network(local(create(b"1", "lab2"))).await);
    // The same bytes on the wire: request_id and name have the same numbers in both messages.
    let delete = DeleteNetworkRequest { request_id: Bytes::from_static(b"1"), name: "lab".into() };
    let method = refused(world.admin.delete_network(local(delete)).await);
    for status in [other, method] {
        assert_eq!(status.code(), Code::AlreadyExists);
        assert!(status.message().starts_with("request_id: "), "{status}");
    }
    assert_eq!(world.head().await, head);
}

#[tokio::test]
async fn ids_of_two_operators_have_nothing_to_do_with_each_other() {
    let world = World::new().await;
    let ann = operator(OperatorId::new([1; 16]), "ann");
    let bob = operator(OperatorId::new([2; 16]), "bob");
    said(world.admin.create_network(by(ann, create(b"1", "anns"))).await);
    said(world.admin.create_network(by(bob, create(b"1", "bobs"))).await);
    said(world.admin.create_network(local(create(b"1", "locals"))).await);
}

#[tokio::test]
async fn whoever_is_no_operator_changes_nothing_even_past_the_access_check() {
    let world = World::new().await;
    let request = by(Principal::Anonymous, create(b"1", "lab"));
    let status = refused(world.admin.create_network(request).await);
    assert_eq!(status.code(), Code::PermissionDenied);
    let unchecked = tonic::Request::new(create(b"1", "lab"));
    assert_eq!(refused(world.admin.create_network(unchecked).await).code(), Code::Internal);
}

#[tokio::test]
async fn a_request_id_has_1_to_64_bytes() {
    let world = World::new().await;
    let head = world.head().await;
    for id in [&b""[..], &[1; 65]] {
        let request_id = Bytes::copy_from_slice(id);
        let request = CreateNetworkRequest { request_id, ..create(b"", "lab") };
        let status = refused(world.admin.create_network(local(request)).await);
        assert_eq!(status.code(), Code::InvalidArgument);
        let expected = format!("request_id: 1 to 64 bytes, got {}", id.len());
        assert_eq!(status.message(), expected);
    }
    assert_eq!(world.head().await, head);
    said(world.admin.create_network(local(create(&[7; 64], "lab"))).await);
}

#[tokio::test]
async fn a_token_is_shown_once() {
    let world = World::new().await;
    let request = CreateJoinTokenRequest {
        request_id: world.id(),
        network: "default".into(),
        ..Default::default()
    };
    let first = said(world.admin.create_join_token(local(request.clone())).await);
    let again = said(world.admin.create_join_token(local(request)).await);
    assert!(first.token.starts_with("wattle1_") && again.token.is_empty());
    assert_eq!((again.join_token, again.revision), (first.join_token, first.revision));
}

#[tokio::test]
async fn a_request_that_was_refused_may_be_repeated_and_work() {
    let world = World::new().await;
    let update = UpdateNetworkRequest {
        request_id: world.id(),
        name: "lab".into(),
        mode: Mode::Closed.into(),
        ..Default::default()
    };
    let status = refused(world.admin.update_network(local(update.clone())).await);
    assert_eq!(status.code(), Code::NotFound);
    world.network("lab", "10.1.0.0/16").await;
    said(world.admin.update_network(local(update)).await);
}

#[tokio::test]
async fn a_change_to_what_is_so_already_has_a_revision_and_no_effect() {
    let world = World::new().await;
    let made = world.network("lab", "10.1.0.0/16").await;
    let update = UpdateNetworkRequest {
        request_id: world.id(),
        name: "lab".into(),
        mode: Mode::Mesh.into(),
        ..Default::default()
    };
    let answer = said(world.admin.update_network(local(update.clone())).await);
    assert_eq!(answer.revision, world.head().await.0);
    assert_eq!(answer.network.as_ref().unwrap().revision, made);
    assert_eq!(said(world.admin.update_network(local(update)).await), answer);
}

#[tokio::test]
async fn the_same_request_sent_twice_at_once_is_done_once() {
    let world = World::new().await;
    let request = || local(create(b"1", "lab"));
    let (a, b) =
        tokio::join!(world.admin.create_network(request()), world.admin.create_network(request()));
    assert_eq!(said(a), said(b));
}
