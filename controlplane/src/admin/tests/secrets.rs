//! Preshared keys as an option of a network, and its secret: changed by operators, seen by none of them.

use tonic::Code;
use wattle_model::Generation;
use wattle_proto::admin::{
    CreateNetworkRequest, DeleteNetworkRequest, GetNetworkRequest, GetNodeRequest, Network,
    NetworkSpec, NodeRef, Resource, RotateNetworkSecretRequest, UpdateNetworkRequest,
    admin_service_server::AdminService as _, applied::Action, resource::Kind,
};

use super::world::{World, local, refused, said};
use crate::{
    secrets::{NetworkSecrets, ReadSecrets},
    store::{Store as _, keys},
};

async fn get(world: &World, name: &str) -> Network {
    let get = GetNetworkRequest { name: name.into() };
    said(world.admin.get_network(local(get)).await).network.unwrap()
}

async fn turn(world: &World, on: bool) -> Network {
    let request = UpdateNetworkRequest {
        request_id: world.id(),
        name: "default".into(),
        preshared_keys: Some(on),
        ..Default::default()
    };
    said(world.admin.update_network(local(request)).await).network.unwrap()
}

fn rotate(world: &World, force: bool) -> RotateNetworkSecretRequest {
    RotateNetworkSecretRequest { request_id: world.id(), name: "default".into(), force }
}

async fn secrets(world: &World, name: &str) -> NetworkSecrets {
    ReadSecrets::of(&*world.store, &name.parse().unwrap()).await.unwrap().secrets
}

fn generations(secrets: &NetworkSecrets) -> Vec<u64> {
    secrets.told().iter().map(|told| told.generation).collect()
}

#[tokio::test]
async fn an_option_turned_on_makes_a_secret_and_turned_off_ends_it() {
    let world = World::new().await;
    assert!(!get(&world, "default").await.preshared_keys);
    assert!(turn(&world, true).await.preshared_keys);
    let on = get(&world, "default").await;
    assert_eq!(on.secret.unwrap().generation, 1);
    assert_eq!(generations(&secrets(&world, "default").await), [1]);
    // Said again, it is the same.
    assert_eq!(turn(&world, true).await.revision, on.revision);
    assert_eq!(generations(&secrets(&world, "default").await), [1]);
    let node = world.node("web-1").await.node;
    world.nodes.report(node, &[], None, Generation(1)).await.unwrap();
    assert!(!turn(&world, false).await.preshared_keys);
    let off = secrets(&world, "default").await.told();
    assert_eq!((off[0].generation, off[1].generation, off[1].secret.len()), (1, 2, 0));
    world.reached().await;
    assert_eq!(get(&world, "default").await.secret.unwrap().nodes_behind, 1, "it still has them");
    world.nodes.report(node, &[], None, Generation(2)).await.unwrap();
    world.reached().await;
    assert_eq!(get(&world, "default").await.secret, None);
    let none = refused(world.admin.rotate_network_secret(local(rotate(&world, true))).await);
    assert_eq!(none.code(), Code::FailedPrecondition);
    turn(&world, true).await;
    assert_eq!(generations(&secrets(&world, "default").await), [2, 3], "no number comes twice");
}

#[tokio::test]
async fn a_network_made_with_them_has_a_secret_and_leaves_none_behind() {
    let world = World::new().await;
    let request = CreateNetworkRequest {
        request_id: world.id(),
        name: "lab".into(),
        preshared_keys: true,
        ..Default::default()
    };
    let network = said(world.admin.create_network(local(request)).await).network.unwrap();
    assert!(network.preshared_keys && network.secret.is_none());
    assert_eq!(get(&world, "lab").await.secret.unwrap().generation, 1);
    let request = DeleteNetworkRequest { request_id: world.id(), name: "lab".into() };
    said(world.admin.delete_network(local(request)).await);
    let key = keys::secret(&"lab".parse().unwrap());
    assert_eq!(world.store.get(&key).await.unwrap(), None);
}

#[tokio::test]
async fn another_secret_waits_for_who_goes_by_the_one_before() {
    let world = World::new().await;
    let none = refused(world.admin.rotate_network_secret(local(rotate(&world, false))).await);
    assert_eq!(none.code(), Code::FailedPrecondition);
    assert!(none.message().contains("--preshared-keys on"), "{none}");
    turn(&world, true).await;
    let (web, db) = (world.node("web-1").await.node, world.node("db-1").await.node);
    let holds = async |node, generation| {
        world.nodes.report(node, &[], None, Generation(generation)).await.unwrap();
    };
    holds(web, 1).await;
    let request = rotate(&world, false);
    let answer = said(world.admin.rotate_network_secret(local(request.clone())).await);
    assert_eq!(answer.network.as_ref().unwrap().secret.as_ref().unwrap().generation, 2);
    assert_eq!(said(world.admin.rotate_network_secret(local(request)).await), answer, "repeated");
    assert_eq!(generations(&secrets(&world, "default").await), [1, 2]);

    let head = world.head().await;
    let early = refused(world.admin.rotate_network_secret(local(rotate(&world, false))).await);
    assert_eq!(early.code(), Code::FailedPrecondition);
    let expected =
        "name: 1 of network default still go by the secret before generation 2 (web-1): ";
    assert!(early.message().starts_with(expected), "{early}");
    assert_eq!(world.head().await, head);
    let standing = get(&world, "default").await.secret.unwrap();
    assert_eq!((standing.nodes_holding, standing.nodes_behind, standing.nodes_without), (0, 1, 1));

    holds(web, 2).await;
    holds(db, 2).await;
    let node = NodeRef { network: "default".into(), node: "web-1".into() };
    let node = said(world.admin.get_node(local(GetNodeRequest { node: Some(node) })).await);
    assert_eq!(node.node.unwrap().secret_generation, 2);
    said(world.admin.rotate_network_secret(local(rotate(&world, false))).await);
    assert_eq!(generations(&secrets(&world, "default").await), [2, 3]);
    said(world.admin.rotate_network_secret(local(rotate(&world, true))).await);
    assert_eq!(generations(&secrets(&world, "default").await), [3, 4], "forced");
}

#[tokio::test]
async fn files_turn_them_on_and_off_and_leave_them_alone() {
    let world = World::new().await;
    let apply = async |preshared_keys| {
        let spec = NetworkSpec { name: "default".into(), preshared_keys, ..Default::default() };
        let resource = Resource { kind: Some(Kind::Network(spec)), ..Default::default() };
        let request = wattle_proto::admin::ApplyRequest {
            request_id: world.id(),
            resources: vec![resource],
            ..Default::default()
        };
        said(world.admin.apply(local(request)).await).applied.remove(0)
    };
    let said_of = |resource: &Option<Resource>| match resource.as_ref().unwrap().kind.as_ref() {
        Some(Kind::Network(spec)) => spec.preshared_keys,
        other => panic!("{other:?}"),
    };
    let on = apply(Some(true)).await;
    assert_eq!(on.action(), Action::Updated);
    assert_eq!((said_of(&on.before), said_of(&on.after)), (None, Some(true)));
    assert_eq!(generations(&secrets(&world, "default").await), [1]);
    for again in [Some(true), None] {
        assert_eq!(apply(again).await.action(), Action::Unchanged);
    }
    assert_eq!(generations(&secrets(&world, "default").await), [1]);
    assert_eq!(apply(Some(false)).await.action(), Action::Updated);
    assert_eq!(generations(&secrets(&world, "default").await), [1, 2]);
    assert_eq!(apply(Some(false)).await.action(), Action::Unchanged);
}

/// Two operators at once: one of the two finds that it is done, and no secret is made twice.
#[tokio::test]
async fn turned_on_twice_at_once_there_is_one_secret() {
    let world = World::new().await;
    tokio::join!(turn(&world, true), turn(&world, true), turn(&world, true));
    assert_eq!(generations(&secrets(&world, "default").await), [1]);
}
