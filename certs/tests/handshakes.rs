//! Who is believed by whom, in real TLS handshakes.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose as Eku, IsCa, SanType};
use rustls::{ClientConfig, NamedGroup};
use support::{Chain, DAY, Domain, meet, params};
use wattle_certs::{Identity, KeyPair, client_config, pinned_client_config};
use wattle_model::{Fingerprint, OperatorId, ReplicaId};

/// Why a client with this chain isn't let in.
async fn refused_client(domain: &Domain, chain: Chain, key: &KeyPair) -> String {
    let client = client_config(&domain.roots(), Some((chain, key)), Some(&domain.name)).unwrap();
    meet(client, domain.good_server()).await.unwrap_err()
}

/// Why a server with this chain isn't believed.
async fn refused_server(domain: &Domain, chain: Chain, key: &KeyPair) -> String {
    let client = client_config(&domain.roots(), None, Some(&domain.name)).unwrap();
    meet(client, domain.server(chain, key)).await.unwrap_err()
}

fn says(error: &str, words: &str) {
    assert!(error.contains(words), "{error}");
}

fn anonymous(domain: &Domain) -> ClientConfig {
    client_config(&domain.roots(), None, Some(&domain.name)).unwrap()
}

#[tokio::test]
async fn nodes_and_operators_are_known_and_speak_h2_over_the_hybrid() {
    let domain = Domain::new("test");
    for id in [domain.node(), domain.operator()] {
        let key = KeyPair::generate();
        let credential = Some((domain.issue(&id, &key), &key));
        let client = client_config(&domain.roots(), credential, Some(&domain.name)).unwrap();
        let met = meet(client, domain.good_server()).await.unwrap();
        let peer = met.client.unwrap();
        assert_eq!((peer.id, peer.fingerprint), (id, key.fingerprint()));
        assert_eq!(met.server.id, domain.replica());
        assert_eq!(met.alpn.as_deref(), Some(&b"h2"[..]));
        assert_eq!(met.key_exchange, Some(NamedGroup::X25519MLKEM768));
    }
}

#[tokio::test]
async fn a_machine_without_a_certificate_is_let_in_unnamed() {
    let domain = Domain::new("test");
    let met = meet(anonymous(&domain), domain.good_server()).await.unwrap();
    assert_eq!(met.client, None);
}

#[tokio::test]
async fn a_token_knows_its_control_plane_by_the_pin_alone() {
    let domain = Domain::new("test");
    let client = pinned_client_config(domain.ca.pin()).unwrap();
    assert_eq!(meet(client, domain.good_server()).await.unwrap().server.id, domain.replica());

    for pin in [Fingerprint::new([0; 32]), Domain::new("test").ca.pin()] {
        let client = pinned_client_config(pin).unwrap();
        let error = meet(client, domain.good_server()).await.unwrap_err();
        says(&error, "not the one this token was made for");
    }
}

#[tokio::test]
async fn a_copied_root_makes_nobody_the_control_plane() {
    let (domain, impostor) = (Domain::new("test"), Domain::new("test"));
    let key = KeyPair::generate();
    // The real root is public: the impostor sends it along with a leaf of its own CA.
    let mut chain = impostor.issue(&impostor.replica(), &key);
    chain[1] = domain.ca.certificate().clone();
    let client = pinned_client_config(domain.ca.pin()).unwrap();
    let error = meet(client, impostor.server(chain, &key)).await.unwrap_err();
    says(&error, "not one of this control plane's");
}

#[tokio::test]
async fn a_node_or_operator_is_no_server() {
    let domain = Domain::new("test");
    for id in [domain.node(), domain.operator()] {
        let key = KeyPair::generate();
        let chain = domain.issue(&id, &key);
        says(&refused_server(&domain, chain.clone(), &key).await, "RequiredEku");
        let client = pinned_client_config(domain.ca.pin()).unwrap();
        says(&meet(client, domain.server(chain, &key)).await.unwrap_err(), "RequiredEku");
    }
}

#[tokio::test]
async fn a_server_needs_usage_and_uri_both() {
    let domain = Domain::new("test");
    let (key, replica, node) =
        (KeyPair::generate(), domain.replica().to_string(), domain.node().to_string());
    let refused = async |params| refused_server(&domain, domain.forge(&params, &key), &key).await;
    says(&refused(params(&[&replica], &[])).await, "RequiredEku");
    says(&refused(params(&[&node], &[Eku::ServerAuth])).await, "usage doesn't fit");
    says(
        &refused(params(&[&node], &[Eku::ServerAuth, Eku::ClientAuth])).await,
        "usage doesn't fit",
    );
    says(&refused(params(&[&replica], &[Eku::ServerAuth, Eku::Any])).await, "usage doesn't fit");
}

#[tokio::test]
async fn a_client_needs_usage_and_uri_both() {
    let domain = Domain::new("test");
    let (key, replica, node) =
        (KeyPair::generate(), domain.replica().to_string(), domain.node().to_string());
    let refused = async |params| refused_client(&domain, domain.forge(&params, &key), &key).await;
    says(&refused(params(&[&node], &[])).await, "RequiredEku");
    let both = params(&[&replica], &[Eku::ClientAuth, Eku::ServerAuth]);
    says(&refused(both).await, "usage doesn't fit");
    let own = domain.issue(&domain.replica(), &key);
    says(&refused_client(&domain, own, &key).await, "RequiredEku");
}

#[tokio::test]
async fn what_a_replica_calls_with_makes_it_no_server() {
    let domain = Domain::new("test");
    let (key, id) = (KeyPair::generate(), ReplicaId::new([2; 16]));
    let calling = domain.ca.issue_caller(&domain.name, id, &key.csr_key(), DAY, SystemTime::now());
    let chain = vec![calling.unwrap()];
    let credential = Some((chain.clone(), &key));
    let client = client_config(&domain.roots(), credential, Some(&domain.name)).unwrap();
    let met = meet(client, domain.good_server()).await.unwrap();
    let peer = met.client.unwrap();
    assert_eq!((peer.id, peer.fingerprint), (domain.replica(), key.fingerprint()));
    says(&refused_server(&domain, chain, &key).await, "RequiredEku");
}

#[tokio::test]
async fn exactly_one_name_and_a_uri() {
    let domain = Domain::new("test");
    let key = KeyPair::generate();
    let node = domain.node().to_string();
    let other = domain.id(Identity::Operator(OperatorId::new([9; 16]))).to_string();
    let refused = async |params| refused_client(&domain, domain.forge(&params, &key), &key).await;
    says(&refused(params(&[], &[Eku::ClientAuth])).await, "has 0 names");
    says(&refused(params(&[&node, &other], &[Eku::ClientAuth])).await, "has 2 names");
    let mut with_dns = params(&[&node], &[Eku::ClientAuth]);
    with_dns.subject_alt_names.push(SanType::DnsName("a.example".try_into().unwrap()));
    says(&refused(with_dns).await, "has 2 names");
    says(
        &refused(params(&["https://a.example"], &[Eku::ClientAuth])).await,
        "not a Wattle identity",
    );
}

#[tokio::test]
async fn an_authority_is_nobody() {
    let domain = Domain::new("test");
    let key = KeyPair::generate();
    let mut authority = params(&[&domain.node().to_string()], &[Eku::ClientAuth]);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    says(&refused_client(&domain, domain.forge(&authority, &key), &key).await, "CaUsedAsEndEntity");
}

#[tokio::test]
async fn certificates_run_out_at_both_ends() {
    let domain = Domain::new("test");
    let key = KeyPair::generate();
    let made = SystemTime::now() - 2 * DAY;
    let expired = |id| {
        let leaf = domain.ca.issue(&id, &key.csr_key(), DAY, made).unwrap();
        vec![leaf, domain.ca.certificate().clone()]
    };
    says(&refused_client(&domain, expired(domain.node()), &key).await, "expired");
    says(&refused_server(&domain, expired(domain.replica()), &key).await, "expired");
    let early = SystemTime::now() + Duration::from_secs(3600);
    let leaf = domain.ca.issue(&domain.node(), &key.csr_key(), DAY, early).unwrap();
    says(&refused_client(&domain, vec![leaf], &key).await, "not valid yet");
}

#[tokio::test]
async fn another_ca_is_nobody_here() {
    let (domain, other) = (Domain::new("test"), Domain::new("test"));
    let key = KeyPair::generate();
    let node = refused_client(&domain, other.issue(&other.node(), &key), &key).await;
    says(&node, "not one of this control plane's");
    let server = refused_server(&domain, other.issue(&other.replica(), &key), &key).await;
    says(&server, "not one of this control plane's");
}

#[tokio::test]
async fn another_trust_domain_is_named() {
    let domain = Domain::new("test");
    let client = client_config(&domain.roots(), None, Some(&"other".parse().unwrap())).unwrap();
    let error = meet(client, domain.good_server()).await.unwrap_err();
    says(&error, "belongs to the trust domain test, not other");
}

#[tokio::test]
async fn a_stolen_certificate_without_its_key_is_useless() {
    let domain = Domain::new("test");
    let chain = domain.issue(&domain.node(), &KeyPair::generate());
    let thief = KeyPair::generate();
    assert!(client_config(&domain.roots(), Some((chain, &thief)), None).is_err());
}

#[tokio::test]
async fn a_replica_changes_its_certificate_while_it_serves() {
    let domain = Domain::new("test");
    let (old, new) = (KeyPair::generate(), KeyPair::generate());
    let certificate =
        wattle_certs::ReplicaCertificate::new(domain.issue(&domain.replica(), &old), &old).unwrap();
    let config = wattle_certs::server_config(certificate.clone(), &domain.roots()).unwrap();
    let met = meet(anonymous(&domain), config.clone()).await.unwrap();
    assert_eq!(met.server.fingerprint, old.fingerprint());
    certificate.replace(domain.issue(&domain.replica(), &new), &new).unwrap();
    let met = meet(anonymous(&domain), config).await.unwrap();
    assert_eq!(met.server.fingerprint, new.fingerprint());
}

/// A control plane whose root takes another one's place.
struct Rotation {
    old: Domain,
    new: Domain,
    cross: rustls::pki_types::CertificateDer<'static>,
}

impl Rotation {
    fn begin() -> Self {
        let (old, new) = (Domain::new("test"), Domain::new("test"));
        let cross = old.ca.cross_sign(new.ca.certificate(), SystemTime::now()).unwrap();
        Self { old, new, cross }
    }

    /// What a replica presents that signs with the new root.
    fn chain(&self, key: &KeyPair) -> Chain {
        let mut chain = self.new.issue(&self.new.replica(), key);
        chain.extend([self.cross.clone(), self.old.ca.certificate().clone()]);
        chain
    }
}

#[tokio::test]
async fn whoever_knows_the_old_root_alone_believes_what_the_new_one_signs() {
    let rotation = Rotation::begin();
    let server = || {
        let key = KeyPair::generate();
        rotation.new.server(rotation.chain(&key), &key)
    };
    for domain in [&rotation.old, &rotation.new] {
        let met = meet(anonymous(domain), server()).await.unwrap();
        assert_eq!(met.server.id, domain.replica());
        let token = pinned_client_config(domain.ca.pin()).unwrap();
        assert_eq!(meet(token, server()).await.unwrap().server.id, domain.replica());
    }
    says(&meet(anonymous(&Domain::new("test")), server()).await.unwrap_err(), "not one of this");
}

/// An old root's word for a new one is for servers, and good for nothing without the new key.
#[tokio::test]
async fn one_root_s_word_for_another_makes_nobody_a_client_and_no_impostor_a_server() {
    let rotation = Rotation::begin();
    let (old, key) = (&rotation.old, KeyPair::generate());
    let mut chain = rotation.new.issue(&old.node(), &key);
    chain[1] = rotation.cross.clone();
    says(&refused_client(old, chain, &key).await, "not one of this control plane's");
    let mut chain = rotation.chain(&key);
    chain[0] = Domain::new("test").issue(&old.replica(), &key)[0].clone();
    says(&refused_server(old, chain, &key).await, "not one of this control plane's");
    // A node's certificate vouches for nothing, whatever is signed with its key.
    let node = KeyPair::generate();
    let mut chain = old.issue(&old.node(), &node);
    let signer = rcgen::KeyPair::from_pem(&node.to_pem()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_der(&chain[0], signer).unwrap();
    let forged = params(&[&old.replica().to_string()], &[Eku::ServerAuth]);
    let leaf = forged.signed_by(&rcgen::KeyPair::from_pem(&key.to_pem()).unwrap(), &issuer);
    chain.insert(0, leaf.unwrap().der().clone());
    assert!(meet(anonymous(old), old.server(chain, &key)).await.is_err());
}

#[tokio::test]
async fn roots_change_while_a_replica_serves() {
    let (old, new) = (Domain::new("test"), Domain::new("test"));
    let key = KeyPair::generate();
    let certificate =
        wattle_certs::ReplicaCertificate::new(old.issue(&old.replica(), &key), &key).unwrap();
    let trusted = wattle_certs::TrustedRoots::new(&old.roots()).unwrap();
    let server = wattle_certs::following_server_config(certificate, trusted.clone()).unwrap();
    let client = |domain: &Domain| {
        let node = KeyPair::generate();
        let credential = Some((domain.issue(&domain.node(), &node), &node));
        client_config(&old.roots(), credential, None).unwrap()
    };
    assert!(meet(client(&old), server.clone()).await.is_ok());
    says(&meet(client(&new), server.clone()).await.unwrap_err(), "UnknownCA");
    trusted.replace(&[old.roots(), new.roots()].concat()).unwrap();
    for domain in [&old, &new] {
        assert!(meet(client(domain), server.clone()).await.is_ok());
    }
    trusted.replace(&new.roots()).unwrap();
    says(&meet(client(&old), server).await.unwrap_err(), "UnknownCA");
}

#[test]
fn a_certificate_s_root_is_found_whatever_its_dates() {
    let (one, other) = (Domain::new("test"), Domain::new("test"));
    let key = KeyPair::generate().csr_key();
    let long_ago = SystemTime::now() - 300 * DAY;
    let leaf = one.ca.issue(&one.node(), &key, DAY, long_ago).unwrap();
    let both = [other.roots(), one.roots()].concat();
    assert_eq!(wattle_certs::root_of(&leaf, &both), Some(one.ca.pin()));
    assert_eq!(wattle_certs::root_of(&leaf, &other.roots()), None);
}
