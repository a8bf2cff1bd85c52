//! Who holds a key or a name, and who doesn't get it.

use std::{sync::Arc, time::SystemTime};

use prost::Message as _;
use tonic::Code;
use wattle_controlplane::{nodes::Nodes, store::keys};
use wattle_model::{Labels, NodeId};
use wattle_proto::{
    enroll::{EnrollRequest, LeaveRequest},
    entry,
    record::{NodeBody, decode_history},
    store as record,
};
use wattle_runtime::shutdown::Shutdown;

use crate::{Machine, World};

#[tokio::test]
async fn a_repeated_enrolment_is_the_same_node_even_on_the_last_use() {
    let world = World::start().await;
    let (token, machine) = (world.token(|_| {}).await, Machine::new());
    let first = world.enroll(machine.request(&token)).await.unwrap();
    let before = world.kept().await;
    let second = world.enroll(machine.request(&token)).await.unwrap();
    assert_eq!((second.node_id, second.revision), (first.node_id.clone(), first.revision));
    assert_eq!(second.config, first.config);
    assert_eq!((world.kept().await, world.uses(&token).await), (before, 1));

    // Another WireGuard key is another machine with a copied certificate key.
    let copy = Machine { key: machine.key, ..Machine::new() };
    let words = "wireguard_public_key: this machine has enrolled with another WireGuard key before";
    world.refuses(copy.request(&token), Code::AlreadyExists, words).await;
    // The same key with another token would be a second node with one identity.
    let other = world.token(|_| {}).await;
    let words = "csr: a node with this key exists already";
    world.refuses(copy.request(&other), Code::AlreadyExists, words).await;
    world.stop().await;
}

#[tokio::test]
async fn a_victims_wireguard_key_is_refused() {
    let world = World::start().await;
    let victim = world.node().await;
    let thief = Machine { public_key: victim.machine.public_key, ..Machine::new() };
    let token = world.token(|_| {}).await;
    let words = "wireguard_public_key: another node has this key";
    world.refuses(thief.request(&token), Code::AlreadyExists, words).await;
    assert_eq!(world.uses(&token).await, 0);
    world.stop().await;
}

#[tokio::test]
async fn names_are_the_tokens_the_wished_or_made() {
    let world = World::start().await;
    let fixed = world.token(|token| token.node_name = "fixed".into()).await;
    let free = world.token(|token| token.max_uses = 0).await;
    let wish =
        |token, name: &str| EnrollRequest { name: name.into(), ..Machine::new().request(token) };
    let named = async |request| world.enroll(request).await.unwrap().config.unwrap().node_name;
    assert_eq!(named(wish(&fixed, "mine")).await, "fixed");
    assert_eq!(named(wish(&free, "mine")).await, "mine");
    let answer = world.enroll(wish(&free, "")).await.unwrap();
    let made = format!("node-{}", &hex::encode(&answer.node_id)[..8]);
    assert_eq!(answer.config.unwrap().node_name, made);

    let words = "name: a node named mine exists already in network default";
    world.refuses(wish(&free, "mine"), Code::AlreadyExists, words).await;
    world.stop().await;
}

/// What selectors may call a node by.
async fn fixed_name(world: &World, node: NodeId) -> Option<String> {
    let network = "default".parse().unwrap();
    let stored = world.store().get(&keys::node(&network, node)).await.unwrap().unwrap();
    let life = decode_history::<NodeBody>(&stored.value, stored.modified).unwrap();
    life.present().body.clone().unwrap().fixed_name.map(|name| name.to_string())
}

#[tokio::test]
async fn only_a_name_from_the_token_is_kept_for_selectors_and_labels_leave_it() {
    let world = World::start().await;
    let fixed = world.token(|token| token.node_name = "fixed".into()).await;
    let free = world.token(|_| {}).await;
    let mut ids = Vec::new();
    for token in [&fixed, &free] {
        let request = EnrollRequest { name: "mine".into(), ..Machine::new().request(token) };
        let answer = world.enroll(request).await.unwrap();
        ids.push(NodeId::try_from(answer.node_id.as_ref()).unwrap());
    }
    let kept = Some("fixed".to_owned());
    assert_eq!(fixed_name(&world, ids[0]).await, kept);
    assert_eq!(fixed_name(&world, ids[1]).await, None);
    let nodes = Nodes::new(Arc::clone(&world.replica.store), &Shutdown::new());
    let loaded = nodes.load(ids[0]).await.unwrap().unwrap();
    world.put(loaded.plan_label(Labels::from_texts(["role=db"]).unwrap())).await;
    assert_eq!(fixed_name(&world, ids[0]).await, kept);
    world.stop().await;
}

#[tokio::test]
async fn keys_of_a_deleted_node_rest_and_its_name_is_free() {
    let world = World::start().await;
    let token = world.token(|token| token.max_uses = 0).await;
    let old = Machine::new();
    let request = EnrollRequest { name: "web".into(), ..old.request(&token) };
    let answer = world.enroll(request.clone()).await.unwrap();
    let credential = answer.credential.unwrap();
    let mut client = wattle_proto::enroll::enrollment_service_client::EnrollmentServiceClient::new(
        world.known(&credential.certificate, &old.key).await,
    );
    client.leave(LeaveRequest {}).await.unwrap();

    let words = "csr: this key belonged to a node that was deleted: make a new one";
    world.refuses(request, Code::FailedPrecondition, words).await;
    let again = Machine { public_key: old.public_key, ..Machine::new() };
    let words =
        "wireguard_public_key: this key belonged to a node that was deleted: make a new one";
    world.refuses(again.request(&token), Code::FailedPrecondition, words).await;

    let new = EnrollRequest { name: "web".into(), ..Machine::new().request(&token) };
    let config = world.enroll(new).await.unwrap().config.unwrap();
    assert_eq!(config.node_name, "web");
    assert_ne!(Some(config.ipv4), answer.config.map(|old| old.ipv4), "addresses rest");
    world.stop().await;
}

#[tokio::test]
async fn labels_come_from_the_token_and_nothing_a_host_says() {
    let world = World::start().await;
    let token = world.token(|token| drop(token.labels.insert("role".into(), "db".into()))).await;
    let answer = world.enroll(Machine::new().request(&token)).await.unwrap();
    let node = NodeId::try_from(answer.node_id.as_ref()).unwrap();
    let network = "default".parse().unwrap();

    let stored = world.store().get(&keys::node(&network, node)).await.unwrap().unwrap();
    assert_eq!(stored.modified.0, answer.revision);
    let life = decode_history::<NodeBody>(&stored.value, stored.modified).unwrap();
    let body = life.present().body.clone().unwrap();
    assert_eq!(body.labels.to_string(), "role=db");
    assert!(body.created_at_millis <= wattle_runtime::clock::unix_millis(SystemTime::now()));

    let stored = world.store().get(&keys::peer(&network, node)).await.unwrap().unwrap();
    let (peer, config) = (entry::decode(&stored.value).unwrap(), answer.config.unwrap());
    assert_eq!(peer.node, node);
    assert_eq!(peer.name.as_str(), config.node_name);
    assert_eq!(peer.ipv4.unwrap().octets().as_slice(), config.ipv4.as_ref());
    assert_eq!(peer.ipv6.unwrap().octets().as_slice(), config.ipv6.as_ref());

    let stored = world.store().get(&keys::identity(node)).await.unwrap().unwrap();
    let identity = record::Identity::decode(stored.value).unwrap();
    assert_eq!(identity.token_id.as_ref(), token.id.as_bytes());
    world.stop().await;
}
