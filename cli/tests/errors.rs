//! `wattle` as a process, where its credential or the control plane is not as it should be: exit
//! status 1, nothing on stdout, and an error that says what to do and shows no key.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use wattle_certs::{
    Ca, Identity, KeyPair, ReplicaCertificate, SpiffeId, certificate_to_pem, server_config,
};
use wattle_model::{OperatorId, ReplicaId};
use wattle_runtime::credential::{OperatorCredential, PrivateKeyPem};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// An authority and the credential that one of its operators has.
struct Bench {
    ca: Ca,
    key: KeyPair,
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let ca = Ca::generate(&"test".parse().unwrap(), SystemTime::now());
        Self { ca, key: KeyPair::generate(), folder: tempfile::tempdir().unwrap() }
    }

    fn issue(
        &self,
        identity: Identity,
        key: &KeyPair,
        from: SystemTime,
    ) -> Vec<CertificateDer<'static>> {
        let id = SpiffeId { trust_domain: "test".parse().unwrap(), identity };
        let leaf = self.ca.issue(&id, &key.csr_key(), DAY, from).unwrap();
        vec![leaf, self.ca.certificate().clone()]
    }

    /// The file of an operator made at `from`, for a control plane at `address`.
    fn file(&self, from: SystemTime, address: &str) -> PathBuf {
        let id = OperatorId::new([7; 16]);
        let chain = self.issue(Identity::Operator(id), &self.key, from);
        let credential = OperatorCredential {
            control_planes: vec![address.into()],
            trust_domain: "test".into(),
            ca_certificates: vec![certificate_to_pem(self.ca.certificate())],
            certificate: certificate_to_pem(&chain[0]),
            private_key: PrivateKeyPem::new(self.key.to_pem()),
            name: "ann".parse().unwrap(),
            id,
        };
        let path = self.folder.path().join("ann.json");
        credential.create(&path).unwrap();
        path
    }

    /// A server that is this authority's control plane, for one handshake.
    fn serve(&self) -> String {
        let key = KeyPair::generate();
        let chain = self.issue(Identity::Replica(ReplicaId::new([1; 16])), &key, SystemTime::now());
        let certificate = ReplicaCertificate::new(chain, &key).unwrap();
        let config = server_config(certificate, &[self.ca.certificate().clone()]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            let (mut tcp, _) = listener.accept().unwrap();
            let mut tls = rustls::ServerConnection::new(Arc::new(config)).unwrap();
            // The other end breaks off.
            let _ = tls.complete_io(&mut tcp);
        });
        address
    }

    /// Demands that `wattle status` fails with these words and shows no part of the key.
    fn fails(&self, context: &Path, words: &[&str]) {
        let output = Command::new(env!("CARGO_BIN_EXE_wattle"))
            .arg("status")
            .env("WATTLE_CONTEXT", context)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_eq!(output.stdout, b"");
        for words in words {
            assert!(said.contains(words), "{words}: {said}");
        }
        let pem = self.key.to_pem();
        assert!(!pem.lines().any(|line| said.contains(line)), "the key is shown: {said}");
    }
}

#[test]
fn nobody_at_the_address_names_it_and_the_file_it_is_from() {
    let bench = Bench::new();
    // As after a restart on another port.
    let file = bench.file(SystemTime::now(), "127.0.0.1:1");
    let words = ["127.0.0.1:1: ", "Is it running", "ann.json: correct control_planes there"];
    bench.fails(&file, &words);
}

#[test]
fn another_control_plane_at_the_address_is_told_apart() {
    let (bench, other) = (Bench::new(), Bench::new());
    let file = bench.file(SystemTime::now(), &other.serve());
    bench.fails(&file, &["ann.json belongs to another control plane than the one that answered"]);
}

/// Perhaps it had done it: a person has to know that this isn't known.
#[test]
fn a_connection_that_is_cut_says_that_it_isnt_known_what_was_done() {
    let bench = Bench::new();
    let file = bench.file(SystemTime::now(), &bench.serve());
    let words =
        ["the connection to the control plane was lost before", "look before you try again"];
    bench.fails(&file, &words);
}

#[test]
fn a_credential_past_its_life_says_so_and_how_to_get_another() {
    let bench = Bench::new();
    let file = bench.file(SystemTime::now() - 3 * DAY, &bench.serve());
    let words = ["ann.json: this credential ran out on 2", "wattle operator create NAME"];
    bench.fails(&file, &words);
}

#[test]
fn a_file_that_is_no_credential_says_where_to_get_one() {
    let bench = Bench::new();
    let missing = bench.folder.path().join("bob.json");
    bench.fails(&missing, &["bob.json: ", "No such file", "--context FILE or WATTLE_CONTEXT"]);
    bench.fails(bench.folder.path(), &["Is a directory", "--context FILE"]);

    let file = bench.file(SystemTime::now(), "127.0.0.1:1");
    let whole = fs::read_to_string(&file).unwrap();
    fs::write(&file, &whole[..whole.len() - 40]).unwrap();
    bench.fails(&file, &["ann.json: the credential file is malformed at line ", "a fresh copy"]);
    for field in ["certificate", "private_key", "trust_domain"] {
        let mut value: serde_json::Value = serde_json::from_str(&whole).unwrap();
        value[field] = "-----BEGIN NOTHING-----".into();
        fs::write(&file, value.to_string()).unwrap();
        bench.fails(&file, &[&format!("ann.json: {field}: "), "take a fresh copy of the file"]);
    }
}
