//! What a signing request may bring about: a certificate for its key, and nothing it asks for.
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};
use support::{DAY, Domain};
use wattle_certs::{CsrKey, InvalidCsr, KeyPair, peer_identity};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

fn greedy() -> CertificateParams {
    let mut params = CertificateParams::new(vec!["control-plane.example".to_owned()]).unwrap();
    let operator = "spiffe://test/operator/03030303030303030303030303030303";
    params.subject_alt_names.push(SanType::URI(operator.try_into().unwrap()));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::Any];
    params
}

#[test]
fn a_request_for_everything_gets_a_node_certificate() {
    let domain = Domain::new("test");
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = greedy().serialize_request(&key).unwrap();
    let key = CsrKey::from_der(csr.der()).unwrap();
    let now = SystemTime::now();
    let issued = domain.ca.issue(&domain.node(), &key, DAY, now).unwrap();

    let peer = peer_identity(&issued).unwrap();
    assert_eq!((peer.id, peer.fingerprint), (domain.node(), key.fingerprint()));
    let (_, seen) = X509Certificate::from_der(&issued).unwrap();
    assert!(!seen.is_ca() && seen.subject().to_string() == "CN=Wattle node");
    let names = &seen.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(*names, [GeneralName::URI(&domain.node().to_string())]);
    let usage = seen.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any && usage.other.is_empty());
    assert!(!seen.key_usage().unwrap().unwrap().value.key_cert_sign());
    let life = peer.not_after.duration_since(now).unwrap();
    assert!(life <= DAY && life > DAY - Duration::from_secs(2), "{life:?}");
}

/// Around the signed part there are bytes that mean nothing; none yields another key.
#[test]
fn no_changed_byte_of_a_request_yields_another_key() {
    let key = KeyPair::generate();
    let csr = key.csr();
    let mut noticed = 0;
    for i in 0..csr.len() {
        let mut changed = csr.clone();
        changed[i] ^= 1;
        match CsrKey::from_der(&changed) {
            Ok(read) => assert_eq!(read.fingerprint(), key.fingerprint(), "byte {i}"),
            Err(_) => noticed += 1,
        }
    }
    assert!(noticed > csr.len() - 4, "{noticed} of {}", csr.len());
    for cut in 0..csr.len() {
        assert_eq!(CsrKey::from_der(&csr[..cut]), Err(InvalidCsr::Malformed), "cut at {cut}");
    }
}

#[test]
fn a_request_signed_by_another_key_is_refused() {
    let (mine, theirs) = (KeyPair::generate(), KeyPair::generate());
    let (mut csr, other) = (mine.csr(), theirs.csr());
    let find = |csr: &[u8], key: &KeyPair| {
        let key = rcgen::KeyPair::from_pem(&key.to_pem()).unwrap();
        let raw = key.public_key_raw().to_vec();
        (csr.windows(raw.len()).position(|window| window == raw).unwrap(), raw)
    };
    // The victim's public key in a request that we signed.
    let ((at, _), (_, victim)) = (find(&csr, &mine), find(&other, &theirs));
    csr[at..at + victim.len()].copy_from_slice(&victim);
    assert_eq!(CsrKey::from_der(&csr), Err(InvalidCsr::Signature));
}

#[test]
fn odd_requests_are_refused() {
    let csr = KeyPair::generate().csr();
    let trailing = [csr.as_slice(), &[0]].concat();
    assert_eq!(CsrKey::from_der(&trailing), Err(InvalidCsr::Malformed));
    assert_eq!(CsrKey::from_der(&vec![0x30; 9000]), Err(InvalidCsr::TooLarge(9000)));
    let rsa = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let csr = CertificateParams::default().serialize_request(&rsa).unwrap();
    assert_eq!(CsrKey::from_der(csr.der()), Err(InvalidCsr::Key));
}

#[test]
fn all_the_kinds_of_key_we_name_are_taken() {
    for kind in
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519]
    {
        let key = rcgen::KeyPair::generate_for(kind).unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap();
        let key = CsrKey::from_der(csr.der()).unwrap();
        let domain = Domain::new("test");
        let issued = domain.ca.issue(&domain.node(), &key, DAY, SystemTime::now()).unwrap();
        assert_eq!(peer_identity(&issued).unwrap().fingerprint, key.fingerprint());
    }
}
