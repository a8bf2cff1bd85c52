//! Bad input: each mistake names its field, and leaves the store as it was.

use std::collections::BTreeMap;

use bytes::Bytes;
use tonic::{Code, Status};
use wattle_certs::KeyPair;
use wattle_model::Revision;
use wattle_proto::admin::{
    CreateJoinTokenRequest, CreateNetworkRequest, CreateOperatorRequest, DeleteNodeRequest,
    GetNodeRequest, LabelNodeRequest, ListNodesRequest, NodeRef, RevokeJoinTokenRequest,
    RevokeOperatorRequest, Role, UpdateNetworkRequest, WaitAppliedRequest, WatchRequest,
    admin_service_server::AdminService as _,
};

use super::world::{World, local, refused};

/// A store that must stay as it is.
struct Still {
    world: World,
    head: Revision,
}

impl Still {
    /// Demands a refusal with this code whose message begins so, and that nothing happened.
    async fn check(&self, status: Status, code: Code, message: &str) {
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().starts_with(message), "{message}: {}", status.message());
        assert_eq!(self.world.head().await, self.head, "{message} changed something");
    }
}

fn duration(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

fn labels(key: &str, value: &str) -> BTreeMap<String, String> {
    [(key.to_owned(), value.to_owned())].into()
}

#[tokio::test]
async fn every_mistake_names_its_field_and_changes_nothing() {
    let world = World::new().await;
    world.node("web-1").await;
    let still = Still { head: world.head().await, world };
    networks(&still).await;
    nodes(&still).await;
    tokens(&still).await;
    operators(&still).await;
    reads(&still).await;
}

async fn networks(still: &Still) {
    let world = &still.world;
    let good = || CreateNetworkRequest {
        request_id: world.id(),
        name: "lab".into(),
        ..Default::default()
    };
    let named = |name: &str| CreateNetworkRequest { name: name.into(), ..good() };
    let ipv4 = |range: &str| CreateNetworkRequest { ipv4_range: range.into(), ..good() };
    let ipv6 = |range: &str| CreateNetworkRequest { ipv6_range: range.into(), ..good() };
    for (request, message) in [
        (named(""), "name: \"\" is not a name"),
        (named("Lab"), "name: \"Lab\" is not a name"),
        (named("a/b"), "name: "),
        (ipv4("10.1.0.0"), "ipv4_range: "),
        (ipv4("10.1.2.0/16"), "ipv4_range: 10.1.2.0/16 names an address inside"),
        (ipv4("10.90.7.0/24"), "ipv4_range: it overlaps 10.90.0.0/16 of network default"),
        (ipv6("fd00::1/64"), "ipv6_range: "),
        (ipv6("fd00::/32"), "ipv6_range: "),
        (CreateNetworkRequest { mode: 9, ..good() }, "mode: "),
        (CreateNetworkRequest { mtu: 70_000, ..ipv4("10.1.0.0/16") }, "mtu: 576 to 65455 bytes"),
        (CreateNetworkRequest { mtu: 1279, ..good() }, "mtu: 1279 bytes are too few where"),
    ] {
        let status = refused(world.admin.create_network(local(request)).await);
        still.check(status, Code::InvalidArgument, message).await;
    }
    let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let update = |ipv4: &str, ipv6: &str| UpdateNetworkRequest {
        request_id: world.id(),
        name: "default".into(),
        ipv4_range: Some(ipv4.into()),
        ipv6_range: Some(ipv6.into()),
        ..Default::default()
    };
    for (request, message) in [
        (update("", ""), "ipv4_range: a network has"),
        (update("x", ""), "ipv4_range: "),
        (
            UpdateNetworkRequest { key_rotation: seconds(60), ..update("10.1.0.0/16", "") },
            "key_rotation: an hour",
        ),
        (
            UpdateNetworkRequest { key_rotation: seconds(-1), ..update("10.1.0.0/16", "") },
            "key_rotation: an hour",
        ),
        (
            UpdateNetworkRequest { mtu: Some(575), ..update("10.1.0.0/16", "") },
            "mtu: 576 to 65455 bytes, got 575",
        ),
        (
            UpdateNetworkRequest { mtu: Some(1279), ..update("10.1.0.0/16", "fd00::/64") },
            "mtu: 1279 bytes are too few where there is IPv6",
        ),
        (UpdateNetworkRequest { mode: -1, ..update("10.1.0.0/16", "") }, "mode: "),
        (UpdateNetworkRequest { name: String::new(), ..update("", "") }, "name: "),
    ] {
        let status = refused(world.admin.update_network(local(request)).await);
        still.check(status, Code::InvalidArgument, message).await;
    }
}

async fn nodes(still: &Still) {
    let world = &still.world;
    let at =
        |network: &str, node: &str| Some(NodeRef { network: network.into(), node: node.into() });
    for (node, code, message) in [
        (None, Code::InvalidArgument, "node.node: missing"),
        (at("default", ""), Code::InvalidArgument, "node.node: missing"),
        (at("", "web-1"), Code::InvalidArgument, "node.network: "),
        (at("lab", "web-1"), Code::NotFound, "node.network: there is no network lab"),
        (at("default", "Web 1"), Code::NotFound, "node.node: network default has no node"),
    ] {
        let request = GetNodeRequest { node: node.clone() };
        still.check(refused(world.admin.get_node(local(request)).await), code, message).await;
        let request = DeleteNodeRequest { request_id: world.id(), node };
        still.check(refused(world.admin.delete_node(local(request)).await), code, message).await;
    }
    let good = || LabelNodeRequest {
        request_id: world.id(),
        node: at("default", "web-1"),
        set: labels("site", "fra"),
        remove: Vec::new(),
    };
    for (request, message) in [
        (LabelNodeRequest { set: BTreeMap::new(), ..good() }, "set: nothing to change"),
        (LabelNodeRequest { set: labels("-a", "1"), ..good() }, "set: label key \"-a\""),
        (LabelNodeRequest { set: labels("name", "x"), ..good() }, "set: label name: reserved"),
        (LabelNodeRequest { set: labels("a", "b c"), ..good() }, "set: label a: value \"b c\""),
        (LabelNodeRequest { remove: vec!["b c".into()], ..good() }, "remove: label key \"b c\""),
        (LabelNodeRequest { remove: vec!["site".into()], ..good() }, "remove: label site is also"),
    ] {
        let status = refused(world.admin.label_node(local(request)).await);
        still.check(status, Code::InvalidArgument, message).await;
    }
}

async fn tokens(still: &Still) {
    let world = &still.world;
    let good = || CreateJoinTokenRequest {
        request_id: world.id(),
        network: "default".into(),
        ..Default::default()
    };
    let lasting = |seconds| CreateJoinTokenRequest { time_to_live: duration(seconds), ..good() };
    let named = |max_uses| CreateJoinTokenRequest {
        node_name: "db-1".into(),
        max_uses: Some(max_uses),
        ..good()
    };
    for (request, code, message) in [
        (
            CreateJoinTokenRequest { network: "lab".into(), ..good() },
            Code::NotFound,
            "network: there is no network lab",
        ),
        (
            CreateJoinTokenRequest { network: String::new(), ..good() },
            Code::InvalidArgument,
            "network: ",
        ),
        (
            CreateJoinTokenRequest { labels: labels("", "x"), ..good() },
            Code::InvalidArgument,
            "labels: ",
        ),
        (
            CreateJoinTokenRequest { labels: labels("id", "x"), ..good() },
            Code::InvalidArgument,
            "labels: label id: reserved",
        ),
        (
            CreateJoinTokenRequest { node_name: "A B".into(), ..good() },
            Code::InvalidArgument,
            "node_name: ",
        ),
        (named(2), Code::InvalidArgument, "max_uses: a token that names its node has one use"),
        (named(0), Code::InvalidArgument, "max_uses: "),
        (lasting(0), Code::InvalidArgument, "time_to_live: more than nothing"),
        (lasting(-5), Code::InvalidArgument, "time_to_live: "),
        (lasting(366 * 24 * 3600), Code::InvalidArgument, "time_to_live: "),
    ] {
        let status = refused(world.admin.create_join_token(local(request)).await);
        still.check(status, code, message).await;
    }
    let revoke = RevokeJoinTokenRequest { request_id: world.id(), id: Bytes::from_static(b"x") };
    let status = refused(world.admin.revoke_join_token(local(revoke)).await);
    still.check(status, Code::InvalidArgument, "id: expected 8 bytes, got 1").await;
}

async fn operators(still: &Still) {
    let world = &still.world;
    let csr = Bytes::from(KeyPair::generate().csr());
    let good = || CreateOperatorRequest {
        request_id: world.id(),
        name: "ann".into(),
        role: Role::Viewer.into(),
        csr: csr.clone(),
        time_to_live: None,
    };
    let forged = {
        let mut bytes = csr.to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        Bytes::from(bytes)
    };
    for (request, message) in [
        (CreateOperatorRequest { name: "Ann!".into(), ..good() }, "name: "),
        (CreateOperatorRequest { role: 0, ..good() }, "role: choose viewer"),
        (CreateOperatorRequest { role: 77, ..good() }, "role: choose viewer"),
        (CreateOperatorRequest { csr: Bytes::new(), ..good() }, "csr: "),
        (CreateOperatorRequest { csr: vec![0x30; 9000].into(), ..good() }, "csr: "),
        (CreateOperatorRequest { csr: forged, ..good() }, "csr: "),
        (
            CreateOperatorRequest { time_to_live: duration(3 * 366 * 24 * 3600), ..good() },
            "time_to_live: ",
        ),
    ] {
        let status = refused(world.admin.create_operator(local(request)).await);
        still.check(status, Code::InvalidArgument, message).await;
    }
    let revoke = RevokeOperatorRequest { request_id: world.id(), id: Bytes::new() };
    let status = refused(world.admin.revoke_operator(local(revoke)).await);
    still.check(status, Code::InvalidArgument, "id: expected 16 bytes, got 0").await;
}

async fn reads(still: &Still) {
    let world = &still.world;
    for (request, code, message) in [
        (
            ListNodesRequest { selector: "a near b".into(), ..Default::default() },
            Code::InvalidArgument,
            "selector: ",
        ),
        (
            ListNodesRequest { network: "lab".into(), ..Default::default() },
            Code::NotFound,
            "network: there is no network lab",
        ),
        (
            ListNodesRequest { page_token: "!".into(), ..Default::default() },
            Code::InvalidArgument,
            "page_token: not one that this list gave",
        ),
    ] {
        let status = refused(world.admin.list_nodes(local(request)).await);
        still.check(status, code, message).await;
    }
    let wait = WaitAppliedRequest { revision: 1, timeout: duration(301) };
    let status = refused(world.admin.wait_applied(local(wait)).await);
    still.check(status, Code::InvalidArgument, "timeout: more than nothing and at most 5m").await;
    let watch = WatchRequest { after_revision: None, network: "A B".into() };
    let status = refused(world.admin.watch(local(watch)).await);
    still.check(status, Code::InvalidArgument, "network: ").await;
}
