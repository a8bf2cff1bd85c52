//! From enrolment to the end: what a node's certificate is good for, how it is renewed and
//! recovered, and what a deleted node is told.

use std::time::SystemTime;

use tonic::{Code, Status};
use wattle_certs::{Identity, KeyPair, SpiffeId, peer_identity};
use wattle_controlplane::store::keys;
use wattle_model::{History, NodeId};
use wattle_proto::{
    admin::{GetStatusRequest, admin_service_client::AdminServiceClient},
    enroll::{
        LeaveRequest, RecoverRequest, RenewRequest,
        enrollment_service_client::EnrollmentServiceClient,
    },
    reason,
    record::{NodeBody, decode_history},
};

use crate::{HOUR, Node, World};

fn removed(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition
        && status.metadata().get(reason::KEY).is_some_and(|value| value == reason::REMOVED)
}

fn fingerprint_of(certificate: &[u8]) -> (SpiffeId, wattle_model::Fingerprint) {
    let peer = peer_identity(&certificate.to_vec().into()).unwrap();
    (peer.id, peer.fingerprint)
}

async fn recover(world: &World, key: &KeyPair) -> Result<Vec<u8>, Status> {
    let mut client = EnrollmentServiceClient::new(world.stranger().await);
    let answer = client.recover(RecoverRequest { csr: key.csr().into() }).await?;
    Ok(answer.into_inner().credential.unwrap().certificate.to_vec())
}

#[tokio::test]
async fn a_certificate_says_who_the_node_is() {
    let world = World::start().await;
    let node = world.node().await;
    let network = "default".parse().unwrap();
    let id = SpiffeId {
        trust_domain: world.replica.trust_domain.clone(),
        identity: Identity::Node { network, node: node.id },
    };
    let said = fingerprint_of(&node.credential.certificate);
    assert_eq!(said, (id, node.machine.key.fingerprint()));
    assert_eq!(node.credential.trust_domain, world.replica.trust_domain.as_str());
    world.stop().await;
}

#[tokio::test]
async fn a_node_renews_its_own_key_and_no_other() {
    let world = World::start().await;
    let (node, other) = (world.node().await, world.node().await);
    let mut client = world.of(&node).await;
    let renew = |key: &KeyPair| RenewRequest { csr: key.csr().into() };
    let answer = client.renew(renew(&node.machine.key)).await.unwrap().into_inner();
    let renewed = answer.credential.unwrap().certificate;
    assert_ne!(renewed, node.credential.certificate);
    assert_eq!(fingerprint_of(&renewed), fingerprint_of(&node.credential.certificate));
    for key in [&other.machine.key, &KeyPair::generate()] {
        let status = client.renew(renew(key)).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert_eq!(status.message(), "csr: its key is not the node's");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_certificate_past_its_life_is_refused_and_recovered() {
    let world = World::start().await;
    let node = world.node().await;
    let (id, _) = fingerprint_of(&node.credential.certificate);
    let past = SystemTime::now() - 2 * HOUR;
    let key = node.machine.key.csr_key();
    let expired = world.replica.ca().issue(&id, &key, HOUR, past).unwrap();
    let channel = world.known(&expired, &node.machine.key).await;
    let refused = EnrollmentServiceClient::new(channel).leave(LeaveRequest {}).await;
    assert!(refused.is_err(), "the handshake fails");

    let recovered = recover(&world, &node.machine.key).await.unwrap();
    assert_eq!(fingerprint_of(&recovered), fingerprint_of(&node.credential.certificate));
    let channel = world.known(&recovered, &node.machine.key).await;
    let mut client = EnrollmentServiceClient::new(channel);
    client.renew(RenewRequest { csr: node.machine.key.csr().into() }).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn recovery_is_for_live_nodes_and_now_and_then() {
    let world = World::start().await;
    let node = world.node().await;
    let status = recover(&world, &KeyPair::generate()).await.unwrap_err();
    assert_eq!((status.code(), removed(&status)), (Code::PermissionDenied, false));
    recover(&world, &node.machine.key).await.unwrap();
    let status = recover(&world, &node.machine.key).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    world.stop().await;
}

#[tokio::test]
async fn a_node_that_left_is_told_so_and_leaves_no_live_record() {
    let world = World::start().await;
    let Node { machine, id, credential } = world.node().await;
    let channel = world.known(&credential.certificate, &machine.key).await;
    let mut client = EnrollmentServiceClient::new(channel);
    let revision = client.leave(LeaveRequest {}).await.unwrap().into_inner().revision;

    // On the same connection, on the next call.
    let renew = RenewRequest { csr: machine.key.csr().into() };
    assert!(removed(&client.renew(renew).await.unwrap_err()));
    assert!(removed(&client.leave(LeaveRequest {}).await.unwrap_err()));
    assert!(removed(&recover(&world, &machine.key).await.unwrap_err()));

    let network = "default".parse().unwrap();
    let stored = world.store().get(&keys::node(&network, id)).await.unwrap().unwrap();
    assert_eq!(stored.modified.0, revision);
    let life: History<NodeBody> = decode_history(&stored.value, stored.modified).unwrap();
    assert!(life.present().body.is_none() && life.past().len() == 1);
    assert!(world.store().get(&keys::peer(&network, id)).await.unwrap().is_none());
    world.stop().await;
}

#[tokio::test]
async fn a_nodes_certificate_opens_nothing_of_operators() {
    let world = World::start().await;
    let node = world.node().await;
    let channel = world.known(&node.credential.certificate, &node.machine.key).await;
    let status = AdminServiceClient::new(channel).get_status(GetStatusRequest {}).await;
    let status = status.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().starts_with("only an operator may call this"), "{status}");
    world.stop().await;
}

/// Certificates that this very CA signed, for a key or an id that the records don't join.
#[tokio::test]
async fn a_certificate_is_good_only_with_a_record_of_its_id_and_key() {
    let world = World::start().await;
    let (node, other) = (world.node().await, world.node().await);
    let as_node = |node: NodeId| SpiffeId {
        trust_domain: world.replica.trust_domain.clone(),
        identity: Identity::Node { network: "default".parse().unwrap(), node },
    };
    let key = &node.machine.key;
    for id in [as_node(other.id), as_node(NodeId::new([9; 16]))] {
        let now = SystemTime::now();
        let certificate = world.replica.ca().issue(&id, &key.csr_key(), HOUR, now).unwrap();
        let mut client = EnrollmentServiceClient::new(world.known(&certificate, key).await);
        let status = client.leave(LeaveRequest {}).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    }
    world.of(&other).await.leave(LeaveRequest {}).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn renewing_and_leaving_need_a_certificate() {
    let world = World::start().await;
    let mut client = EnrollmentServiceClient::new(world.stranger().await);
    let csr = KeyPair::generate().csr().into();
    let renew = client.renew(RenewRequest { csr }).await.unwrap_err();
    let leave = client.leave(LeaveRequest {}).await.unwrap_err();
    assert_eq!([renew.code(), leave.code()], [Code::Unauthenticated; 2]);
    world.stop().await;
}
