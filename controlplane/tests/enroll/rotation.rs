//! Another WireGuard key for a node: known before it is used, nobody else's, and few at a time.

use std::{sync::Arc, time::Duration};

use tonic::Code;
use wattle_controlplane::{
    nodes::{ChangeError, Nodes, Rotation, TURNS, Turn},
    store::keys,
};
use wattle_model::{NetworkName, NodeId, PeerSpec, PublicKey};
use wattle_proto::entry;
use wattle_runtime::{clock, shutdown::Shutdown};

use crate::{Machine, World};

pub(super) fn nodes(world: &World) -> Nodes {
    Nodes::new(Arc::clone(&world.replica.store), &Shutdown::new())
}

pub(super) fn network() -> NetworkName {
    "default".parse().unwrap()
}

fn key(seed: u8) -> PublicKey {
    PublicKey::new([seed; 32]).unwrap()
}

async fn peer(world: &World, node: NodeId) -> PeerSpec {
    let stored = world.store().get(&keys::peer(&network(), node)).await.unwrap().unwrap();
    entry::decode(&stored.value).unwrap()
}

async fn is_wished(world: &World, node: NodeId) -> bool {
    world.store().get(&keys::rotation(&network(), node)).await.unwrap().is_some()
}

fn rotation(node: NodeId, urgent: bool) -> Rotation {
    Rotation { network: network(), node, urgent }
}

#[tokio::test]
async fn peers_know_the_next_key_before_it_is_used() {
    let world = World::start().await;
    let (nodes, node) = (nodes(&world), world.node().await);
    let (id, old) = (node.id, node.machine.public_key);
    nodes.ask_rotation(id, false).await.unwrap();
    assert_eq!(nodes.rotations(None).await.unwrap(), (vec![rotation(id, false)], None));
    assert_eq!(
        nodes.promote_key(id, clock::now()).await.unwrap(),
        None,
        "there is no next key yet"
    );

    let announced = nodes.announce_key(id, key(1)).await.unwrap();
    let seen = peer(&world, id).await;
    assert_eq!((seen.public_key, seen.next_public_key), (old, Some(key(1))));
    let before = world.kept().await;
    assert_eq!(nodes.announce_key(id, key(1)).await.unwrap(), announced, "said again");
    assert_eq!(world.kept().await, before);

    // Its agent lost that one and made another.
    nodes.announce_key(id, key(2)).await.unwrap();
    assert_eq!(peer(&world, id).await.next_public_key, Some(key(2)));
    let claim = world.store().get(&keys::wireguard_key(key(1))).await.unwrap();
    assert_eq!(claim, None, "nobody ever used it");

    let loaded = nodes.load(id).await.unwrap().unwrap();
    assert_eq!(loaded.record.keyed_at, loaded.record.enrolled_at);
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(nodes.promote_key(id, clock::now()).await.unwrap().is_some());
    let seen = peer(&world, id).await;
    assert_eq!((seen.public_key, seen.next_public_key), (key(2), None));
    let loaded = nodes.load(id).await.unwrap().unwrap();
    assert!(loaded.record.keyed_at > loaded.record.enrolled_at);
    assert!(!is_wished(&world, id).await);
    assert_eq!(nodes.promote_key(id, clock::now()).await.unwrap(), None, "once");

    // Somebody may still believe that the old key is this node's.
    let machine = Machine { public_key: old, ..Machine::new() };
    let request = machine.request(&world.token(|_| {}).await);
    let words =
        "wireguard_public_key: this key belonged to a node that was deleted: make a new one";
    world.refuses(request, Code::FailedPrecondition, words).await;
    world.stop().await;
}

#[tokio::test]
async fn nobody_changes_to_a_key_that_somebody_has() {
    let world = World::start().await;
    let (nodes, one, two) = (nodes(&world), world.node().await, world.node().await);
    nodes.announce_key(two.id, key(1)).await.unwrap();
    let before = world.kept().await;
    for taken in [one.machine.public_key, two.machine.public_key, key(1)] {
        let refused = nodes.announce_key(one.id, taken).await;
        assert!(matches!(refused, Err(ChangeError::KeyTaken)), "{refused:?}");
    }
    assert_eq!(world.kept().await, before);
    world.stop().await;
}

#[tokio::test]
async fn a_node_that_is_deleted_meanwhile_takes_all_along() {
    let world = World::start().await;
    let (nodes, node) = (nodes(&world), world.node().await);
    nodes.ask_rotation(node.id, false).await.unwrap();
    nodes.announce_key(node.id, key(1)).await.unwrap();
    nodes.delete(node.id).await.unwrap();
    assert!(!is_wished(&world, node.id).await);
    let late =
        (nodes.ask_rotation(node.id, true).await, nodes.promote_key(node.id, clock::now()).await);
    assert!(matches!(late, (Err(ChangeError::Gone), Err(ChangeError::Gone))), "{late:?}");
    let machine = Machine { public_key: key(1), ..Machine::new() };
    let request = machine.request(&world.token(|_| {}).await);
    let words =
        "wireguard_public_key: this key belonged to a node that was deleted: make a new one";
    world.refuses(request, Code::FailedPrecondition, words).await;
    world.stop().await;
}

#[tokio::test]
async fn few_take_a_turn_at_a_time_and_an_urgent_one_none() {
    let world = World::start().await;
    let nodes = nodes(&world);
    let turn = async |n: u8, urgent| {
        nodes.take_turn(&rotation(NodeId::new([n; 16]), urgent)).await.unwrap()
    };
    for n in 0..TURNS as u8 {
        assert_eq!(turn(n, false).await, Turn::Now);
        assert_eq!(turn(n, false).await, Turn::Now, "it has it already");
    }
    assert_eq!(turn(99, false).await, Turn::Later);
    assert_eq!(turn(99, true).await, Turn::Now);
    assert_eq!(nodes.turns(&network()).await.unwrap().len(), TURNS);
    nodes.give_turn_back(&rotation(NodeId::new([0; 16]), false)).await.unwrap();
    assert_eq!(turn(99, false).await, Turn::Now);
    assert_eq!(turn(0, false).await, Turn::Later);
    world.stop().await;
}
