//! Nodes as operators see and change them.

use std::time::Duration;

use tonic::Code;
use wattle_proto::admin::{
    DeleteNodeRequest, GetNodeRequest, GetStatusRequest, LabelNodeRequest, Node, NodeRef,
    WaitAppliedRequest, admin_service_server::AdminService as _,
};

use super::world::{World, local, refused, said};
use crate::store::{Store as _, keys};

fn by_name(node: &str) -> Option<NodeRef> {
    Some(NodeRef { network: "default".into(), node: node.into() })
}

async fn get(world: &World, node: &str) -> Result<Node, tonic::Status> {
    let answer = world.admin.get_node(local(GetNodeRequest { node: by_name(node) })).await?;
    Ok(answer.into_inner().node.unwrap())
}

fn label(world: &World, set: &[(&str, &str)], remove: &[&str]) -> LabelNodeRequest {
    let set = set.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let remove = remove.iter().map(|key| (*key).to_owned()).collect();
    LabelNodeRequest { request_id: world.id(), node: by_name("web-1"), set, remove }
}

#[tokio::test]
async fn a_node_is_found_by_name_and_by_id() {
    let world = World::new().await;
    let enrolled = world.node("web-1").await;
    let node = get(&world, "web-1").await.unwrap();
    assert_eq!(node.id, enrolled.node.as_bytes().as_slice());
    assert_eq!(node.ipv4, [10, 90, 0, 1].as_slice());
    assert_eq!((node.revision, node.session.clone()), (enrolled.revision.0, None));
    assert_eq!(get(&world, &enrolled.node.to_string()).await.unwrap(), node);
    let status = get(&world, "web-2").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.message(), "node.node: network default has no node web-2");
}

#[tokio::test]
async fn labels_are_set_and_removed_and_the_others_stay() {
    let world = World::new().await;
    world.node("web-1").await;
    let first = label(&world, &[("site", "fra"), ("role", "web")], &[]);
    let answer = said(world.admin.label_node(local(first)).await);
    assert_eq!(answer.node.as_ref().unwrap().revision, answer.revision);
    let second = label(&world, &[("role", "db")], &["site", "never-there"]);
    let answer = said(world.admin.label_node(local(second)).await);
    let node = answer.node.unwrap();
    assert_eq!(node.labels, [("role".to_owned(), "db".to_owned())].into());
    assert_eq!(get(&world, "web-1").await.unwrap(), node);
    // Nothing new: the node's own revision stays.
    let same = label(&world, &[("role", "db")], &[]);
    let again = said(world.admin.label_node(local(same)).await);
    assert!(again.revision > node.revision);
    assert_eq!(again.node.unwrap(), node);
}

#[tokio::test]
async fn thirty_two_labels_are_the_limit() {
    let world = World::new().await;
    world.node("web-1").await;
    let many: Vec<_> = (0..32).map(|n| format!("k{n}")).collect();
    let many: Vec<_> = many.iter().map(|key| (key.as_str(), "v")).collect();
    said(world.admin.label_node(local(label(&world, &many, &[]))).await);
    let head = world.head().await;
    let status = refused(world.admin.label_node(local(label(&world, &[("x", "1")], &[]))).await);
    assert_eq!(status.message(), "set: at most 32 labels, got 33");
    assert_eq!(world.head().await, head);
    said(world.admin.label_node(local(label(&world, &[("x", "1")], &["k0"]))).await);
}

#[tokio::test]
async fn a_deleted_node_is_gone_for_good() {
    let world = World::new().await;
    let enrolled = world.node("web-1").await;
    let delete = DeleteNodeRequest { request_id: world.id(), node: by_name("web-1") };
    let answer = said(world.admin.delete_node(local(delete.clone())).await);
    assert_eq!(answer.revision, world.head().await.0);
    assert_eq!(get(&world, "web-1").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(get(&world, &enrolled.node.to_string()).await.unwrap_err().code(), Code::NotFound);
    let network = "default".parse().unwrap();
    let peer = world.store.get(&keys::peer(&network, enrolled.node)).await.unwrap();
    assert_eq!(peer, None, "its peers drop it");
    // The name is free, and a new node gets another id; the request says what it said.
    let next = world.node("web-1").await;
    assert_ne!(next.node, enrolled.node);
    assert_eq!(said(world.admin.delete_node(local(delete)).await), answer);
    assert!(get(&world, "web-1").await.is_ok(), "the new one isn't deleted by a repetition");
}

#[tokio::test]
async fn status_counts_what_there_is() {
    let world = World::new().await;
    let enrolled = world.node("web-1").await;
    let mut head = world.replica.live.head();
    head.wait_for(|head| *head >= enrolled.revision).await.unwrap();
    let status = said(world.admin.get_status(local(GetStatusRequest {})).await);
    assert_eq!((status.networks, status.nodes), (1, 1));
    assert_eq!((status.nodes_online, status.nodes_converged), (0, 0));
    let change = status.last_change.unwrap();
    assert!((1..=status.revision).contains(&change.revision));
    assert_eq!((change.concerned, change.applied, change.slowest.len()), (1, 0, 0));
    assert_eq!(status.revision, world.head().await.0);
    assert_eq!((status.indexed_revision, status.stale), (status.revision, false));
    assert_eq!(status.trust_domain, world.replica.trust_domain.to_string());
    assert_eq!(status.epoch, world.replica.live.epoch().unwrap().as_bytes().as_slice());
}

#[tokio::test]
async fn a_wait_names_who_is_offline() {
    let world = World::new().await;
    let (_, second) = (world.node("web-1").await, world.node("web-2").await);
    let request = label(&world, &[("site", "fra")], &[]);
    let revision = said(world.admin.label_node(local(request)).await).revision;
    let timeout = Some(Duration::from_millis(200).try_into().unwrap());
    let request = WaitAppliedRequest { revision: second.revision.0, timeout };
    let progress = said(world.admin.wait_applied(local(request)).await);
    assert_eq!((progress.applied, progress.pending_count), (0, 0));
    assert_eq!(progress.offline_count as usize, progress.offline.len());
    let handed = Duration::try_from(progress.handed_after.unwrap()).unwrap();
    assert!(progress.committed_at.is_some() && handed < Duration::from_secs(5));
    let mut offline: Vec<_> = progress.offline.iter().map(|node| node.name.as_str()).collect();
    offline.sort_unstable();
    assert_eq!(offline, ["web-1", "web-2"], "the one that saw it come, and itself");
    for revision in [0, revision + 1] {
        let request = WaitAppliedRequest { revision, timeout };
        let status = refused(world.admin.wait_applied(local(request)).await);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with("revision: the store is at"), "{status}");
    }
}
