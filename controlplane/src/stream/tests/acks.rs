//! What agents may say of what they have, and what happens to those that say something else.

use bytes::Bytes;
use tonic::Code;
use wattle_model::Revision;
use wattle_proto::sync::{self, retry::Reason, sync_request, sync_response::Message};

use super::{
    agent::{Agent, Held},
    flow::eventually,
    world::World,
};
use crate::stream::DataPlane;

#[tokio::test]
async fn an_ack_says_what_was_applied_and_what_was_not() {
    let world = World::new().await;
    let (a, b) = (world.enroll().await, world.enroll().await);
    let mut agent = Agent::joined(&world, &a, 1).await;
    let revision = world.change(&b, 2).await;
    agent.batch().await;
    let rejected = sync::Rejection {
        node_id: Bytes::copy_from_slice(b.id.as_bytes()),
        reason: "overlaps \u{7}eth0".to_owned(),
    };
    let ack = sync::Ack { rejected: vec![rejected], ..agent.an_ack() };
    agent.say(sync_request::Message::Ack(ack)).await;
    eventually(|| world.sessions.info(a.id).unwrap().applied == revision).await;
    let info = world.sessions.info(a.id).unwrap();
    assert!(info.online && !info.displaced);
    assert_eq!((info.verified, info.agent_version.as_str()), (revision, "test"));
    assert_eq!(info.last_apply, Some(std::time::Duration::from_micros(1500)));
    assert_eq!(info.rejected[0].reason, "overlaps eth0");
    // It stays rejected over a batch about somebody else, until its own entry changes.
    let c = world.enroll().await;
    agent.batch_acked().await;
    let revision = world.change(&c, 3).await;
    agent.batch_acked().await;
    eventually(|| world.sessions.info(a.id).unwrap().applied == revision).await;
    assert_eq!(world.sessions.info(a.id).unwrap().rejected.len(), 1);
    world.change(&b, 4).await;
    agent.batch_acked().await;
    eventually(|| world.sessions.info(a.id).unwrap().rejected.is_empty()).await;
}

#[tokio::test]
async fn an_ack_of_what_was_never_sent_ends_the_stream() {
    let world = World::new().await;
    let a = world.enroll().await;
    let before = {
        let agent = Agent::joined(&world, &a, 1).await;
        eventually(|| world.sessions.info(a.id).unwrap().applied == agent.held.revision).await;
        agent.cut()
    };
    let lies: [fn(&mut sync::Ack); 3] = [
        |ack| ack.revision += 1,
        |ack| ack.revision = u64::MAX,
        |ack| (ack.revision, ack.verified_revision) = (ack.revision - 1, 0),
    ];
    for (n, lie) in (1..).zip(lies) {
        let (mut agent, _) = Agent::connect(&world, &a, before.clone()).await;
        let mut ack = agent.an_ack();
        lie(&mut ack);
        agent.say(sync_request::Message::Ack(ack)).await;
        let status = agent.end().await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with("ack.revision: "), "{status}");
        let applied = world.sessions.info(a.id).unwrap().applied;
        assert_eq!(applied, before.revision, "nothing came of it");
        assert_eq!(world.sessions.counts().protocol_errors(), n);
    }
}

#[tokio::test]
async fn a_malformed_report_names_the_field() {
    let world = World::new().await;
    let a = world.enroll().await;
    let report = |endpoint: &'static [u8], listen_port| sync::Report {
        endpoints: vec![Bytes::from_static(endpoint)],
        listen_port,
        data_plane: sync::DataPlane::Userspace.into(),
        secret_generation: 0,
    };
    let held = Agent::joined(&world, &a, 1).await.cut();
    for (bad, field) in [
        (report(&[1, 2, 3], 51820), "report.endpoints: "),
        (report(&[192, 0, 2, 1, 0, 0], 51820), "report.endpoints: "),
        (report(&[192, 0, 2, 1, 0, 9], 70_000), "report.listen_port: "),
    ] {
        let (mut agent, _) = Agent::connect(&world, &a, held.clone()).await;
        agent.say(sync_request::Message::Report(bad)).await;
        let status = agent.end().await;
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(field), "{status}");
    }
    assert!(world.identity(&a).await.own_endpoints.is_empty());
    let (mut agent, _) = Agent::connect(&world, &a, held).await;
    let good = report(&[192, 0, 2, 1, 0, 9], 51820);
    agent.say(sync_request::Message::Report(good)).await;
    eventually(|| world.sessions.info(a.id).unwrap().data_plane == Some(DataPlane::Userspace))
        .await;
}

#[tokio::test]
async fn a_request_too_large_is_refused() {
    let world = World::new().await;
    let a = world.enroll().await;
    let mut agent = Agent::open(&world, &a, Held::new(1)).await;
    let hello = sync::Hello { agent_version: "x".repeat(65 << 10), ..agent.held.hello() };
    agent.say(sync_request::Message::Hello(hello)).await;
    let status = agent.end().await;
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("request: "), "{status}");
}

#[tokio::test]
async fn a_wrong_digest_is_counted_and_a_resync_is_one_full_set_a_minute() {
    let world = World::new().await;
    let (a, b) = (world.enroll().await, world.enroll().await);
    let mut agent = Agent::joined(&world, &a, 1).await;
    let joined_at = agent.held.revision;
    eventually(|| world.sessions.info(a.id).unwrap().applied == joined_at).await;
    let revision = world.change(&b, 2).await;
    agent.batch().await;
    let ack = sync::Ack { digest: vec![7; 16].into(), ..agent.an_ack() };
    agent.say(sync_request::Message::Ack(ack)).await;
    eventually(|| world.sessions.counts().digest_mismatches() == 1).await;
    assert_eq!(world.sessions.info(a.id).unwrap().applied, joined_at, "not what was sent");

    agent.say(sync_request::Message::Resync(sync::Resync { revision: revision.0 })).await;
    let batch = agent.batch_acked().await;
    assert!(batch.commit.full_set);
    assert_eq!(batch.entries.len(), 2);
    eventually(|| world.sessions.info(a.id).unwrap().applied >= revision).await;
    assert_eq!(world.sessions.full_sets().get("resync"), Some(&1));

    // Again, on this stream or another: not within the minute.
    for _ in 0..2 {
        agent.say(sync_request::Message::Resync(sync::Resync { revision: revision.0 })).await;
        loop {
            match agent.next().await {
                Message::Heartbeat(_) => {}
                Message::Retry(retry) => {
                    assert_eq!(retry.reason(), Reason::Busy);
                    assert!(retry.after_millis > 50_000);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        let mut held = agent.cut();
        held.revision = held.revision.max(revision);
        agent = Agent::connect(&world, &a, held).await.0;
        agent.heartbeat().await;
    }
    assert_eq!(world.sessions.counts().resyncs_refused(), 2);
    let lie = sync::Resync { revision: Revision(u64::MAX).0 };
    agent.say(sync_request::Message::Resync(lie)).await;
    assert_eq!(agent.end().await.code(), Code::InvalidArgument);
}
