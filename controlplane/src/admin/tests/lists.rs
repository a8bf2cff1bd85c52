//! Paging: every item once, in whatever pages, and no item for whoever asks with a wrong token.

use std::collections::BTreeSet;

use futures::future::join_all;
use tonic::Code;
use wattle_proto::admin::{
    CreateJoinTokenRequest, DeleteNodeRequest, ListJoinTokensRequest, ListNetworksRequest,
    ListNodesRequest, ListOperatorsRequest, NodeRef, Role, admin_service_server::AdminService as _,
};

use super::world::{World, local, refused, said};

/// The names of all nodes, and how many there were on each page.
async fn nodes(world: &World, request: ListNodesRequest) -> (Vec<String>, Vec<usize>) {
    let (mut names, mut pages, mut page_token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let request = ListNodesRequest { page_token, ..request.clone() };
        let page = said(world.admin.list_nodes(local(request)).await);
        pages.push(page.nodes.len());
        names.extend(page.nodes.into_iter().map(|node| node.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return (names, pages);
        }
    }
}

#[tokio::test]
async fn two_hundred_and_fifty_nodes_come_once_each() {
    let world = World::new().await;
    let token = world.token("default", 0).await;
    let all: BTreeSet<_> = (0..250).map(|n| format!("n-{n}")).collect();
    join_all(all.iter().map(|name| world.enroll(&token, name))).await;
    for (page_size, expected) in [
        (0, vec![100, 100, 50]),
        (125, vec![125, 125]),
        (70, vec![70, 70, 70, 40]),
        (5000, vec![250]),
    ] {
        let request = ListNodesRequest { page_size, ..Default::default() };
        let (names, pages) = nodes(&world, request).await;
        assert_eq!(pages, expected, "page_size {page_size}");
        assert_eq!(names.len(), 250);
        assert_eq!(names.into_iter().collect::<BTreeSet<_>>(), all);
    }
}

#[tokio::test]
async fn a_list_goes_on_where_it_was_when_its_last_item_is_gone() {
    let world = World::new().await;
    let token = world.token("default", 0).await;
    for n in 0..5 {
        world.enroll(&token, &format!("n-{n}")).await;
    }
    let request = ListNodesRequest { page_size: 2, ..Default::default() };
    let first = said(world.admin.list_nodes(local(request.clone())).await);
    let last = NodeRef { network: "default".into(), node: first.nodes[1].name.clone() };
    let delete = DeleteNodeRequest { request_id: world.id(), node: Some(last) };
    said(world.admin.delete_node(local(delete)).await);
    let request = ListNodesRequest { page_size: 10, page_token: first.next_page_token, ..request };
    let rest = said(world.admin.list_nodes(local(request)).await);
    assert_eq!((rest.nodes.len(), rest.next_page_token.as_str()), (3, ""));
}

#[tokio::test]
async fn selectors_and_networks_narrow_a_list() {
    let world = World::new().await;
    world.network("lab", "10.1.0.0/16").await;
    let (default, lab) = (world.token("default", 0).await, world.token("lab", 0).await);
    let node = world.enroll(&default, "a").await;
    world.enroll(&default, "b").await;
    world.enroll(&lab, "c").await;
    let list = async |network: &str, selector: &str| {
        let (network, selector) = (network.to_owned(), selector.to_owned());
        let request = ListNodesRequest { network, selector, page_size: 1, ..Default::default() };
        let mut names = nodes(&world, request).await.0;
        names.sort();
        names.join(",")
    };
    assert_eq!(list("", "").await, "a,b,c");
    assert_eq!(list("default", "").await, "a,b");
    assert_eq!(list("", &format!("id={}", node.node)).await, "a");
    assert_eq!(list("lab", "site").await, "");
    // Its own choice of a name is nothing to go by.
    assert_eq!(list("", "name=a").await, "");
    let named = CreateJoinTokenRequest {
        request_id: world.id(),
        network: "lab".into(),
        node_name: "d".into(),
        ..Default::default()
    };
    let named = said(world.admin.create_join_token(local(named)).await).token.parse().unwrap();
    world.enroll(&named, "mine").await;
    assert_eq!(list("", "name in (a,b,d)").await, "d");
}

#[tokio::test]
async fn the_other_lists_page_too() {
    let world = World::new().await;
    for n in 0..4 {
        world.network(&format!("n{n}"), &format!("10.{n}.0.0/16")).await;
        world.token(&format!("n{n}"), 1).await;
        world.operator(&format!("o{n}"), Role::Viewer).await;
    }
    let page_size = 3;
    let networks = ListNetworksRequest { page_size, ..Default::default() };
    let first = said(world.admin.list_networks(local(networks.clone())).await);
    let page_token = first.next_page_token;
    let rest = ListNetworksRequest { page_token: page_token.clone(), ..networks };
    let rest = said(world.admin.list_networks(local(rest)).await);
    let names: Vec<_> = first.networks.iter().chain(&rest.networks).map(|n| &n.name).collect();
    assert_eq!(names, ["default", "n0", "n1", "n2", "n3"]);
    assert_eq!(rest.next_page_token, "");

    let tokens = ListJoinTokensRequest { page_size, ..Default::default() };
    let first = said(world.admin.list_join_tokens(local(tokens.clone())).await);
    assert_eq!((first.join_tokens.len(), first.next_page_token.is_empty()), (3, false));
    let lab = ListJoinTokensRequest { network: "n2".into(), ..tokens };
    let of_one = said(world.admin.list_join_tokens(local(lab)).await);
    assert_eq!((of_one.join_tokens.len(), of_one.next_page_token.as_str()), (1, ""));

    let operators = ListOperatorsRequest { page_size, ..Default::default() };
    let first = said(world.admin.list_operators(local(operators.clone())).await);
    assert_eq!((first.operators.len(), first.next_page_token.is_empty()), (3, false));
    // A token of one list opens no other.
    let foreign = ListOperatorsRequest { page_token, ..operators };
    let status = refused(world.admin.list_operators(local(foreign)).await);
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("page_token: "), "{status}");
}
