//! The same node on two replicas: the same machine's older stream ends silently, another machine's is
//! displaced.

use std::time::Duration;

use tokio::time::sleep;
use tonic::Code;
use wattle_proto::{
    admin::{GetNodeRequest, NodeRef, NodeSession},
    sync::{retry::Reason, sync_response::Message},
};

use super::{Three, eventually, light::Light};

async fn session(three: &Three, n: usize) -> NodeSession {
    let node = Some(NodeRef { network: "default".into(), node: "one".into() });
    let answer = three.admin(n).await.get_node(GetNodeRequest { node }).await.unwrap();
    answer.into_inner().node.unwrap().session.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_agents_old_stream_ends_silently() {
    let three = Three::start().await;
    let mut agent = Light::join(&three.token, "one", &three.replicas[0]).await;
    agent.reach(agent.made.revision).await;
    // There and back, faster than anybody is told.
    let mut first = agent.reconnect(&three.replicas[1]).await;
    let mut second = agent.reconnect(&three.replicas[0]).await;
    let (last, status) = first.end().await;
    assert!(!matches!(last, Some(Message::Retry(_))) && status.code() == Code::Ok, "{last:?}");
    let (last, status) = second.end().await;
    assert!(!matches!(last, Some(Message::Retry(_))) && status.code() == Code::Ok, "{last:?}");
    // The newest one is whole: what happens now comes.
    let other = Light::join(&three.token, "two", &three.replicas[2]).await;
    agent.reach(other.made.revision).await;
    assert_eq!(agent.full_sets, 1);
    for n in 0..3 {
        let session = session(&three, n).await;
        let at = three.replicas[0].replica.id;
        assert_eq!(session.replica_id, at.as_bytes().as_slice());
        assert!(session.online && !session.displaced);
    }
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_machine_displaces_it_and_any_replica_says_so() {
    let three = Three::start().await;
    let mut one = Light::join(&three.token, "one", &three.replicas[0]).await;
    one.reach(one.made.revision).await;
    // Later than the replicas' times are blurred.
    sleep(Duration::from_millis(1200)).await;
    let clone = one.clone_at(&three.replicas[1]).await;
    let (last, status) = one.link.end().await;
    let Some(Message::Retry(retry)) = last else { panic!("{last:?}") };
    assert_eq!((retry.reason(), status.code()), (Reason::Displaced, Code::Ok));
    for n in 0..3 {
        let session = eventually(async || session(&three, n).await, |session| session.online).await;
        assert_eq!(session.replica_id, three.replicas[1].replica.id.as_bytes().as_slice());
    }
    drop(clone);
    // Of two that are both away neither is pushed out.
    for n in 0..3 {
        let gone = eventually(async || session(&three, n).await, |session| !session.online).await;
        assert!(!gone.displaced);
    }
    three.stop().await;
}
