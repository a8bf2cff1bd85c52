//! Policies as operators see them.

use futures::StreamExt as _;
use tonic::Code;
use wattle_proto::admin::{
    ApplyRequest, GetPolicyRequest, ListPoliciesRequest, PolicySpec, Resource, WatchRequest,
    admin_service_server::AdminService as _, resource::Kind, resource_change,
};

use super::world::{World, local, refused, said};

async fn write(world: &World, network: &str, name: &str, sides: Option<(&str, &str)>) {
    let (from, to) = sides.unwrap_or_default();
    let spec =
        PolicySpec { network: network.into(), name: name.into(), from: from.into(), to: to.into() };
    let resource =
        Resource { kind: Some(Kind::Policy(spec)), revision: None, delete: sides.is_none() };
    let resources = vec![resource];
    let request = ApplyRequest { request_id: world.id(), resources, ..Default::default() };
    said(world.admin.apply(local(request)).await);
}

fn get(network: &str, name: &str) -> tonic::Request<GetPolicyRequest> {
    local(GetPolicyRequest { network: network.into(), name: name.into() })
}

#[tokio::test]
async fn a_policy_is_found_by_network_and_name() {
    let world = World::new().await;
    write(&world, "default", "web-to-db", Some(("role=web", "role in (db,cache)"))).await;
    let policy = said(world.admin.get_policy(get("default", "web-to-db")).await).policy.unwrap();
    assert_eq!((policy.network.as_str(), policy.name.as_str()), ("default", "web-to-db"));
    assert_eq!((policy.from.as_str(), policy.to.as_str()), ("role=web", "role in (cache,db)"));
    assert!(policy.created_at.unwrap().seconds > 1_600_000_000);
    assert_eq!(policy.revision, world.head().await.0);

    write(&world, "default", "web-to-db", None).await;
    for (network, name, expected) in [
        ("default", "web-to-db", "name: network default has no policy web-to-db"),
        ("default", "other", "name: network default has no policy other"),
        ("lab", "web-to-db", "network: there is no network lab"),
    ] {
        let status = refused(world.admin.get_policy(get(network, name)).await);
        assert_eq!((status.code(), status.message()), (Code::NotFound, expected));
    }
    let status = refused(world.admin.get_policy(get("default", "No")).await);
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("name: \"No\" is not a name"), "{status}");
}

/// Most clients take no message of more than 4 MB.
#[tokio::test]
async fn a_page_ends_before_it_is_too_large_for_a_message() {
    let world = World::new().await;
    let values: String = (0..600).map(|n| format!(",value-of-{n:06}")).collect();
    let long = format!("a in (x{})", &values[..8000]);
    for n in 0..300 {
        write(&world, "default", &format!("p{n}"), Some((&long, &long))).await;
    }
    let (mut names, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListPoliciesRequest { page_size: 1000, page_token, ..Default::default() };
        let page = said(world.admin.list_policies(local(request)).await);
        assert!(prost::Message::encoded_len(&page) < 3 << 20);
        names.extend(page.policies.into_iter().map(|policy| policy.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 300);
}

#[tokio::test]
async fn policies_come_once_each_in_pages() {
    let world = World::new().await;
    world.network("lab", "10.1.0.0/16").await;
    for n in 0..5 {
        write(&world, "default", &format!("p{n}"), Some(("a", "b"))).await;
    }
    write(&world, "lab", "p9", Some(("a", "b"))).await;
    write(&world, "default", "p2", None).await;
    let list = async |network: &str| {
        let (mut names, mut page_token) = (Vec::new(), String::new());
        loop {
            let network = network.into();
            let request = ListPoliciesRequest { network, page_size: 2, page_token };
            let page = said(world.admin.list_policies(local(request)).await);
            assert!(page.policies.len() <= 2);
            names.extend(page.policies.into_iter().map(|p| format!("{}/{}", p.network, p.name)));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return names.join(" ");
            }
        }
    };
    assert_eq!(list("default").await, "default/p0 default/p1 default/p3 default/p4");
    assert_eq!(list("").await, "default/p0 default/p1 default/p3 default/p4 lab/p9");
    let unknown = ListPoliciesRequest { network: "none".into(), ..Default::default() };
    let status = refused(world.admin.list_policies(local(unknown)).await);
    assert_eq!(status.code(), Code::NotFound);
}

#[tokio::test]
async fn watches_tell_of_policies() {
    let world = World::new().await;
    let before = world.head().await.0;
    write(&world, "default", "one", Some(("a", "b"))).await;
    write(&world, "default", "one", None).await;
    let request = WatchRequest { after_revision: Some(before), network: "default".into() };
    let responses = said(world.admin.watch(local(request)).await);
    let told: Vec<_> = responses.skip(1).take(2).map(Result::unwrap).collect().await;
    let told: Vec<_> = told.iter().map(|response| response.changes.first().unwrap()).collect();
    let policies = told.iter().map(|change| match change.resource.as_ref().unwrap() {
        resource_change::Resource::Policy(policy) => {
            (change.kind().as_str_name(), &*policy.name, &*policy.from)
        }
        other => panic!("{other:?}"),
    });
    let expected = [("KIND_PUT", "one", "a"), ("KIND_DELETED", "one", "")];
    assert_eq!(policies.collect::<Vec<_>>(), expected);
}
