//! What any replica says of all agents, and of replicas that don't answer.

use std::time::Duration;

use bytes::Bytes;
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};
use wattle_controlplane::{replicas::Presence, store::keys, stream::Summary};
use wattle_model::{Fingerprint, ReplicaId, Revision};
use wattle_proto::admin::{
    GetStatusRequest, GetStatusResponse, LabelNodeRequest, ListNodesRequest, NodeRef,
    WaitAppliedRequest, WaitAppliedResponse,
};

use super::{Admin, Three, eventually, light::Light};

async fn status(admin: &mut Admin) -> GetStatusResponse {
    admin.get_status(GetStatusRequest {}).await.unwrap().into_inner()
}

async fn waited(admin: &mut Admin, revision: u64, seconds: i64) -> WaitAppliedResponse {
    let timeout = Some(prost_types::Duration { seconds, nanos: 0 });
    admin.wait_applied(WaitAppliedRequest { revision, timeout }).await.unwrap().into_inner()
}

async fn relabel(admin: &mut Admin, node: &str, value: &str) -> u64 {
    let request = LabelNodeRequest {
        request_id: Bytes::from(rand::random::<[u8; 16]>().to_vec()),
        node: Some(NodeRef { network: "default".into(), node: node.into() }),
        set: [("role".to_owned(), value.to_owned())].into(),
        remove: Vec::new(),
    };
    admin.label_node(request).await.unwrap().into_inner().revision
}

/// A new entry for everybody: what a changed label means in a mesh is nothing.
async fn another(three: &Three, name: &str) -> (Light, u64) {
    let light = Light::join(&three.token, name, &three.replicas[0]).await;
    let revision = light.made.revision;
    (light, revision)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_knows_of_every_agent() {
    let three = Three::start().await;
    let mut on_first = Light::join(&three.token, "one", &three.replicas[0]).await;
    let mut on_second = Light::join(&three.token, "two", &three.replicas[1]).await;
    let mut gone = Light::join(&three.token, "three", &three.replicas[2]).await;
    let joined = gone.made.revision;
    gone.reach(joined).await;
    drop(gone);
    for light in [&mut on_first, &mut on_second] {
        light.reach(joined).await;
    }
    on_first.ack().await;
    for n in 0..3 {
        let mut admin = three.admin(n).await;
        let seen = eventually(
            async || status(&mut three.admin(n).await).await,
            |seen| (seen.nodes_online, seen.nodes_converged) == (2, 1),
        )
        .await;
        assert_eq!((seen.nodes, seen.replicas), (3, 3));
        assert!(seen.silent_replicas.is_empty(), "{seen:?}");
        let change = seen.last_change.unwrap();
        assert_eq!((change.concerned, change.applied), (3, 1), "{change:?}");
        let nodes = admin.list_nodes(ListNodesRequest::default()).await.unwrap().into_inner().nodes;
        let mut seen: Vec<_> = nodes
            .iter()
            .map(|node| {
                let session = node.session.as_ref().unwrap();
                let at = three
                    .replicas
                    .iter()
                    .position(|r| r.replica.id.as_bytes()[..] == session.replica_id);
                (node.name.as_str(), session.online, at.unwrap())
            })
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, [("one", true, 0), ("three", false, 2), ("two", true, 1)]);
    }
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_at_any_replica_is_over_when_all_agents_everywhere_have_it() {
    let three = Three::start().await;
    let mut agents = Vec::new();
    for n in 0..3 {
        agents.push(Light::join(&three.token, &format!("n{n}"), &three.replicas[n]).await);
    }
    let revision = agents[2].made.revision;
    let mut admin = three.admin(0).await;
    let waiting = tokio::spawn(async move { waited(&mut admin, revision, 20).await });
    for agent in &mut agents[..2] {
        agent.reach(revision).await;
        agent.ack().await;
    }
    sleep(Duration::from_millis(500)).await;
    assert!(!waiting.is_finished(), "the third one, on another replica, hasn't said anything");
    // It moves, and applies where it has gone.
    let old = agents[2].reconnect(&three.replicas[1]).await;
    drop(old);
    sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "it is waited for where it is");
    agents[2].reach(revision).await;
    agents[2].ack().await;
    let progress = waiting.await.unwrap();
    assert_eq!((progress.concerned, progress.applied), (3, 3), "{progress:?}");
    assert!(progress.silent_replicas.is_empty());
    // Whoever disconnects is offline, never applied.
    let (new, revision) = another(&three, "n3").await;
    let mut admin = three.admin(2).await;
    let waiting = tokio::spawn(async move { waited(&mut admin, revision, 20).await });
    for agent in &mut agents[..2] {
        agent.reach(revision).await;
        agent.ack().await;
    }
    drop((agents.pop(), new));
    let progress = waiting.await.unwrap();
    assert_eq!((progress.applied, progress.offline_count), (2, 2), "{progress:?}");
    // What concerns nobody is applied at once.
    let mut admin = three.admin(1).await;
    let revision = relabel(&mut admin, "n0", "web").await;
    let progress = waited(&mut admin, revision, 20).await;
    assert_eq!(progress.pending_count, 0, "{progress:?}");
    three.stop().await;
}

/// A record of a replica whose address swallows everything.
async fn black_hole(three: &Three) -> (TcpListener, ReplicaId) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let id = ReplicaId::new([0xdd; 16]);
    let presence = Presence {
        id,
        addresses: Vec::new(),
        replica_address: listener.local_addr().unwrap().to_string(),
        started: std::time::SystemTime::now(),
        version: "0.1.0".into(),
        sessions: 0,
        indexed: Revision(1),
        stale: false,
        draining: false,
        fingerprint: Fingerprint::new([1; 32]),
        root: Fingerprint::new([9; 32]),
        beat: 1,
        last_change: Summary::default(),
    };
    three.store.announce(keys::replica(id), presence.encode()).await.unwrap();
    (listener, id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_doesnt_answer_is_named_and_holds_up_nobody() {
    let three = Three::start().await;
    let mut agent = Light::join(&three.token, "one", &three.replicas[1]).await;
    let revision = agent.made.revision;
    agent.reach(revision).await;
    agent.ack().await;
    let (_hole, id) = black_hole(&three).await;
    eventually(async || three.replicas[0].replica.roster.others().len(), |others| *others == 3)
        .await;
    let mut admin = three.admin(0).await;
    let began = Instant::now();
    let seen = status(&mut admin).await;
    let took = began.elapsed();
    assert!(took < Duration::from_millis(3500), "{took:?}");
    assert_eq!((seen.nodes_online, seen.nodes_converged, seen.replicas), (1, 1, 4));
    let [silent] = &seen.silent_replicas[..] else { panic!("{seen:?}") };
    assert_eq!(silent.id, id.as_bytes().as_slice());
    assert!(silent.reason.contains("no answer within 2s"), "{silent:?}");
    let began = Instant::now();
    let progress = waited(&mut admin, revision, 60).await;
    assert!(began.elapsed() < Duration::from_millis(3500), "{:?}", began.elapsed());
    assert_eq!((progress.applied, progress.silent_replicas.len()), (1, 1), "{progress:?}");
    three.stop().await;
}
