//! What networks may become, and what keeps them as they are.

use tonic::Code;
use wattle_proto::admin::{
    CreateNetworkRequest, DeleteNetworkRequest, DeleteNodeRequest, GetNetworkRequest, Mode,
    NodeRef, UpdateNetworkRequest, admin_service_server::AdminService as _,
};

use super::world::{World, local, refused, said};
use crate::store::{Store as _, keys};

async fn delete(world: &World, name: &str) -> Result<u64, tonic::Status> {
    let request = DeleteNetworkRequest { request_id: world.id(), name: name.into() };
    Ok(world.admin.delete_network(local(request)).await?.into_inner().revision)
}

fn update(world: &World, name: &str) -> UpdateNetworkRequest {
    let request_id = world.id();
    UpdateNetworkRequest { request_id, name: name.into(), ..Default::default() }
}

#[tokio::test]
async fn a_network_without_wishes_gets_a_range_of_its_own() {
    let world = World::new().await;
    let request =
        CreateNetworkRequest { request_id: world.id(), name: "lab".into(), ..Default::default() };
    let network = said(world.admin.create_network(local(request)).await).network.unwrap();
    assert!(network.ipv4_range.is_empty() && network.ipv6_range.starts_with("fd"));
    assert!(network.ipv6_range.ends_with("::/64"), "{}", network.ipv6_range);
    assert_eq!(network.mode(), Mode::Mesh);
    let get = GetNetworkRequest { name: "lab".into() };
    assert_eq!(said(world.admin.get_network(local(get)).await).network, Some(network));
}

#[tokio::test]
async fn ranges_move_while_nobody_lives_there() {
    let world = World::new().await;
    world.network("lab", "10.1.0.0/16").await;
    let moved = UpdateNetworkRequest {
        ipv4_range: Some(String::new()),
        ipv6_range: Some("fd00::/64".into()),
        ..update(&world, "lab")
    };
    let answer = said(world.admin.update_network(local(moved)).await);
    let network = answer.network.unwrap();
    assert_eq!((network.ipv4_range.as_str(), network.ipv6_range.as_str()), ("", "fd00::/64"));
    assert_eq!((network.revision, network.mode()), (answer.revision, Mode::Mesh));
    // What it had is free for others.
    world.network("lab2", "10.1.0.0/16").await;
}

#[tokio::test]
async fn a_network_has_an_mtu_of_its_own_until_the_path_s_is_wished_again() {
    let world = World::new().await;
    let request = CreateNetworkRequest {
        request_id: world.id(),
        name: "lab".into(),
        ipv4_range: "10.1.0.0/16".into(),
        mtu: 1000,
        ..Default::default()
    };
    let made = said(world.admin.create_network(local(request)).await).network.unwrap();
    assert_eq!(made.mtu, 1000);
    let closed = UpdateNetworkRequest { mode: Mode::Closed.into(), ..update(&world, "lab") };
    let closed = said(world.admin.update_network(local(closed)).await).network.unwrap();
    assert_eq!((closed.mtu, closed.mode()), (1000, Mode::Closed), "it stays");

    // IPv6 needs more: whichever of the two comes first.
    let ipv6 =
        || UpdateNetworkRequest { ipv6_range: Some("fd00::/64".into()), ..update(&world, "lab") };
    let status = refused(world.admin.update_network(local(ipv6())).await);
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("mtu: 1000 bytes are too few"), "{status}");
    let both = UpdateNetworkRequest { mtu: Some(1280), ..ipv6() };
    let both = said(world.admin.update_network(local(both)).await).network.unwrap();
    assert_eq!((both.mtu, both.ipv6_range.as_str()), (1280, "fd00::/64"));

    let free = UpdateNetworkRequest { mtu: Some(0), ..update(&world, "lab") };
    assert_eq!(said(world.admin.update_network(local(free)).await).network.unwrap().mtu, 0);
    let get = GetNetworkRequest { name: "lab".into() };
    assert_eq!(said(world.admin.get_network(local(get)).await).network.unwrap().mtu, 0);
}

#[tokio::test]
async fn a_network_with_nodes_keeps_its_ranges_and_its_life_but_not_its_mode() {
    let world = World::new().await;
    world.network("lab", "10.1.0.0/16").await;
    let token = world.token("lab", 1).await;
    let node = world.enroll(&token, "a").await;
    let head = world.head().await;
    let range =
        || UpdateNetworkRequest { ipv4_range: Some("10.2.0.0/16".into()), ..update(&world, "lab") };
    let moved = refused(world.admin.update_network(local(range())).await);
    let deleted = delete(&world, "lab").await.unwrap_err();
    for (status, field) in [(moved, "ipv4_range"), (deleted, "name")] {
        assert_eq!(status.code(), Code::FailedPrecondition);
        let expected = format!("{field}: nodes live in network lab: delete them first");
        assert_eq!(status.message(), expected);
    }
    assert_eq!(world.head().await, head);
    let closed = UpdateNetworkRequest { mode: Mode::Closed.into(), ..update(&world, "lab") };
    let network = said(world.admin.update_network(local(closed)).await).network.unwrap();
    assert_eq!((network.mode(), network.ipv4_range.as_str()), (Mode::Closed, "10.1.0.0/16"));

    let gone = NodeRef { network: "lab".into(), node: node.node.to_string() };
    let request = DeleteNodeRequest { request_id: world.id(), node: Some(gone) };
    said(world.admin.delete_node(local(request)).await);
    said(world.admin.update_network(local(range())).await);
    delete(&world, "lab").await.unwrap();
}

#[tokio::test]
async fn a_deleted_network_may_be_made_anew_and_its_tokens_open_nothing() {
    let world = World::new().await;
    world.network("lab", "10.1.0.0/16").await;
    let token = world.token("lab", 0).await;
    delete(&world, "lab").await.unwrap();
    let missing = delete(&world, "lab").await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    assert_eq!(missing.message(), "name: there is no network lab");
    let revision = world.network("lab", "10.9.0.0/16").await;
    let get = GetNetworkRequest { name: "lab".into() };
    let network = said(world.admin.get_network(local(get)).await).network.unwrap();
    assert_eq!((network.ipv4_range.as_str(), network.revision), ("10.9.0.0/16", revision));
    let stored = world.store.get(&keys::join_token(token.id)).await.unwrap().unwrap();
    let stored: wattle_proto::store::JoinToken = prost::Message::decode(stored.value).unwrap();
    assert!(stored.revoked);
}

#[tokio::test]
async fn more_tokens_than_one_transaction_holds_are_named_as_the_limit() {
    let world = World::new().await;
    world.network("lab", "10.1.0.0/16").await;
    for _ in 0..101 {
        world.token("lab", 1).await;
    }
    let head = world.head().await;
    let status = delete(&world, "lab").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("more than 100 live join tokens"), "{status}");
    assert_eq!(world.head().await, head);
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let world = World::new().await;
    let request = CreateNetworkRequest {
        request_id: world.id(),
        name: "default".into(),
        ..Default::default()
    };
    let status = refused(world.admin.create_network(local(request)).await);
    assert_eq!(status.code(), Code::AlreadyExists);
    assert!(status.message().starts_with("name: there is a network default already"), "{status}");
}
