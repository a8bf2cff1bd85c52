//! Tokens: each way in which one doesn't work, in its own words.

use std::time::SystemTime;

use bytes::Bytes;
use tonic::Code;
use wattle_controlplane::store::{Transaction, keys};
use wattle_model::{JoinToken, TokenId, TokenSecret};
use wattle_proto::enroll::EnrollRequest;
use wattle_runtime::{clock, dial};

use crate::{HOUR, Machine, PATIENCE, Token, World};

#[tokio::test]
async fn a_token_lets_as_many_in_as_it_says() {
    let world = World::start().await;
    let token = world.token(|token| token.max_uses = 2).await;
    for _ in 0..2 {
        world.enroll(Machine::new().request(&token)).await.unwrap();
    }
    let words = "token_id: the join token is used up: all its uses are taken";
    world.refuses(Machine::new().request(&token), Code::ResourceExhausted, words).await;
    assert_eq!(world.uses(&token).await, 2);

    let unlimited = world.token(|token| token.max_uses = 0).await;
    for _ in 0..3 {
        world.enroll(Machine::new().request(&unlimited)).await.unwrap();
    }
    world.stop().await;
}

#[tokio::test]
async fn expired_and_revoked_tokens_say_so() {
    let world = World::start().await;
    let past = clock::unix_millis(SystemTime::now() - HOUR);
    let expired = world.token(|token| token.expires_at_millis = past).await;
    let words = "token_id: the join token has expired";
    world.refuses(Machine::new().request(&expired), Code::FailedPrecondition, words).await;
    let revoked = world.token(|token| token.revoked = true).await;
    let words = "token_id: the join token was revoked";
    world.refuses(Machine::new().request(&revoked), Code::PermissionDenied, words).await;
    world.stop().await;
}

#[tokio::test]
async fn an_unknown_token_and_a_wrong_secret_are_answered_alike() {
    let world = World::start().await;
    let good = world.token(|_| {}).await;
    let wrong = Token { secret: TokenSecret::new([0; 32]), ..good.clone() };
    let unknown = Token { id: TokenId::new([0xff; 8]), ..good };
    let words = "token_secret: the join token is not valid here";
    for token in [wrong, unknown] {
        world.refuses(Machine::new().request(&token), Code::PermissionDenied, words).await;
    }
    // Nor does a wrong secret learn that the token is revoked.
    let revoked = world.token(|token| token.revoked = true).await;
    let wrong = Token { secret: TokenSecret::new([0; 32]), ..revoked };
    world.refuses(Machine::new().request(&wrong), Code::PermissionDenied, words).await;
    world.stop().await;
}

#[tokio::test]
async fn a_token_of_another_control_plane_goes_nowhere() {
    let (world, other) = (World::start().await, World::start().await);
    let token = JoinToken {
        id: TokenId::new([1; 8]),
        secret: TokenSecret::new([2; 32]),
        pin: other.replica.ca().pin(),
        addresses: vec![world.address.clone()],
    };
    let read: JoinToken = token.expose().parse().unwrap();
    let tls = wattle_certs::pinned_client_config(read.pin).unwrap().into();
    // It ends in the handshake: the secret isn't sent.
    let error = dial::channel(&read.addresses, tls, PATIENCE).await.unwrap_err();
    assert!(error.is_untrusted(), "{error}");
    assert!(error.to_string().contains("not the one this token was made for"), "{error}");
    world.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_token_of_a_deleted_network_says_so() {
    let world = World::start().await;
    let token = world.token(|token| token.network = "gone".into()).await;
    let words = "token_id: the join token's network gone was deleted";
    world.refuses(Machine::new().request(&token), Code::FailedPrecondition, words).await;
    world.stop().await;
}

#[tokio::test]
async fn validation_answers_with_the_network_and_makes_nothing() {
    let world = World::start().await;
    let token = world.token(|_| {}).await;
    let before = world.kept().await;
    let request = EnrollRequest { validate_only: true, ..Machine::new().request(&token) };
    let answer = world.enroll(request).await.unwrap();
    let config = answer.config.unwrap();
    assert_eq!((config.network.as_str(), config.ipv4_range.unwrap().length), ("default", 16));
    assert_eq!(config.ipv6_range.unwrap().length, 64);
    assert!(answer.credential.is_none() && answer.node_id.is_empty() && config.ipv4.is_empty());
    assert_eq!((world.kept().await, world.uses(&token).await), (before, 0));
    world.stop().await;
}

#[tokio::test]
async fn a_network_without_a_free_address_says_so() {
    let world = World::start().await;
    let body = wattle_proto::record::NetworkBody {
        created_at_millis: 1,
        ipv4_range: "10.1.0.0/30".into(),
        ipv6_range: String::new(),
        mode: wattle_model::Mode::Mesh,
        key_rotation_seconds: 0,
        mtu: wattle_model::Mtu::wished(1000).unwrap(),
        preshared_keys: false,
    };
    let record = wattle_proto::record::encode_first(&body);
    let network = keys::network(&"tiny".parse().unwrap());
    world.put(Transaction::default().put(network, record)).await;
    let token = world
        .token(|token| {
            token.network = "tiny".into();
            token.max_uses = 0;
        })
        .await;
    for host in 1..=2 {
        let config = world.enroll(Machine::new().request(&token)).await.unwrap().config.unwrap();
        assert_eq!(config.ipv4, Bytes::from(vec![10, 1, 0, host]));
        assert!(config.ipv6.is_empty() && config.ipv6_range.is_none());
        assert_eq!(config.mtu, 1000, "the link has it from the first moment on");
    }
    let words = "network tiny has no free address";
    world.refuses(Machine::new().request(&token), Code::ResourceExhausted, words).await;
    world.stop().await;
}
