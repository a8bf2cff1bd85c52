//! Changes of a node that exists: where it may be reached, its labels, its end.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use prost::Message as _;
use wattle_controlplane::{
    nodes::{ChangeError, Nodes, NotObserved, Observed},
    store::{Outcome, Stored, Transaction, keys},
};
use wattle_model::{Endpoint, Generation, Labels, NodeId};
use wattle_proto::{entry, store as record};
use wattle_runtime::shutdown::Shutdown;

use crate::World;

fn endpoint(text: &str) -> Endpoint {
    Endpoint::new(text.parse().unwrap()).unwrap()
}

async fn peer(world: &World, node: NodeId) -> Stored {
    let key = keys::peer(&"default".parse().unwrap(), node);
    world.store().get(&key).await.unwrap().unwrap()
}

fn nodes(world: &World) -> Nodes {
    Nodes::new(Arc::clone(&world.replica.store), &Shutdown::new())
}

#[tokio::test]
async fn endpoints_are_written_when_they_change_and_the_entry_when_its_bytes_do() {
    let world = World::start().await;
    let (nodes, node) = (nodes(&world), world.node().await.id);
    let (own, seen) = ([endpoint("192.0.2.1:51820")], endpoint("198.51.100.1:51820"));
    let made = nodes.report(node, &own, Some(seen), Generation::NONE).await.unwrap().unwrap();
    let entry = peer(&world, node).await;
    assert_eq!(entry.modified, made);
    assert_eq!(entry::decode(&entry.value).unwrap().endpoints, [own[0], seen]);

    let before = world.kept().await;
    assert_eq!(nodes.report(node, &own, Some(seen), Generation::NONE).await.unwrap(), None);
    assert_eq!(world.kept().await, before);

    // Seen where it says it is: the record changes, its peers learn nothing new.
    nodes.report(node, &own, None, Generation::NONE).await.unwrap();
    let entry = peer(&world, node).await;
    assert!(nodes.report(node, &own, Some(own[0]), Generation::NONE).await.unwrap().is_some());
    assert_eq!(peer(&world, node).await, entry);
    world.stop().await;
}

/// As if the port had been accepted that long ago, on a replica's clock.
async fn age_mapping(world: &World, node: NodeId, age: impl Fn(u64) -> u64) {
    let stored = world.store().get(&keys::identity(node)).await.unwrap().unwrap();
    let mut identity = record::Identity::decode(stored.value.clone()).unwrap();
    let mapping = identity.mapping.as_mut().unwrap();
    mapping.at_millis = age(mapping.at_millis);
    world.put(Transaction::default().replace(&stored, identity.encode_to_vec().into())).await;
}

#[tokio::test]
async fn a_port_that_others_see_is_accepted_once_in_half_a_minute_on_any_replica() {
    let world = World::start().await;
    let (here, there, node) = (nodes(&world), nodes(&world), world.node().await.id);
    let [own, seen] = ["10.0.0.5:51820", "198.51.100.1:51820"].map(endpoint);
    let at = |port: u16| seen.with_port(port).unwrap();
    let elsewhere = here.observe(node, at(1)).await;
    assert!(matches!(elsewhere, Err(NotObserved::OtherAddress)), "it isn't seen anywhere");
    here.report(node, &[own], Some(seen), Generation::NONE).await.unwrap();

    assert_eq!(here.observe(node, seen).await.unwrap(), Observed::Known);
    let Observed::Accepted(revision) = here.observe(node, at(1)).await.unwrap() else { panic!() };
    let entry = peer(&world, node).await;
    assert_eq!(entry.modified, revision);
    assert_eq!(entry::decode(&entry.value).unwrap().endpoints, [own, at(1)]);
    assert_eq!(there.observe(node, at(1)).await.unwrap(), Observed::Known);
    let Err(NotObserved::TooSoon(wait)) = there.observe(node, at(2)).await else { panic!() };
    assert!(wait > Duration::from_secs(25) && wait <= Duration::from_secs(30), "{wait:?}");

    // Another replica's clock may be ahead; one that is far ahead locks nobody out.
    age_mapping(&world, node, |at| at + 20_000).await;
    assert!(matches!(there.observe(node, at(2)).await, Err(NotObserved::TooSoon(_))));
    age_mapping(&world, node, |at| at + 3_600_000).await;
    assert!(matches!(there.observe(node, at(2)).await, Ok(Observed::Accepted(_))));
    age_mapping(&world, node, |at| at - 31_000).await;
    assert!(matches!(here.observe(node, at(3)).await, Ok(Observed::Accepted(_))));

    // The node's own report keeps it while it is seen where it was.
    here.report(node, &[], Some(seen), Generation::NONE).await.unwrap();
    let endpoints = |entry: Stored| entry::decode(&entry.value).unwrap().endpoints;
    assert_eq!(endpoints(peer(&world, node).await), [at(3)]);
    let moved = endpoint("203.0.113.1:51820");
    here.report(node, &[], Some(moved), Generation::NONE).await.unwrap();
    assert_eq!(endpoints(peer(&world, node).await), [moved]);
    let gone = here.observe(node, at(4)).await;
    assert!(matches!(gone, Err(NotObserved::OtherAddress)), "{gone:?}");
    here.delete(node).await.unwrap();
    let gone = here.observe(node, moved.with_port(4).unwrap()).await;
    assert!(matches!(gone, Err(NotObserved::Failed(ChangeError::Gone))), "{gone:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_stale_plan_conflicts_and_brings_nothing_back() {
    let world = World::start().await;
    let (nodes, node) = (nodes(&world), world.node().await.id);
    let stale = nodes.load(node).await.unwrap().unwrap();
    nodes.delete(node).await.unwrap();
    let before = world.kept().await;
    let labels = Labels::from_texts(["role=db"]).unwrap();
    for plan in [stale.plan_label(labels), stale.plan_delete(SystemTime::now())] {
        assert_eq!(world.store().commit(plan).await.unwrap(), Outcome::Conflict);
    }
    let late = nodes.report(node, &[endpoint("192.0.2.1:1")], None, Generation::NONE).await;
    assert!(matches!(late, Err(ChangeError::Gone)));
    assert!(matches!(nodes.delete(node).await, Err(ChangeError::Gone)));
    assert_eq!(world.kept().await, before);
    assert!(nodes.load(node).await.unwrap().is_none());
    world.stop().await;
}

#[tokio::test]
async fn labels_change_and_the_history_remembers() {
    let world = World::start().await;
    let (nodes, node) = (nodes(&world), world.node().await.id);
    let labels = Labels::from_texts(["role=db"]).unwrap();
    let loaded = nodes.load(node).await.unwrap().unwrap();
    let outcome = world.store().commit(loaded.plan_label(labels.clone())).await.unwrap();
    let loaded = nodes.load(node).await.unwrap().unwrap();
    assert_eq!(
        (outcome, loaded.body.labels.clone()),
        (Outcome::Committed(loaded.revision()), labels)
    );
    world.stop().await;
}

#[tokio::test]
async fn nodes_are_found_by_id_and_by_name_in_their_network_alone() {
    let world = World::start().await;
    let (nodes, node) = (nodes(&world), world.node().await.id);
    let name = nodes.load(node).await.unwrap().unwrap().record.name;
    let (here, there) = ("default".parse().unwrap(), "other".parse().unwrap());
    for text in [node.to_string(), name.to_string()] {
        assert_eq!(nodes.find(&here, &text).await.unwrap(), Some(node));
        assert_eq!(nodes.find(&there, &text).await.unwrap(), None);
    }
    for text in ["", "../x", "nobody"] {
        assert_eq!(nodes.find(&here, text).await.unwrap(), None);
    }
    nodes.delete(node).await.unwrap();
    for text in [node.to_string(), name.to_string()] {
        assert_eq!(nodes.find(&here, &text).await.unwrap(), None);
    }
    world.stop().await;
}
