//! What an Apply changes, and what it says of it.

use tonic::Code;
use wattle_model::{Endpoint, Generation};
use wattle_proto::admin::{
    ApplyRequest, DeleteNetworkRequest, GetNetworkRequest, GetNodeRequest, GetPolicyRequest,
    LabelNodeRequest, ListPoliciesRequest, Mode, NodeRef, Resource,
    admin_service_server::AdminService as _, resource::Kind,
};

use super::{
    super::world::{World, local, refused, said},
    *,
};

fn web() -> Option<NodeRef> {
    Some(NodeRef { network: "default".into(), node: "web-1".into() })
}

/// The longest selectors there may be, changed more often than a record keeps past versions.
#[tokio::test]
async fn a_policy_can_be_changed_again_however_long_it_is() {
    let world = World::new().await;
    let longest = |first: char| {
        let values: String = (0..600).map(|n| format!(",value-of-{n:06}")).collect();
        format!("a in ({first}{})", &values[..8184])
    };
    for round in 0..40 {
        let side = longest(if round % 2 == 0 { 'x' } else { 'y' });
        let answer = apply(&world, &[policy("default/long", &side, &side)], &[]).await;
        assert_ne!(actions(&answer), ["unchanged default/long"], "{round}");
    }
    let longer = longest('x').replacen('x', "xx", 1);
    let status = refused(
        world
            .admin
            .apply(local(request(&world, &[policy("default/long", &longer, "")], &[])))
            .await,
    );
    let told = violations(&status);
    assert_eq!(told, ["resources[0].policy.from: at most 8192 bytes, got 8193: say it by a label"]);
    apply(&world, &[no_policy("default/long")], &[]).await;
}

#[tokio::test]
async fn networks_policies_and_labels_are_made_in_one_revision() {
    let world = World::new().await;
    world.node("web-1").await;
    let head = world.head().await;
    let resources = [
        policy("lab/all", "", ""),
        network("lab", Some("10.1.0.0/16"), Mode::Closed),
        labels("default/web-1", &["role=web"]),
        policy("default/web", "role=web", "role in (db,cache)"),
    ];
    let request = request(&world, &resources, &[]);
    let answer = said(world.admin.apply(local(request.clone())).await);
    let made = answer.revision;
    assert_eq!((made, world.head().await.0), (head.0 + 1, head.0 + 1));
    let expected =
        ["created lab/all", "created lab", "updated default/web-1", "created default/web"];
    assert_eq!(actions(&answer), expected);
    let last = answer.applied[3].after.clone().unwrap();
    assert_eq!(
        last,
        Resource {
            revision: Some(made),
            ..policy("default/web", "role=web", "role in (cache,db)")
        }
    );
    let before = answer.applied[2].before.clone().unwrap();
    assert_eq!(before.kind, labels("default/web-1", &[]).kind);

    let get = GetPolicyRequest { network: "default".into(), name: "web".into() };
    let policy = said(world.admin.get_policy(local(get)).await).policy.unwrap();
    assert_eq!((policy.revision, policy.to.as_str()), (made, "role in (cache,db)"));
    let get = GetNetworkRequest { name: "lab".into() };
    let lab = said(world.admin.get_network(local(get)).await).network.unwrap();
    assert_eq!((lab.revision, lab.mode(), &*lab.ipv4_range), (made, Mode::Closed, "10.1.0.0/16"));
    let node = said(world.admin.get_node(local(GetNodeRequest { node: web() })).await);
    assert_eq!(node.node.unwrap().labels["role"], "web");
    // The same request again says the same, and does nothing.
    assert_eq!(said(world.admin.apply(local(request)).await), answer);
    assert_eq!(world.head().await.0, made);
}

#[tokio::test]
async fn what_is_so_already_makes_no_revision() {
    let world = World::new().await;
    world.node("web-1").await;
    let resources = [
        closed(),
        policy("default/a", "role in (b,a)", ""),
        labels("default/web-1", &["role=a"]),
        no_policy("default/never-there"),
    ];
    let first = apply(&world, &resources, &[]).await;
    world.network("other", "10.3.0.0/16").await;
    let head = world.head().await;
    let again = apply(&world, &resources, &[]).await;
    assert_eq!(world.head().await, head);
    assert_eq!((again.revision, again.sight.len()), (head.0, 0));
    assert!(actions(&again).iter().all(|action| action.starts_with("unchanged")), "{again:?}");
    let now = again.applied[1].after.as_ref().unwrap();
    assert_eq!(now.revision, Some(first.revision), "since when it is so");
    assert_eq!(again.applied[1].before.as_ref(), Some(now));
    // The same in other words.
    let other = [policy("default/a", " role in (a, b) ", "")];
    assert_eq!(actions(&apply(&world, &other, &[]).await), ["unchanged default/a"]);
    // Only what differs is written.
    let some = [policy("default/a", "role in (a,b)", "x"), closed()];
    let answer = apply(&world, &some, &[]).await;
    assert_eq!(actions(&answer), ["updated default/a", "unchanged default"]);
    assert_eq!(answer.applied[1].after.as_ref().unwrap().revision, Some(first.revision));
    assert_eq!(answer.revision, head.0 + 1);
}

#[tokio::test]
async fn a_policy_is_deleted_and_made_anew() {
    let world = World::new().await;
    apply(&world, &[policy("default/a", "x", "y")], &[]).await;
    let answer = apply(&world, &[no_policy("default/a")], &[]).await;
    assert_eq!(actions(&answer), ["deleted default/a"]);
    assert_eq!(answer.applied[0].after, None);
    let get = GetPolicyRequest { network: "default".into(), name: "a".into() };
    assert_eq!(refused(world.admin.get_policy(local(get.clone())).await).code(), Code::NotFound);
    let anew = apply(&world, &[policy("default/a", "x", "z")], &[]).await;
    assert_eq!(actions(&anew), ["created default/a"]);
    let policy = said(world.admin.get_policy(local(get)).await).policy.unwrap();
    assert_eq!((policy.to.as_str(), policy.revision), ("z", anew.revision));
}

#[tokio::test]
async fn policies_go_with_their_network() {
    let world = World::new().await;
    world.network("lab", "10.1.0.0/16").await;
    apply(&world, &[policy("lab/a", "", ""), policy("default/a", "", "")], &[]).await;
    let delete = DeleteNetworkRequest { request_id: world.id(), name: "lab".into() };
    said(world.admin.delete_network(local(delete)).await);
    let answer = apply(&world, &[network("lab", Some("10.1.0.0/16"), Mode::Closed)], &[]).await;
    assert_eq!(actions(&answer), ["created lab"]);
    let list = said(world.admin.list_policies(local(ListPoliciesRequest::default())).await);
    let names: Vec<_> = list.policies.iter().map(|policy| &*policy.network).collect();
    assert_eq!(names, ["default"], "the new network isn't shaped by the old one's policies");
}

#[tokio::test]
async fn a_new_network_without_ranges_gets_one_and_keeps_it() {
    let world = World::new().await;
    let answer = apply(&world, &[network("lab", None, Mode::Unspecified)], &[]).await;
    let Some(Kind::Network(made)) = answer.applied[0].after.clone().unwrap().kind else { panic!() };
    assert!(made.ipv6_range.clone().unwrap().starts_with("fd"), "{made:?}");
    assert_eq!((made.ipv4_range.as_deref(), made.mode()), (Some(""), Mode::Mesh));
    let again = apply(&world, &[network("lab", None, Mode::Unspecified)], &[]).await;
    assert_eq!(actions(&again), ["unchanged lab"]);
}

#[tokio::test]
async fn an_mtu_is_applied_with_its_network() {
    let world = World::new().await;
    let lab = |mtu| {
        let spec = NetworkSpec {
            name: "lab".into(),
            ipv4_range: Some("10.1.0.0/16".into()),
            mtu,
            ..Default::default()
        };
        Resource { kind: Some(Kind::Network(spec)), ..Default::default() }
    };
    let of = |resource: &Option<Resource>| match &resource.as_ref().unwrap().kind {
        Some(Kind::Network(network)) => network.mtu,
        other => panic!("{other:?}"),
    };
    let mut before = 0;
    for (wished, now, action) in [
        (None, 0, "created lab"),
        (Some(1380), 1380, "updated lab"),
        (None, 1380, "unchanged lab"),
        (Some(0), 0, "updated lab"),
    ] {
        let answer = apply(&world, &[lab(wished)], &[]).await;
        assert_eq!(actions(&answer), [action]);
        assert_eq!(of(&answer.applied[0].after), Some(now));
        if action != "created lab" {
            assert_eq!(of(&answer.applied[0].before), Some(before));
        }
        let get = GetNetworkRequest { name: "lab".into() };
        let network = said(world.admin.get_network(local(get)).await).network.unwrap();
        assert_eq!(network.mtu, now);
        before = now;
    }
}

#[tokio::test]
async fn how_old_keys_may_become_is_set_stays_and_is_taken_back() {
    let world = World::new().await;
    let spec = |age: Option<i64>| {
        resource(Kind::Network(NetworkSpec {
            name: "default".into(),
            key_rotation: age.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
            ..Default::default()
        }))
    };
    let age = async |world: &World| {
        let get = GetNetworkRequest { name: "default".into() };
        let network = said(world.admin.get_network(local(get)).await).network.unwrap();
        network.key_rotation.map(|age| age.seconds)
    };
    let month = 30 * 86400;
    let answer = apply(&world, &[spec(Some(month))], &[]).await;
    assert_eq!(
        (actions(&answer), age(&world).await),
        (vec!["updated default".into()], Some(month))
    );
    // It isn't touched by whoever doesn't speak of it, and isn't made twice.
    apply(&world, &[closed()], &[]).await;
    assert_eq!(age(&world).await, Some(month));
    let again = apply(&world, &[spec(Some(month))], &[]).await;
    assert_eq!(actions(&again), ["unchanged default"]);
    let Some(Kind::Network(shown)) = again.applied[0].after.clone().unwrap().kind else { panic!() };
    assert_eq!(shown.key_rotation.unwrap().seconds, month);
    let answer = apply(&world, &[spec(Some(0))], &[]).await;
    assert_eq!((actions(&answer), age(&world).await), (vec!["updated default".into()], None));
    assert_eq!(actions(&apply(&world, &[spec(Some(0))], &[]).await), ["unchanged default"]);
}

/// Of two networks each gets the range that the other one had.
#[tokio::test]
async fn ranges_are_compared_as_they_will_be() {
    let world = World::new().await;
    world.network("a", "10.1.0.0/16").await;
    world.network("b", "10.2.0.0/16").await;
    let swap = [
        network("a", Some("10.2.0.0/16"), Mode::Unspecified),
        network("b", Some("10.1.0.0/16"), Mode::Unspecified),
    ];
    assert_eq!(actions(&apply(&world, &swap, &[]).await), ["updated a", "updated b"]);
}

#[tokio::test]
async fn a_change_for_another_revision_is_refused() {
    let world = World::new().await;
    let node = world.node("web-1").await;
    let first = apply(&world, &[policy("default/a", "x", "y"), closed()], &[]).await.revision;
    let at =
        |revision, resource: &Resource| Resource { revision: Some(revision), ..resource.clone() };
    let changed = policy("default/a", "x", "z");
    let second = apply(&world, &[at(first, &changed)], &[]).await.revision;

    let resources = [
        at(first, &policy("default/a", "x", "w")),
        at(0, &policy("default/a", "x", "w")),
        at(7, &no_policy("default/gone")),
    ];
    let mut told = Vec::new();
    for resource in &resources {
        let status = refuse(&world, std::slice::from_ref(resource), &[]).await;
        assert_eq!(status.code(), Code::Aborted, "{status}");
        told.extend(violations(&status));
    }
    assert_eq!(told, [
        format!("resources[0].revision: policy default/a is at revision {second}, and this change \
                 was made for revision {first}: `wattle get` it again"),
        format!("resources[0].revision: policy default/a exists, at revision {second}: `wattle \
                 get` it, and change that"),
        "resources[0].revision: there is no policy default/gone, which was at revision 7: `wattle \
         get` again".to_owned(),
    ]);
    apply(&world, &[at(0, &policy("default/new", "", "")), at(first, &closed())], &[]).await;
    // A node's revision rises with its endpoints, which have nothing to do with its labels.
    let endpoint = Endpoint::new("192.0.2.7:51820".parse().unwrap()).unwrap();
    world.nodes.report(node.node, &[endpoint], None, Generation::NONE).await.unwrap();
    let get = GetNodeRequest { node: web() };
    let seen = said(world.admin.get_node(local(get)).await).node.unwrap().revision;
    assert!(seen > node.revision.0);
    let set = [("role".to_owned(), "db".to_owned())].into();
    let label = LabelNodeRequest { request_id: world.id(), node: web(), set, remove: vec![] };
    apply(&world, &[at(seen, &labels("default/web-1", &["role=web"]))], &[]).await;
    said(world.admin.label_node(local(label)).await);
    let stale = [at(seen, &labels("default/web-1", &["role=cache"]))];
    let status = refuse(&world, &stale, &[]).await;
    assert_eq!(status.code(), Code::Aborted);
    assert!(status.message().contains("labels of default/web-1 is at revision"), "{status}");
}

#[tokio::test]
async fn a_request_id_belongs_to_one_request() {
    let world = World::new().await;
    let first = request(&world, &[policy("default/a", "x", "y")], &[]);
    said(world.admin.apply(local(first.clone())).await);
    let other = ApplyRequest { resources: vec![policy("default/a", "x", "z")], ..first.clone() };
    let status = refused(world.admin.apply(local(other)).await);
    assert_eq!(status.code(), Code::AlreadyExists);
    let none = ApplyRequest { request_id: Default::default(), ..first.clone() };
    let status = refused(world.admin.apply(local(none.clone())).await);
    assert!(status.message().starts_with("request_id: 1 to 64 bytes"), "{status}");
    // Nobody asks twice what would be.
    said(world.admin.apply(local(ApplyRequest { dry_run: true, ..none })).await);
    let head = world.head().await;
    let (a, b) = (request(&world, &[policy("default/b", "", "")], &[]), world.id());
    let twice = || local(ApplyRequest { request_id: b.clone(), ..a.clone() });
    let (one, two) = tokio::join!(world.admin.apply(twice()), world.admin.apply(twice()));
    assert_eq!((said(one), world.head().await.0), (said(two), head.0 + 1));
}
