//! Apply: all or nothing, everything wrong at once, and what it means for sight.

mod changes;
mod expectations;
mod limits;
mod mistakes;
mod races;
mod sight;

use tonic::Status;
use tonic_types::StatusExt as _;
use wattle_proto::admin::{
    ApplyRequest, ApplyResponse, Expectation, LabelsSpec, Mode, NetworkSpec, NodeRef, PolicySpec,
    Resource, admin_service_server::AdminService as _, applied::Action, resource::Kind,
};

use super::world::{World, local, refused, said};

fn resource(kind: Kind) -> Resource {
    Resource { kind: Some(kind), ..Default::default() }
}

fn network(name: &str, ipv4_range: Option<&str>, mode: Mode) -> Resource {
    resource(Kind::Network(NetworkSpec {
        name: name.into(),
        ipv4_range: ipv4_range.map(Into::into),
        mode: mode.into(),
        ..Default::default()
    }))
}

fn closed() -> Resource {
    network("default", None, Mode::Closed)
}

/// `name` is "network/policy".
fn policy(name: &str, from: &str, to: &str) -> Resource {
    let (network, name) = name.split_once('/').unwrap();
    resource(Kind::Policy(PolicySpec {
        network: network.into(),
        name: name.into(),
        from: from.into(),
        to: to.into(),
    }))
}

fn no_policy(name: &str) -> Resource {
    Resource { delete: true, ..policy(name, "", "") }
}

/// `node` is "network/node", labels are "key=value".
fn labels(node: &str, labels: &[&str]) -> Resource {
    let (network, node) = node.split_once('/').unwrap();
    let pair = |label: &&str| label.split_once('=').map(|(k, v)| (k.into(), v.into())).unwrap();
    resource(Kind::Labels(LabelsSpec {
        node: Some(NodeRef { network: network.into(), node: node.into() }),
        labels: labels.iter().map(pair).collect(),
    }))
}

fn expect(node: &str, sees: bool, other: &str) -> Expectation {
    let (network, node) = node.split_once('/').unwrap();
    Expectation { network: network.into(), node: node.into(), other: other.into(), sees }
}

fn request(world: &World, resources: &[Resource], expectations: &[Expectation]) -> ApplyRequest {
    ApplyRequest {
        request_id: world.id(),
        resources: resources.to_vec(),
        expectations: expectations.to_vec(),
        dry_run: false,
    }
}

async fn apply(
    world: &World,
    resources: &[Resource],
    expectations: &[Expectation],
) -> ApplyResponse {
    said(world.admin.apply(local(request(world, resources, expectations))).await)
}

async fn dry_run(
    world: &World,
    resources: &[Resource],
    expectations: &[Expectation],
) -> ApplyResponse {
    let request = ApplyRequest { dry_run: true, ..request(world, resources, expectations) };
    said(world.admin.apply(local(request)).await)
}

/// Why it isn't done. Whatever is refused changes nothing.
async fn refuse(world: &World, resources: &[Resource], expectations: &[Expectation]) -> Status {
    let head = world.head().await;
    let request = request(world, resources, expectations);
    let status = refused(world.admin.apply(local(request)).await);
    assert_eq!(world.head().await, head, "{status}");
    status
}

/// "field: description" of each violation.
fn violations(status: &Status) -> Vec<String> {
    let details = status.get_details_bad_request().expect("a refusal says all that is wrong");
    details.field_violations.iter().map(|v| format!("{}: {}", v.field, v.description)).collect()
}

/// "created default/one" and so on.
fn actions(answer: &ApplyResponse) -> Vec<String> {
    let action = |action: Action| match action {
        Action::Unspecified => "unspecified",
        Action::Unchanged => "unchanged",
        Action::Created => "created",
        Action::Updated => "updated",
        Action::Deleted => "deleted",
    };
    answer.applied.iter().map(|a| format!("{} {}", action(a.action()), a.name)).collect()
}

/// "default: +1 -2, 3 nodes" of each network.
fn sight(answer: &ApplyResponse) -> Vec<String> {
    let line = |s: &wattle_proto::admin::SightChange| {
        format!("{}: +{} -{}, {} nodes", s.network, s.pairs_gained, s.pairs_lost, s.nodes_changed)
    };
    answer.sight.iter().map(line).collect()
}
