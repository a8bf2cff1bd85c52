//! A node's WireGuard key is changed by whichever replica has its agent, and another one goes on where
//! that ends.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};
use wattle_proto::{
    admin::{GetNodeRequest, KeyRotation, Node, NodeRef, RotateNodeKeyRequest},
    sync::sync_response::Message,
};

use super::{Admin, Three, eventually, light::Light};

fn by_name(node: &str) -> Option<NodeRef> {
    Some(NodeRef { network: "default".into(), node: node.into() })
}

async fn node(admin: &mut Admin, name: &str) -> Node {
    let request = GetNodeRequest { node: by_name(name) };
    admin.get_node(request).await.unwrap().into_inner().node.unwrap()
}

async fn rotate(admin: &mut Admin, name: &str) -> u64 {
    let request_id = Bytes::from(rand::random::<[u8; 16]>().to_vec());
    let request = RotateNodeKeyRequest { request_id, node: by_name(name) };
    admin.rotate_node_key(request).await.unwrap().into_inner().revision
}

/// Lives until it is told of its key, and answers for a next one with `next`.
async fn changed(agent: &mut Light, next: &Bytes) -> Bytes {
    loop {
        if let Message::OwnKey(own) = agent.step().await.unwrap() {
            if own.make_next {
                agent.next_key(next).await;
            }
            if !own.public_key.is_empty() {
                return own.public_key;
            }
        }
    }
}

async fn live(agent: &mut Light) -> ! {
    loop {
        agent.step().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_changes_once_all_have_learnt_the_next_one() {
    let three = Three::start().await;
    let mut agent = Light::join(&three.token, "one", &three.replicas[0]).await;
    let mut slow = Light::join(&three.token, "two", &three.replicas[1]).await;
    slow.acks = false;
    let mut admin = three.admin(2).await;
    let before = node(&mut admin, "one").await;
    assert_eq!(before.key_rotation(), KeyRotation::Unspecified);
    let next = Bytes::from(vec![9; 32]);
    rotate(&mut admin, "one").await;

    let early = timeout(Duration::from_secs(4), async {
        tokio::select! {
            key = changed(&mut agent, &next) => key,
            never = live(&mut slow) => never,
        }
    });
    assert!(early.await.is_err(), "the other one hasn't said that it knows the next key");
    let now = node(&mut admin, "one").await;
    assert_eq!(
        (now.key_rotation(), now.public_key),
        (KeyRotation::UnderWay, before.public_key.clone())
    );
    slow.acks = true;
    slow.ack().await;
    let key = timeout(Duration::from_secs(10), async {
        tokio::select! {
            key = changed(&mut agent, &next) => key,
            never = live(&mut slow) => never,
        }
    });
    assert_eq!(key.await.unwrap(), next);
    let done = eventually(
        async || node(&mut three.admin(2).await, "one").await,
        |node| node.public_key == next && node.key_rotation() == KeyRotation::Unspecified,
    );
    let done = done.await;
    let since = |node: &Node| node.key_since.map(|at| (at.seconds, at.nanos));
    assert!(since(&done) > since(&before), "{done:?}");
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_goes_on_with_an_agent_that_comes_to_it() {
    let mut three = Three::start().await;
    let mut agent = Light::join(&three.token, "one", &three.replicas[0]).await;
    let mut peer = Light::join(&three.token, "two", &three.replicas[1]).await;
    // The peer doesn't say that it knows the next key: the first replica waits, and ends.
    peer.acks = false;
    let next = Bytes::from(vec![9; 32]);
    rotate(&mut three.admin(1).await, "one").await;
    let asked = timeout(Duration::from_secs(4), changed(&mut agent, &next)).await;
    assert!(asked.is_err(), "{asked:?}");
    let first = three.replicas.remove(0);
    let stopping = tokio::spawn(first.stop());
    agent.drained().await;
    drop(agent.reconnect(&three.replicas[1]).await);
    peer.acks = true;
    let began = Instant::now();
    let key = timeout(Duration::from_secs(20), async {
        tokio::select! {
            key = changed(&mut agent, &next) => key,
            never = live(&mut peer) => never,
        }
    });
    assert_eq!(key.await.expect("another replica goes on"), next);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    stopping.await.unwrap();
    three.stop().await;
}
