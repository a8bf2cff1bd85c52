//! Others write between a check and its commit: what was checked must still hold, or it is checked
//! again.

use bytes::Bytes;
use prost::Message as _;
use tonic::Code;
use wattle_model::{Labels, NodeId, OperatorId};
use wattle_proto::{
    admin::{
        CreateNetworkRequest, CreateOperatorRequest, DeleteNetworkRequest, LabelNodeRequest, Mode,
        NodeRef, RevokeOperatorRequest, Role, UpdateNetworkRequest,
        admin_service_server::AdminService as _,
    },
    record::{NetworkBody, NodeBody, encode_first},
    store as record,
};

use super::world::{World, local, refused, said};
use crate::store::{Store as _, Transaction, keys};

/// Somebody rewrites a key as it is.
async fn touch(world: &World, key: crate::store::Key) -> Transaction {
    let stored = world.store.get(&key).await.unwrap().unwrap();
    Transaction::default().put(key, stored.value)
}

#[tokio::test]
async fn a_change_that_lost_a_race_is_planned_again() {
    let world = World::new().await;
    let node = world.node("web-1").await;
    let network = "default".parse().unwrap();
    let other = touch(&world, keys::identity(node.node)).await;
    world.store.race([other.clone(), other]);
    let request = LabelNodeRequest {
        request_id: world.id(),
        node: Some(NodeRef { network: "default".into(), node: "web-1".into() }),
        set: [("site".to_owned(), "fra".to_owned())].into(),
        remove: Vec::new(),
    };
    let answer = said(world.admin.label_node(local(request)).await);
    assert_eq!(answer.node.unwrap().labels["site"], "fra");
    let stored = world.store.get(&keys::node(&network, node.node)).await.unwrap().unwrap();
    assert_eq!(stored.modified.0, answer.revision);
}

/// The label is there when it is asked for, and is another one by the time of the answer.
#[tokio::test]
async fn what_was_so_already_still_is_at_the_revision_of_the_answer() {
    let world = World::new().await;
    let node = world.node("web-1").await;
    let label = |value: &str| LabelNodeRequest {
        request_id: world.id(),
        node: Some(NodeRef { network: "default".into(), node: "web-1".into() }),
        set: [("site".to_owned(), value.to_owned())].into(),
        remove: Vec::new(),
    };
    said(world.admin.label_node(local(label("fra"))).await);
    let loaded = world.nodes.load(node.node).await.unwrap().unwrap();
    world.store.race([loaded.plan_label(Labels::from_texts(["site=nyc"]).unwrap())]);
    let answer = said(world.admin.label_node(local(label("fra"))).await);
    let stored = world.store.get(&keys::node(&"default".parse().unwrap(), node.node)).await;
    assert_eq!(stored.unwrap().unwrap().modified.0, answer.revision, "it was set again");
}

#[tokio::test]
async fn a_change_that_loses_every_race_is_given_up_and_says_so() {
    let world = World::new().await;
    let other = touch(&world, keys::network(&"default".parse().unwrap())).await;
    world.store.race(std::iter::repeat_n(other, 8));
    let request = UpdateNetworkRequest {
        request_id: world.id(),
        name: "default".into(),
        mode: Mode::Closed.into(),
        ..Default::default()
    };
    let status = refused(world.admin.update_network(local(request)).await);
    assert_eq!(status.code(), Code::Aborted);
    assert!(status.message().contains("8 times"), "{status}");
}

/// A node that enrols while its network is deleted.
fn enrolment(id: u8) -> Transaction {
    let network = "lab".parse().unwrap();
    let body = NodeBody { created_at_millis: 1, labels: Default::default(), fixed_name: None };
    Transaction::default()
        .create(keys::node(&network, NodeId::new([id; 16])), encode_first(&body))
        .put(keys::occupancy(&network), Bytes::new())
}

#[tokio::test]
async fn no_node_slips_into_a_network_that_is_deleted_or_moved() {
    let world = World::new().await;
    world.network("lab", "10.1.0.0/16").await;
    world.store.race([enrolment(1)]);
    let delete = DeleteNetworkRequest { request_id: world.id(), name: "lab".into() };
    let status = refused(world.admin.delete_network(local(delete)).await);
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("nodes live in network lab"), "{status}");
}

#[tokio::test]
async fn a_token_made_meanwhile_goes_with_its_network() {
    let world = World::new().await;
    world.network("lab", "10.1.0.0/16").await;
    let token = world.token("lab", 1).await;
    let stored = world.store.get(&keys::join_token(token.id)).await.unwrap().unwrap();
    let made = wattle_model::TokenId::new([9; 8]);
    let other = Transaction::default()
        .create(keys::join_token(made), stored.value)
        .put(keys::occupancy(&"lab".parse().unwrap()), Bytes::new());
    world.store.race([other]);
    let delete = DeleteNetworkRequest { request_id: world.id(), name: "lab".into() };
    said(world.admin.delete_network(local(delete)).await);
    for id in [token.id, made] {
        let stored = world.store.get(&keys::join_token(id)).await.unwrap().unwrap();
        assert!(record::JoinToken::decode(stored.value).unwrap().revoked, "{id}");
    }
}

#[tokio::test]
async fn two_networks_made_at_once_never_overlap() {
    let world = World::new().await;
    let other: wattle_model::NetworkName = "other".parse().unwrap();
    let body = NetworkBody {
        created_at_millis: 1,
        ipv4_range: "10.1.0.0/16".into(),
        ipv6_range: String::new(),
        mode: wattle_model::Mode::Mesh,
        key_rotation_seconds: 0,
        mtu: None,
        preshared_keys: false,
    };
    let theirs = Transaction::default()
        .create(keys::network(&other), encode_first(&body))
        .put(keys::ranges(), Bytes::from_static(b"other"));
    world.store.race([theirs]);
    let request = CreateNetworkRequest {
        request_id: world.id(),
        name: "lab".into(),
        ipv4_range: "10.1.2.0/24".into(),
        ..Default::default()
    };
    let status = refused(world.admin.create_network(local(request)).await);
    let expected = "ipv4_range: it overlaps 10.1.0.0/16 of network other";
    assert!(status.message().starts_with(expected), "{status}");
}

#[tokio::test]
async fn two_administrators_never_revoke_each_other() {
    let world = World::new().await;
    let ann = world.operator("ann", Role::Admin).await;
    let bob = world.operator("bob", Role::Admin).await;
    let anns = world.operator_record(ann).await;
    let revoked = record::Operator { revoked: true, ..anns }.encode_to_vec();
    world.store.race([Transaction::default().put(keys::operator(ann), revoked.into())]);
    let id = Bytes::copy_from_slice(bob.as_bytes());
    let revoke = RevokeOperatorRequest { request_id: world.id(), id };
    let status = refused(world.admin.revoke_operator(local(revoke)).await);
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(!world.operator_record(bob).await.revoked);
}

#[tokio::test]
async fn two_operators_made_at_once_never_share_a_name() {
    let world = World::new().await;
    let ann = world.operator("ann", Role::Viewer).await;
    let bobs = world.operator_record(ann).await;
    let id = OperatorId::new([8; 16]);
    let theirs =
        Transaction::default().create(keys::operator(id), bobs.encode_to_vec().into()).create(
            keys::operator_name(&"bob".parse().unwrap()),
            Bytes::copy_from_slice(id.as_bytes()),
        );
    world.store.race([theirs]);
    let request = CreateOperatorRequest {
        request_id: world.id(),
        name: "bob".into(),
        role: Role::Viewer.into(),
        csr: wattle_certs::KeyPair::generate().csr().into(),
        time_to_live: None,
    };
    let status = refused(world.admin.create_operator(local(request)).await);
    assert_eq!(status.code(), Code::AlreadyExists);
}
