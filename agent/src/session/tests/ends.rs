//! How a node's life ends: deleted, or by leaving.

use tonic::{Status, metadata::MetadataMap};

use super::bench::Bench;
use crate::{
    app::Exit,
    scripted::{Asked, key},
};

#[tokio::test]
async fn a_deleted_node_takes_its_link_down_and_remembers() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let stream = bench.filled(&[1]).await;
    stream.removed().await;
    let exit = agent.ends().await;
    assert_eq!((exit.code(), exit), (3, Exit::Removed));
    assert!(bench.device.is_removed());
    assert!(bench.identity().unwrap().deleted);
    assert_eq!(bench.command(&["run"]).await.unwrap(), Exit::Removed, "started again");
    let with_token = bench.command(&["run", "--token", &bench.token()]).await;
    assert_eq!(with_token.unwrap(), Exit::Removed, "a token doesn't change it");
    assert!(bench.replica.enrollment.take_asked().is_empty(), "it asked to be let in again");
}

#[tokio::test]
async fn a_refusal_may_say_that_the_node_was_deleted() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let stream = bench.replica.stream().await;
    let mut metadata = MetadataMap::new();
    metadata.insert("wattle-reason", "removed".parse().unwrap());
    let status = Status::permission_denied("this node was deleted");
    stream.fail(Status::with_metadata(status.code(), status.message(), metadata)).await;
    assert_eq!(agent.ends().await, Exit::Removed);
    assert!(bench.device.is_removed());
}

/// Any other refusal is no reason to tear a mesh down.
#[tokio::test]
async fn a_refusal_that_says_nothing_of_it_changes_nothing() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let stream = bench.filled(&[1]).await;
    stream.fail(Status::permission_denied("no")).await;
    let stream = bench.replica.stream().await;
    stream.fail(Status::unauthenticated("no")).await;
    bench.replica.stream().await;
    assert_eq!(bench.peers(), [key(1)]);
    agent.stop().await;
}

#[tokio::test]
async fn a_machine_that_has_joined_does_not_join_again() {
    let bench = Bench::new().await;
    let error = bench.command(&["join", &bench.token()]).await.unwrap_err();
    assert!(error.to_string().contains("already node tested of network default"), "{error}");
    assert!(bench.replica.enrollment.take_asked().is_empty());
}

#[tokio::test]
async fn leave_deletes_the_node_then_the_link_then_the_state() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let _stream = bench.filled(&[1]).await;
    assert_eq!(agent.leave(false).await, "{}");
    assert!(matches!(agent.ends().await, Exit::Done(_)));
    assert!(matches!(bench.replica.enrollment.take_asked()[..], [Asked::Leave]));
    assert!(bench.device.is_removed());
    assert!(bench.identity().is_none());
}

#[tokio::test]
async fn a_leave_that_is_refused_leaves_all_as_it_was_unless_forced() {
    let mut bench = Bench::new().await;
    let agent = bench.start().await;
    let _stream = bench.filled(&[1]).await;
    let refusal = || Some(Status::unavailable("the store can't be reached"));
    bench.replica.enrollment.answer([refusal(), refusal()]);
    let answer = agent.leave(false).await;
    assert!(
        answer.contains("--force") && answer.contains("the store can't be reached"),
        "{answer}"
    );
    assert_eq!(bench.peers(), [key(1)]);
    assert_eq!(agent.status().await.session.state, "connected");

    assert_eq!(agent.leave(true).await, "{}");
    assert!(matches!(agent.ends().await, Exit::Done(_)));
    assert!(bench.device.is_removed() && bench.identity().is_none());
}
