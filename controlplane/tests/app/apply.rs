//! Apply over real connections: what is wrong with a request comes in a header, and headers have
//! their limits.

use bytes::Bytes;
use tonic::Code;
use tonic_types::StatusExt as _;
use wattle_proto::admin::{
    ApplyRequest, PolicySpec, Resource, admin_service_client::AdminServiceClient, resource::Kind,
};

use crate::{folder, start, whole};

fn policy(n: usize, from: &str) -> Resource {
    let (network, name) = ("default".into(), format!("p{n}"));
    let spec = PolicySpec { network, name, from: from.into(), to: String::new() };
    Resource { kind: Some(Kind::Policy(spec)), ..Resource::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_mistakes_reach_the_operator() {
    let folder = folder();
    let running = start(folder.path()).await;
    let channel = whole::operator(&running, &folder.path().join("operator.json")).await;
    let mut admin = AdminServiceClient::new(channel);
    // Text that grows when it is quoted, and isn't ASCII.
    let mistake = "ä\u{1} ".repeat(50);
    let request = |resources| ApplyRequest {
        request_id: Bytes::from_static(b"apply"),
        resources,
        ..ApplyRequest::default()
    };
    let bad = (0..1000).map(|n| policy(n, &mistake)).collect();
    let status = admin.apply(request(bad)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert!(status.message().ends_with("(and 999 more)"), "{status}");
    let violations = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(violations[0].field, "resources[0].policy.from");
    let rest = 1000 - (violations.len() - 1);
    let last = &violations.last().unwrap().description;
    assert_eq!(*last, format!("{rest} more mistakes, which don't fit here"));
    // The connection is none the worse for it.
    let answer = admin.apply(request(vec![policy(1, "a")])).await.unwrap().into_inner();
    assert_eq!(answer.applied.len(), 1);
}
