//! Malformed requests: a status that names the field, nothing changed, no secret repeated.

use bytes::Bytes;
use tonic::Code;
use wattle_proto::enroll::{
    EnrollRequest, RecoverRequest, RenewRequest, enrollment_service_client::EnrollmentServiceClient,
};

use crate::{Machine, World};

#[tokio::test]
async fn every_malformed_field_is_named_and_nothing_changes() {
    type Spoil = fn(&mut EnrollRequest);
    let cases: [(&str, Spoil); 7] = [
        ("token_id: ", |r| r.token_id = Bytes::from_static(&[1; 9])),
        ("token_secret: ", |r| r.token_secret.truncate(31)),
        ("csr: ", |r| r.csr = Bytes::from_static(b"\x30\x03\x02\x01\x00")),
        ("csr: ", |r| r.csr = vec![0; 10_000].into()),
        ("wireguard_public_key: ", |r| r.wireguard_public_key.clear()),
        ("name: ", |r| r.name = "../etc".into()),
        ("endpoints: ", |r| r.endpoints = vec![Bytes::from_static(&[224, 0, 0, 1, 0, 1])]),
    ];
    let world = World::start().await;
    let token = world.token(|_| {}).await;
    let before = world.kept().await;
    for (field, spoil) in cases {
        let mut request = Machine::new().request(&token);
        spoil(&mut request);
        let status = world.enroll(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().starts_with(field), "{field}: {status}");
        let secret = hex::encode(token.secret.expose_bytes());
        assert!(!format!("{status:?}").contains(&secret[..16]));
    }
    assert_eq!(world.kept().await, before);
    world.enroll(Machine::new().request(&token)).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn renew_and_recover_name_the_request_too() {
    let world = World::start().await;
    let node = world.node().await;
    let csr = Bytes::from_static(b"none");
    let renew = world.of(&node).await.renew(RenewRequest { csr: csr.clone() }).await;
    let mut stranger = EnrollmentServiceClient::new(world.stranger().await);
    let recover = stranger.recover(RecoverRequest { csr }).await;
    for status in [renew.unwrap_err(), recover.unwrap_err()] {
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "csr: not a signing request (PKCS #10, DER)");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_stranger_cant_send_more_than_an_enrolment_needs() {
    let world = World::start().await;
    let token = world.token(|_| {}).await;
    let request = EnrollRequest { csr: vec![0; 1 << 20].into(), ..Machine::new().request(&token) };
    let status = world.enroll(request).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    world.stop().await;
}
