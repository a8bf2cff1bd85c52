//! What doesn't fit one transaction is refused whole, and the refusal counts.

use tonic::Code;
use wattle_proto::admin::Expectation;

use super::*;

fn policies(count: usize) -> Vec<Resource> {
    (0..count).map(|n| policy(&format!("default/p{n}"), "a", "b")).collect()
}

/// 128 writes: one for the network, and one for the request.
#[tokio::test]
async fn as_many_changes_as_a_transaction_has_room_for() {
    let world = World::new().await;
    for count in [127, 128, 129, 400] {
        let status = refuse(&world, &policies(count), &[]).await;
        assert_eq!(status.code(), Code::FailedPrecondition);
        let writes = format!(
            "resources: {count} changes are too many at once: they take {} writes, one transaction \
             has at most 128",
            count + 2
        );
        let told = violations(&status);
        assert!(told.len() == 1 && told[0].starts_with(&writes), "{told:?}");
        assert!(status.message().contains("apply them in parts"), "{status}");
    }
    assert_eq!(apply(&world, &policies(126), &[]).await.applied.len(), 126);
    // What is so already takes no room.
    let answer = apply(&world, &policies(126 * 2), &[]).await;
    assert_eq!(answer.applied.len(), 252);
    assert_eq!(actions(&answer).iter().filter(|a| a.starts_with("created")).count(), 126);
    assert_eq!(apply(&world, &policies(252), &[]).await.revision, answer.revision);
}

/// Every node that an expectation names is compared, unless it is written.
#[tokio::test]
async fn as_many_expected_nodes_as_a_transaction_compares() {
    let world = World::new().await;
    let token = world.token("default", 0).await;
    for n in 0..128 {
        world.enroll(&token, &format!("n-{n}")).await;
    }
    let pairs = |nodes: usize| -> Vec<Expectation> {
        (1..nodes).map(|n| expect("default/n-0", true, &format!("n-{n}"))).collect()
    };
    let change = [policy("default/a", "", "")];
    let status = refuse(&world, &change, &pairs(126)).await;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("they take 129 comparisons"), "{status}");
    let labelled = [labels("default/n-7", &["a=b"])];
    apply(&world, &labelled, &pairs(126)).await;
    apply(&world, &change, &pairs(125)).await;
    // With nothing to do nothing is compared.
    apply(&world, &change, &pairs(128)).await;
}

#[tokio::test]
async fn as_many_bytes_as_a_transaction_has_room_for() {
    let world = World::new().await;
    let token = world.token("default", 0).await;
    let wide = |n: usize, value: usize| {
        let label = |k: usize| format!("k{k}-{}={value}{}", "x".repeat(58), "y".repeat(60));
        let all: Vec<_> = (10..42).map(label).collect();
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        labels(&format!("default/n-{n}"), &all)
    };
    for n in 0..60 {
        world.enroll(&token, &format!("n-{n}")).await;
    }
    // Each keeps its past: what is written grows from time to time.
    let mut refusals = Vec::new();
    for value in 100..110 {
        let resources: Vec<_> = (0..60).map(|n| wide(n, value)).collect();
        let head = world.head().await;
        let request = request(&world, &resources, &[]);
        if let Err(status) = world.admin.apply(local(request)).await {
            assert_eq!(world.head().await, head);
            refusals.push(status);
            break;
        }
    }
    let status = &refusals[0];
    assert_eq!(status.code(), Code::FailedPrecondition, "the store never sees it: {status}");
    assert!(status.message().contains("60 changes are too many at once"), "{status}");
    assert!(status.message().contains("one transaction has at most 1048576"), "{status}");
    let half: Vec<_> = (0..20).map(|n| wide(n, 200)).collect();
    apply(&world, &half, &[]).await;
}

#[tokio::test]
async fn a_request_has_so_many_items_and_no_more() {
    let world = World::new().await;
    let status = refuse(&world, &vec![policy("default/a", "", ""); 5001], &[]).await;
    assert_eq!(violations(&status), ["resources: at most 5000 resources in one request, got 5001"]);
    let many = vec![expect("default/a", true, "b"); 5001];
    let status = refuse(&world, &[], &many).await;
    assert!(status.message().contains("at most 5000 expectations"), "{status}");
}
