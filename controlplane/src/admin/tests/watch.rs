//! Watching: whole revisions, resumable, of one network or all, and a clean end.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::StreamExt as _;
use prost::Message as _;
use tokio::time::timeout;
use tonic::{Code, Status};
use wattle_proto::{
    admin::{
        DeleteNetworkRequest, DeleteNodeRequest, LabelNodeRequest, NodeRef, ResourceChange,
        RevokeJoinTokenRequest, Role, WatchRequest, WatchResponse,
        admin_service_server::AdminService as _,
        resource_change::{Kind, Resource},
    },
    store as record,
};

use super::world::{World, by, local, operator, refused, said};
use crate::{
    admin::watch::Responses,
    store::{Store as _, Transaction, keys},
};

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

async fn watch(world: &World, after: Option<u64>, network: &str) -> Responses {
    let request = WatchRequest { after_revision: after, network: network.into() };
    let mut responses = said(world.admin.watch(local(request)).await);
    let first = next(&mut responses).await;
    assert!(first.changes.is_empty(), "the first message says where the watch begins");
    assert_eq!(first.revision, after.unwrap_or(world.head().await.0));
    responses
}

async fn receive(responses: &mut Responses) -> Option<Result<WatchResponse, Status>> {
    timeout(PATIENCE, responses.next()).await.expect("nothing came")
}

async fn next(responses: &mut Responses) -> WatchResponse {
    receive(responses).await.expect("the watch ended").unwrap()
}

/// "put network lab" and the like.
fn line(change: &ResourceChange) -> String {
    let kind = match change.kind() {
        Kind::Put => "put",
        Kind::Deleted => "deleted",
        Kind::Unspecified => "unspecified",
    };
    let what = match change.resource.as_ref().unwrap() {
        Resource::Network(network) => format!("network {}", network.name),
        Resource::Node(node) if node.name.is_empty() => format!("node in {}", node.network),
        Resource::Node(node) => format!("node {} {:?}", node.name, node.labels),
        Resource::JoinToken(token) => {
            format!("token of {} used {} revoked {}", token.network, token.uses, token.revoked)
        }
        Resource::Operator(operator) => format!("operator {}", operator.name),
        Resource::Policy(policy) => format!("policy {}", policy.name),
    };
    format!("{kind} {what}")
}

fn lines(response: &WatchResponse) -> Vec<String> {
    response.changes.iter().map(line).collect()
}

/// A little of everything; `then` runs after each step. Returns the revision before it.
async fn history(world: &World, mut then: impl AsyncFnMut()) -> u64 {
    let before = world.head().await.0;
    world.network("lab", "10.1.0.0/16").await;
    then().await;
    let token = world.token("lab", 1).await;
    then().await;
    world.enroll(&token, "a").await;
    then().await;
    let node = || Some(NodeRef { network: "lab".into(), node: "a".into() });
    let set = [("site".to_owned(), "fra".to_owned())].into();
    let label =
        LabelNodeRequest { request_id: world.id(), node: node(), set, ..Default::default() };
    said(world.admin.label_node(local(label)).await);
    then().await;
    world.operator("ann", Role::Viewer).await;
    then().await;
    let delete = DeleteNodeRequest { request_id: world.id(), node: node() };
    said(world.admin.delete_node(local(delete)).await);
    then().await;
    let delete = DeleteNetworkRequest { request_id: world.id(), name: "lab".into() };
    said(world.admin.delete_network(local(delete)).await);
    then().await;
    before
}

const HISTORY: [&[&str]; 7] = [
    &["put network lab"],
    &["put token of lab used 0 revoked false"],
    &["put token of lab used 1 revoked false", "put node a {}"],
    &[r#"put node a {"site": "fra"}"#],
    &["put operator ann"],
    &["deleted node in lab"],
    &["deleted network lab", "put token of lab used 1 revoked true"],
];

#[tokio::test]
async fn changes_come_as_they_happen_all_of_a_revision_together() {
    let world = World::new().await;
    let mut responses = watch(&world, None, "").await;
    let begin = SystemTime::now();
    let (mut last, mut expected) = (0, HISTORY.iter());
    history(&world, async || {
        let response = next(&mut responses).await;
        let mut told = lines(&response);
        told.sort();
        let mut expected = expected.next().unwrap().to_vec();
        expected.sort_unstable();
        assert_eq!(told, expected, "at {}", response.revision);
        assert!(response.revision > last);
        last = response.revision;
        let committed = SystemTime::try_from(response.committed_at.unwrap()).unwrap();
        assert!((begin..SystemTime::now()).contains(&committed));
    })
    .await;
    assert_eq!(last, world.head().await.0);
}

#[tokio::test]
async fn a_watch_resumes_after_any_revision_without_loss_or_repetition() {
    let world = World::new().await;
    let before = history(&world, async || {}).await;
    let mut all = Vec::new();
    let mut responses = watch(&world, Some(before), "").await;
    for _ in 0..6 {
        all.push(next(&mut responses).await);
    }
    // The node and its network are gone by now: what is left of them to tell is that they are.
    let told: Vec<_> = all.iter().flat_map(lines).collect();
    assert!(
        lines(&all[5]).contains(&"put token of lab used 1 revoked true".to_owned()),
        "{told:?}"
    );
    assert!(told.contains(&"deleted node in lab".to_owned()), "{told:?}");
    for cut in 0..all.len() {
        let mut resumed = watch(&world, Some(all[cut].revision), "").await;
        for expected in &all[cut + 1..] {
            assert_eq!(next(&mut resumed).await, *expected);
        }
    }
}

#[tokio::test]
async fn a_watch_of_one_network_tells_of_nothing_else() {
    let world = World::new().await;
    let mut responses = watch(&world, None, "lab").await;
    world.network("other", "10.2.0.0/16").await;
    world.token("default", 1).await;
    world.operator("ann", Role::Viewer).await;
    let revision = world.network("lab", "10.1.0.0/16").await;
    let response = next(&mut responses).await;
    assert_eq!((response.revision, lines(&response)), (revision, vec!["put network lab".into()]));
}

#[tokio::test]
async fn signs_of_life_move_a_quiet_watch_on() {
    let world = World::new().await;
    let mut responses = watch(&world, None, "lab").await;
    let revision = world.network("other", "10.2.0.0/16").await;
    // Read what is of no interest, then let the time for a sign of life come.
    let nothing = timeout(Duration::from_millis(300), responses.next()).await;
    assert!(nothing.is_err(), "there is nothing to tell");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(16)).await;
    tokio::time::resume();
    let response = next(&mut responses).await;
    assert_eq!((response.revision, response.changes.len()), (revision, 0));
}

#[tokio::test]
async fn what_the_store_has_forgotten_or_never_had_is_out_of_range() {
    let world = World::with_log(4).await;
    for n in 0..10 {
        world.network(&format!("n{n}"), &format!("10.{n}.0.0/16")).await;
    }
    let head = world.head().await.0;
    let request = |after| WatchRequest { after_revision: Some(after), network: String::new() };
    let ahead = refused(world.admin.watch(local(request(head + 1))).await);
    assert!(ahead.message().starts_with("after_revision: the store is at"), "{ahead}");
    let forgotten = match world.admin.watch(local(request(1))).await {
        Err(status) => status,
        Ok(responses) => {
            let mut responses = responses.into_inner();
            next(&mut responses).await;
            receive(&mut responses).await.unwrap().unwrap_err()
        }
    };
    assert!(forgotten.message().starts_with("after_revision: the store remembers"), "{forgotten}");
    for status in [ahead, forgotten] {
        assert_eq!(status.code(), Code::OutOfRange);
        assert!(status.message().contains("list again"), "{status}");
    }
}

#[tokio::test]
async fn a_watch_ends_cleanly_when_the_replica_stops() {
    let world = World::new().await;
    let mut responses = watch(&world, None, "").await;
    world.shutdown.begin();
    assert!(receive(&mut responses).await.is_none());
}

#[tokio::test]
async fn a_revoked_operators_watch_ends() {
    let world = World::new().await;
    let id = world.operator("ann", Role::Viewer).await;
    let request = || by(operator(id, "ann"), WatchRequest::default());
    let mut responses = said(world.admin.watch(request()).await);
    next(&mut responses).await;
    let stored = world.operator_record(id).await;
    let revoked = record::Operator { revoked: true, ..stored }.encode_to_vec();
    let transaction = Transaction::default().put(keys::operator(id), revoked.into());
    let _ = world.store.commit(transaction).await.unwrap();
    assert_eq!(lines(&next(&mut responses).await), ["put operator ann"]);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(16)).await;
    tokio::time::resume();
    let status = receive(&mut responses).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(receive(&mut responses).await.is_none());
}

#[tokio::test]
async fn watches_are_so_many_and_no_more() {
    let world = World::new().await;
    let request = || local(WatchRequest::default());
    let mut open = Vec::new();
    for _ in 0..256 {
        open.push(said(world.admin.watch(request()).await));
    }
    let status = refused(world.admin.watch(request()).await);
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("256 watches"), "{status}");
    open.pop();
    open.push(said(world.admin.watch(request()).await));
}

#[tokio::test]
async fn records_that_say_what_they_said_before_are_no_news() {
    let world = World::new().await;
    let mut responses = watch(&world, None, "").await;
    let key = keys::network(&"default".parse().unwrap());
    let stored = world.store.get(&key).await.unwrap().unwrap();
    let history = wattle_proto::record::decode_history::<wattle_proto::record::NetworkBody>(
        &stored.value,
        stored.modified,
    );
    let same = wattle_proto::record::encode_unchanged(&history.unwrap());
    let _ = world.store.commit(Transaction::default().put(key, same)).await.unwrap();
    let token = world.token("default", 1).await;
    assert_eq!(lines(&next(&mut responses).await), ["put token of default used 0 revoked false"]);
    let id = Bytes::copy_from_slice(token.id.as_bytes());
    let revoke = RevokeJoinTokenRequest { request_id: world.id(), id };
    said(world.admin.revoke_join_token(local(revoke)).await);
    assert_eq!(lines(&next(&mut responses).await), ["put token of default used 0 revoked true"]);
}
