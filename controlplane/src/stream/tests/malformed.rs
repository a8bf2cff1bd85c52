//! What an agent mustn't say, over the real stream: a status that names the field, nothing changed,
//! and the next stream is served as if nothing had been.

use bytes::Bytes;
use tonic::Code;
use wattle_proto::sync::{self, sync_request::Message};

use super::{
    agent::{Agent, Held},
    world::{Node, World},
};

/// Demands that what comes first on a stream is refused in these words.
async fn first(world: &World, node: &Node, message: Message, words: &str) {
    let mut agent = Agent::open(world, node, Held::new(9)).await;
    agent.say(message).await;
    refused(&mut agent, words).await;
}

async fn refused(agent: &mut Agent, words: &str) {
    let status = agent.end().await;
    assert_eq!(status.code(), Code::InvalidArgument, "{words}: {status}");
    assert!(status.message().starts_with(words), "{words}: {}", status.message());
}

fn hello(spoil: impl FnOnce(&mut sync::Hello)) -> Message {
    let mut hello = Held::new(9).hello();
    (hello.revision, hello.epoch) = (1, Bytes::from_static(&[5; 16]));
    spoil(&mut hello);
    Message::Hello(hello)
}

#[tokio::test]
async fn a_stream_begins_with_a_whole_hello_and_nothing_else() {
    let world = World::new().await;
    let a = world.enroll().await;
    // The stream that is there stays, whatever comes under its name.
    let mut good = Agent::joined(&world, &a, 1).await;
    let head = world.replica.store.head().await.unwrap();

    let begins = "message: a stream begins with hello";
    first(&world, &a, Message::Ack(good.an_ack()), begins).await;
    first(&world, &a, Message::Resync(sync::Resync { revision: 1 }), begins).await;
    let report = sync::Report { listen_port: 51820, ..Default::default() };
    first(&world, &a, Message::Report(report), begins).await;
    let long = Bytes::from_static(&[7; 17]);
    for (message, words) in [
        (hello(|hello| hello.protocol_version = 0), "hello.protocol_version: at least 1, got 0"),
        (hello(|hello| hello.instance.clear()), "hello.instance: expected 16 bytes, got 0"),
        (hello(|hello| hello.epoch = long.clone()), "hello.epoch: expected 16 bytes, got 17"),
        (hello(|hello| hello.digest.truncate(15)), "hello.digest: "),
        (hello(|hello| hello.config_hash = long.clone()), "hello.config_hash: 32 bytes or none"),
    ] {
        first(&world, &a, message, words).await;
    }
    let mut nothing = Agent::open(&world, &a, Held::new(9)).await;
    nothing.say_nothing().await;
    refused(&mut nothing, "message: missing").await;

    good.heartbeat().await;
    let info = world.sessions.info(a.id).unwrap();
    assert!(info.online && !info.displaced);
    assert_eq!(info.instance, good.held.instance);
    assert_eq!(world.replica.store.head().await.unwrap(), head);
}

#[tokio::test]
async fn hello_comes_once_and_later_messages_are_whole() {
    type Say = fn(&Agent) -> Message;
    let world = World::new().await;
    let a = world.enroll().await;
    let mut held = Agent::joined(&world, &a, 1).await.cut();
    let head = world.replica.store.head().await.unwrap();
    let rejected = |node_id| vec![sync::Rejection { node_id, reason: String::new() }];
    let cases: [(&str, Say); 4] = [
        ("message: hello comes once", |agent| Message::Hello(agent.held.hello())),
        ("ack.digest: ", |agent| {
            Message::Ack(sync::Ack { digest: Bytes::from_static(&[1; 15]), ..agent.an_ack() })
        }),
        ("ack.verified_revision: ", |agent| {
            Message::Ack(sync::Ack { verified_revision: u64::MAX, ..agent.an_ack() })
        }),
        ("resync.revision: ", |_| Message::Resync(sync::Resync { revision: u64::MAX })),
    ];
    for (n, (words, message)) in (1..).zip(cases) {
        let mut agent = Agent::connect(&world, &a, held).await.0;
        agent.say(message(&agent)).await;
        refused(&mut agent, words).await;
        assert_eq!(world.sessions.counts().protocol_errors(), n);
        held = agent.cut();
    }
    let mut agent = Agent::connect(&world, &a, held).await.0;
    let short = Bytes::from_static(&[1; 15]);
    let ack = sync::Ack { rejected: rejected(short), ..agent.an_ack() };
    agent.say(Message::Ack(ack)).await;
    refused(&mut agent, "ack.rejected.node_id: expected 16 bytes, got 15").await;
    assert!(world.sessions.info(a.id).unwrap().rejected.is_empty());
    assert_eq!(world.replica.store.head().await.unwrap(), head);
}

/// Bytes that are no message at all are the agent's fault, and not "internal".
#[tokio::test]
async fn bytes_that_are_no_message_are_refused() {
    let world = World::new().await;
    let a = world.enroll().await;
    for noise in [&b"\xff\xff\xff\xff"[..], b"\x0a\x7f", b"\x0a\x02\x12\x7f"] {
        let status = Agent::noise(&world, &a, noise).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{noise:?}: {status}");
        assert!(status.message().starts_with("request: "), "{status}");
    }
    assert!(world.sessions.info(a.id).is_none(), "nobody was let in");
}

/// A certificate of this very CA that places the node in a network that isn't its own.
#[tokio::test]
async fn a_node_has_no_stream_in_another_network() {
    let world = World::new().await;
    let a = world.enroll().await;
    let other = "other".parse().unwrap();
    let status = Agent::try_open_in(&world, &other, &a, Held::new(1)).await.err().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    assert!(status.message().contains("another network"), "{status}");
    assert!(status.metadata().get("wattle-reason").is_none(), "its mesh stays");
}
