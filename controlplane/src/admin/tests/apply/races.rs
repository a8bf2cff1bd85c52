//! Others write between what an Apply read and its commit.

use bytes::Bytes;
use tonic::Code;
use wattle_model::{Labels, NetworkName, Policy};
use wattle_proto::{
    admin::{DeleteNetworkRequest, Mode},
    record::{NetworkBody, PolicyBody, decode_history, encode_changed, encode_first},
};

use super::*;
use crate::store::{Store as _, Transaction, keys};

fn default() -> NetworkName {
    "default".parse().unwrap()
}

/// Somebody's Apply of one new policy.
fn made(network: &NetworkName, name: &str, from: &str, to: &str) -> Transaction {
    let policy = Policy { from: from.parse().unwrap(), to: to.parse().unwrap() };
    let body = PolicyBody { created_at_millis: 1, policy };
    Transaction::default()
        .create(keys::policy(network, &name.parse().unwrap()), encode_first(&body))
        .put(keys::shape(network), Bytes::new())
}

/// Somebody's LabelNode.
async fn labelled(world: &World, node: wattle_model::NodeId, label: &str) -> Transaction {
    let loaded = world.nodes.load(node).await.unwrap().unwrap();
    loaded.plan_label(Labels::from_texts([label]).unwrap())
}

#[tokio::test]
async fn a_policy_that_somebody_made_meanwhile_is_updated() {
    let world = World::new().await;
    world.store.race([made(&default(), "a", "x", "y")]);
    let answer = apply(&world, &[policy("default/a", "x", "z")], &[]).await;
    assert_eq!(actions(&answer), ["updated default/a"]);
    world.store.race([made(&default(), "b", "x", "y")]);
    let answer = apply(&world, &[policy("default/b", "x", "y"), closed()], &[]).await;
    assert_eq!(actions(&answer), ["unchanged default/b", "updated default"]);
}

/// More at once than any of them would try again.
#[tokio::test]
async fn who_applies_at_the_same_time_waits_for_the_others() {
    let world = World::new().await;
    let one = async |n: usize| {
        let resources =
            [policy(&format!("default/p{n}"), "a", "b"), policy("default/all", "a", "")];
        said(world.admin.apply(local(request(&world, &resources, &[]))).await).revision
    };
    let begun = world.head().await.0;
    let mut revisions = futures::future::join_all((0..60).map(one)).await;
    revisions.sort_unstable();
    assert_eq!(revisions.len(), 60);
    assert_eq!(revisions.last(), Some(&world.head().await.0));
    assert!(world.head().await.0 <= begun + 60);
}

#[tokio::test]
async fn what_was_to_be_new_and_isnt_any_more_is_refused() {
    let world = World::new().await;
    world.store.race([made(&default(), "a", "x", "y")]);
    let anew = Resource { revision: Some(0), ..policy("default/a", "x", "z") };
    let request = request(&world, &[anew], &[]);
    let status = refused(world.admin.apply(local(request)).await);
    assert_eq!(status.code(), Code::Aborted);
    assert!(status.message().contains("policy default/a exists"), "{status}");
}

/// The policy that lets the two see each other comes after the expectation was found to hold.
#[tokio::test]
async fn an_expectation_holds_at_the_commit() {
    let world = World::new().await;
    let (_, db) = (world.node("web-1").await, world.node("db-1").await);
    apply(&world, &[closed()], &[]).await;
    let change = [policy("default/other", "role=other", "role=other")];
    let apart = [expect("default/web-1", false, "db-1")];
    world.store.race([made(&default(), "both", "", "")]);
    let status = refused(world.admin.apply(local(request(&world, &change, &apart))).await);
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("policy both lets them"), "{status}");
    // And so with a label.
    apply(&world, &[no_policy("default/both"), policy("default/db", "role=db", "")], &apart).await;
    world.store.race([labelled(&world, db.node, "role=db").await]);
    let status = refused(world.admin.apply(local(request(&world, &change, &apart))).await);
    assert_eq!(violations(&status), ["expectations[0]: web-1 sees db-1: policy db lets them"]);
}

#[tokio::test]
async fn labels_that_somebody_set_meanwhile_are_seen() {
    let world = World::new().await;
    let web = world.node("web-1").await;
    world.store.race([labelled(&world, web.node, "role=db").await]);
    let answer = apply(&world, &[labels("default/web-1", &["role=web"])], &[]).await;
    let before = answer.applied[0].before.clone().unwrap();
    assert_eq!(before.kind, labels("default/web-1", &["role=db"]).kind);
    let expected = (answer.revision - 1, world.head().await.0);
    assert_eq!((before.revision.unwrap(), answer.revision), expected);
}

/// Otherwise nothing would ever be applied to a network whose nodes are labelled all the time.
#[tokio::test]
async fn labels_of_nodes_that_it_doesnt_name_dont_hold_it_up() {
    let world = World::new().await;
    let web = world.node("web-1").await;
    world.store.race([labelled(&world, web.node, "role=db").await]);
    let head = world.head().await;
    let answer = apply(&world, &[policy("default/a", "", "")], &[]).await;
    assert_eq!(answer.revision, head.0 + 2, "the label, and then the first attempt");
}

#[tokio::test]
async fn a_network_that_goes_meanwhile_takes_the_policy_along() {
    let world = World::new().await;
    world.network("lab", "10.1.0.0/16").await;
    let lab: NetworkName = "lab".parse().unwrap();
    let stored = world.store.get(&keys::network(&lab)).await.unwrap().unwrap();
    let history = decode_history::<NetworkBody>(&stored.value, stored.modified).unwrap();
    let deleted = Transaction::default()
        .replace(&stored, encode_changed(history, None))
        .put(keys::shape(&lab), Bytes::new());
    world.store.race([deleted]);
    let request = request(&world, &[policy("lab/a", "", "")], &[]);
    let status = refused(world.admin.apply(local(request)).await);
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("there is no network lab"), "{status}");
    let left = world.store.get(&keys::policy(&lab, &"a".parse().unwrap())).await.unwrap();
    assert_eq!(left, None);
    // The other way round, the deletion sees the policy.
    world.network("lab", "10.1.0.0/16").await;
    world.store.race([made(&lab, "a", "", "")]);
    let delete = DeleteNetworkRequest { request_id: world.id(), name: "lab".into() };
    said(world.admin.delete_network(local(delete)).await);
    let key = keys::policy(&lab, &"a".parse().unwrap());
    let left = world.store.get(&key).await.unwrap().unwrap();
    let history = decode_history::<PolicyBody>(&left.value, left.modified).unwrap();
    assert_eq!(history.present().body, None);
}

#[tokio::test]
async fn ranges_that_somebody_took_meanwhile_are_refused() {
    let world = World::new().await;
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
        .create(keys::network(&"other".parse().unwrap()), encode_first(&body))
        .put(keys::ranges(), Bytes::from_static(b"other"));
    world.store.race([theirs]);
    let resources = [network("lab", Some("10.1.2.0/24"), Mode::Mesh)];
    let status = refused(world.admin.apply(local(request(&world, &resources, &[]))).await);
    assert!(status.message().contains("it overlaps 10.1.0.0/16 of network other"), "{status}");
}

#[tokio::test]
async fn one_that_loses_every_race_gives_up_and_says_so() {
    let world = World::new().await;
    let touch = Transaction::default().put(keys::shape(&default()), Bytes::new());
    world.store.race(std::iter::repeat_n(touch, 8));
    let request = request(&world, &[policy("default/a", "", "")], &[]);
    let status = refused(world.admin.apply(local(request)).await);
    assert_eq!(status.code(), Code::Aborted);
    assert!(status.message().contains("8 times"), "{status}");
}

/// Each alone is right, both together are what neither wants.
#[tokio::test]
async fn two_at_once_never_break_each_others_expectations() {
    for _ in 0..10 {
        let world = World::new().await;
        world.node("web-1").await;
        world.node("db-1").await;
        apply(&world, &[closed(), policy("default/p", "role=web", "tier=db")], &[]).await;
        let apart = [expect("default/web-1", false, "db-1")];
        let one = [labels("default/web-1", &["role=web"])];
        let two = [labels("default/db-1", &["tier=db"])];
        let (one, two) = tokio::join!(
            world.admin.apply(local(request(&world, &one, &apart))),
            world.admin.apply(local(request(&world, &two, &apart))),
        );
        let refused = [one.err(), two.err()].into_iter().flatten().collect::<Vec<_>>();
        assert_eq!(refused.len(), 1, "{refused:?}");
        assert_eq!(refused[0].code(), Code::FailedPrecondition);
    }
}
