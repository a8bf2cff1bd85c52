//! What a change is said to mean, before and when it is made, and why two nodes see each other.

use tonic::Code;
use wattle_proto::admin::{ExplainRequest, Mode};

use super::*;

fn by_name(network: &str, node: &str) -> Option<NodeRef> {
    Some(NodeRef { network: network.into(), node: node.into() })
}

/// Six nodes: three of each role.
async fn six() -> World {
    let world = World::new().await;
    let token = world.token("default", 0).await;
    let mut resources = Vec::new();
    for role in ["web", "db"] {
        for n in 1..=3 {
            world.enroll(&token, &format!("{role}-{n}")).await;
            resources.push(labels(&format!("default/{role}-{n}"), &[&format!("role={role}")]));
        }
    }
    apply(&world, &resources, &[]).await;
    world
}

#[tokio::test]
async fn a_dry_run_says_what_would_change_and_changes_nothing() {
    let world = six().await;
    let head = world.head().await;
    let resources = [
        closed(),
        policy("default/web-to-db", "role=web", "role=db"),
        labels("default/db-3", &[]),
        network("lab", Some("10.1.0.0/16"), Mode::Mesh),
    ];
    let dry = dry_run(&world, &resources, &[]).await;
    assert_eq!((dry.revision, world.head().await), (head.0, head));
    // 15 pairs; 3 x 2 are left.
    assert_eq!(sight(&dry), ["default: +0 -9, 6 nodes", "lab: +0 -0, 0 nodes"]);
    let named = |node: &wattle_proto::admin::NodeSightChange| {
        format!("{} +{} -{}", node.name, node.gained, node.lost)
    };
    let nodes: Vec<_> = dry.sight[0].nodes.iter().map(named).collect();
    assert_eq!(nodes[0], "db-3 +0 -5", "who changes most comes first: {nodes:?}");
    let mut others = nodes[1..].to_vec();
    others.sort_unstable();
    let expected = ["db-1 +0 -2", "db-2 +0 -2", "web-1 +0 -3", "web-2 +0 -3", "web-3 +0 -3"];
    assert_eq!(others, expected);
    let new = dry.applied[1].after.as_ref().unwrap();
    assert_eq!(new.revision, None, "it has no revision yet");

    let real = apply(&world, &resources, &[]).await;
    assert_eq!((actions(&real), &real.sight), (actions(&dry), &dry.sight));
    let explain = async |a: &str, b: &str| {
        let request = ExplainRequest { node: by_name("default", a), other: by_name("default", b) };
        said(world.admin.explain(local(request)).await).sees
    };
    assert!(explain("web-1", "db-1").await && !explain("web-1", "db-3").await);
    assert!(!explain("web-1", "web-2").await);
}

#[tokio::test]
async fn at_most_a_hundred_nodes_are_named() {
    let world = World::new().await;
    let token = world.token("default", 0).await;
    let names: Vec<_> = (0..120).map(|n| format!("n-{n}")).collect();
    futures::future::join_all(names.iter().map(|name| world.enroll(&token, name))).await;
    let dry = dry_run(&world, &[closed()], &[]).await;
    assert_eq!(sight(&dry), ["default: +0 -7140, 120 nodes"]);
    assert_eq!(dry.sight[0].nodes.len(), 100);
}

#[tokio::test]
async fn explain_names_the_mode_and_the_policies() {
    let world = six().await;
    let explain = async |a: &str, b: &str| {
        let request = ExplainRequest { node: by_name("default", a), other: by_name("default", b) };
        said(world.admin.explain(local(request)).await)
    };
    let mesh = explain("web-1", "db-1").await;
    assert_eq!((mesh.mode(), mesh.sees, mesh.policies.len()), (Mode::Mesh, true, 0));
    assert_eq!(mesh.node.unwrap().name, "web-1");
    assert_eq!((mesh.other.unwrap().name, mesh.node_tunnel), ("db-1".into(), None));
    let resources = [
        closed(),
        policy("default/one", "role=db", "role=web"),
        policy("default/two", "role", "role=web"),
        policy("default/three", "role=db", "role=db"),
    ];
    let made = apply(&world, &resources, &[]).await.revision;
    for (a, b, names) in [
        ("web-1", "db-1", vec!["one", "two"]),
        ("db-1", "web-1", vec!["one", "two"]),
        ("db-1", "db-2", vec!["three"]),
        ("web-1", "web-2", vec!["two"]),
    ] {
        let answer = explain(a, b).await;
        assert_eq!((answer.mode(), answer.sees), (Mode::Closed, true));
        assert!(answer.policies.iter().all(|policy| policy.revision == made));
        let found: Vec<_> = answer.policies.iter().map(|policy| policy.name.as_str()).collect();
        assert_eq!(found, names, "{a} {b}");
        assert!(answer.revision >= made);
    }
    apply(&world, &[no_policy("default/three")], &[]).await;
    let apart = explain("db-1", "db-2").await;
    assert_eq!((apart.sees, apart.policies.len()), (false, 0));
}

#[tokio::test]
async fn explain_refuses_what_it_cant_answer() {
    let world = six().await;
    world.network("lab", "10.1.0.0/16").await;
    let token = world.token("lab", 1).await;
    world.enroll(&token, "far").await;
    for (node, other, code, message) in [
        (None, by_name("default", "db-1"), Code::InvalidArgument, "node.node: missing"),
        (by_name("default", "db-1"), None, Code::InvalidArgument, "other.node: missing"),
        (
            by_name("default", "db-1"),
            by_name("default", "db-9"),
            Code::NotFound,
            "other.node: network default has no node db-9",
        ),
        (
            by_name("default", "db-1"),
            by_name("none", "db-9"),
            Code::NotFound,
            "other.network: there is no network none",
        ),
        (
            by_name("default", "db-1"),
            by_name("lab", "far"),
            Code::InvalidArgument,
            "other.network: networks never see each other",
        ),
        (
            by_name("default", "db-1"),
            by_name("default", "db-1"),
            Code::InvalidArgument,
            "other.node: the same node",
        ),
    ] {
        let status = refused(world.admin.explain(local(ExplainRequest { node, other })).await);
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().starts_with(message), "{status}");
    }
}
