//! Expectations are asked of what would be.

use tonic::Code;
use wattle_proto::admin::Mode;

use super::*;

/// web-1, web-2 and db-1 of the default network, which is a mesh.
async fn three() -> World {
    let world = World::new().await;
    let token = world.token("default", 0).await;
    for name in ["web-1", "web-2", "db-1"] {
        world.enroll(&token, name).await;
    }
    world
}

fn web_to_db() -> Resource {
    policy("default/web-to-db", "role=web", "role=db")
}

#[tokio::test]
async fn they_hold_by_labels_policies_and_modes_of_the_same_request() {
    let world = three().await;
    let resources = [
        closed(),
        web_to_db(),
        labels("default/web-1", &["role=web"]),
        labels("default/db-1", &["role=db"]),
    ];
    let expectations = [
        expect("default/web-1", true, "db-1"),
        expect("default/db-1", true, "web-1"),
        expect("default/web-2", false, "db-1"),
        expect("default/web-1", false, "web-2"),
    ];
    // Each part is needed.
    for without in 0..resources.len() {
        let mut resources = resources.to_vec();
        resources.remove(without);
        let status = refuse(&world, &resources, &expectations).await;
        assert_eq!(status.code(), Code::FailedPrecondition, "without {without}");
    }
    let answer = apply(&world, &resources, &expectations).await;
    assert_eq!(sight(&answer), ["default: +0 -2, 3 nodes"]);
    // And now without anything to do.
    let head = world.head().await;
    apply(&world, &resources, &expectations).await;
    apply(&world, &[], &expectations).await;
    assert_eq!(world.head().await, head);
}

#[tokio::test]
async fn all_that_dont_hold_are_told_with_the_reason_and_nothing_is_changed() {
    let world = three().await;
    let resources = [
        closed(),
        web_to_db(),
        policy("default/also", "role=db", "role"),
        labels("default/web-1", &["role=web"]),
        labels("default/db-1", &["role=db"]),
    ];
    let expectations = [
        expect("default/web-1", false, "db-1"),
        expect("default/web-1", true, "db-1"),
        expect("default/web-2", true, "db-1"),
    ];
    let status = refuse(&world, &resources, &expectations).await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        violations(&status),
        [
            "expectations[0]: web-1 sees db-1: policies also, web-to-db let them",
            "expectations[2]: web-2 doesn't see db-1: network default is closed, and no policy lets \
         them",
        ]
    );
    // A dry run is no softer.
    let request = ApplyRequest { dry_run: true, ..request(&world, &resources, &expectations) };
    let dry = refused(world.admin.apply(local(request)).await);
    assert_eq!((dry.code(), violations(&dry)), (status.code(), violations(&status)));
    let mesh = refuse(&world, &[], &[expect("default/web-1", false, "db-1")]).await;
    let told = "expectations[0]: web-1 sees db-1: network default is a mesh, all see all";
    assert_eq!(violations(&mesh), [told]);
}

#[tokio::test]
async fn a_flip_of_the_mode_and_back() {
    let world = three().await;
    let sees = |sees| [expect("default/web-1", sees, "db-1")];
    let mesh = network("default", None, Mode::Mesh);
    apply(&world, &[closed()], &sees(false)).await;
    refuse(&world, &[closed()], &sees(true)).await;
    refuse(&world, std::slice::from_ref(&mesh), &sees(false)).await;
    let answer = apply(&world, &[mesh], &sees(true)).await;
    assert_eq!(sight(&answer), ["default: +3 -0, 3 nodes"]);
}

/// Only a name that the token fixed is one to go by.
#[tokio::test]
async fn nodes_are_meant_by_the_names_that_their_tokens_fixed() {
    let world = three().await;
    let named = wattle_proto::admin::CreateJoinTokenRequest {
        request_id: world.id(),
        network: "default".into(),
        node_name: "gate".into(),
        ..Default::default()
    };
    let token = said(world.admin.create_join_token(local(named)).await).token.parse().unwrap();
    world.enroll(&token, "anything").await;
    let resources = [closed(), policy("default/gate", "name in (gate,web-1)", "")];
    let expectations = [
        expect("default/gate", true, "db-1"),
        expect("default/gate", true, "web-1"),
        expect("default/web-1", false, "db-1"),
    ];
    apply(&world, &resources, &expectations).await;
    let labelled = [labels("default/gate", &["a=b"])];
    apply(&world, &labelled, &expectations).await;
}
