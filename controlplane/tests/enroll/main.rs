//! Identity over real TLS against the real program: who is enrolled, who is refused and in which
//! words, and what a certificate is good for.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod changes;
mod door;
mod groups;
mod keys_and_names;
mod lives;
mod malformed;
mod rotation;
mod schedule;
mod tokens;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use prost::Message as _;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::{Code, Status, transport::Channel};
use wattle_certs::KeyPair;
use wattle_controlplane::{
    app,
    config::Settings,
    replica::Replica,
    store::{Store, Stored, Transaction, keys},
};
use wattle_model::{NodeId, PublicKey, TokenId, TokenSecret};
use wattle_proto::{
    enroll::{
        Credential, EnrollRequest, EnrollResponse,
        enrollment_service_client::EnrollmentServiceClient,
    },
    store as record,
};
use wattle_runtime::{clock, dial, shutdown::Shutdown};

const PATIENCE: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);

/// A control plane that runs inside the test.
struct World {
    replica: Arc<Replica>,
    address: String,
    shutdown: Shutdown,
    task: JoinHandle<()>,
    tokens: AtomicU32,
    _folder: TempDir,
}

/// A join token, as a machine has it.
#[derive(Clone)]
struct Token {
    id: TokenId,
    secret: TokenSecret,
}

/// A machine with its keys.
struct Machine {
    key: KeyPair,
    public_key: PublicKey,
}

/// A machine that became a node.
struct Node {
    machine: Machine,
    id: NodeId,
    credential: Credential,
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            data_dir: Some(folder.path().to_owned()),
            listen: Some(([127, 0, 0, 1], 0).into()),
            drain_grace: Some("1s".parse().unwrap()),
            ..Settings::default()
        };
        let bound = app::build(settings.check(None).unwrap()).await.unwrap();
        let (replica, address) = (bound.replica().clone(), bound.address().to_string());
        let shutdown = Shutdown::new();
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { bound.run(&stop).await });
        Self { replica, address, shutdown, task, tokens: AtomicU32::new(0), _folder: folder }
    }

    async fn stop(self) {
        self.shutdown.begin();
        self.task.await.unwrap();
    }

    fn store(&self) -> &dyn Store {
        &*self.replica.store
    }

    /// All that is kept, but for the horizon's own marks of time.
    async fn kept(&self) -> Vec<Stored> {
        let page = self.store().list(&keys::all(), None, 10_000).await.unwrap();
        assert!(!page.more);
        let of_time = |stored: &Stored| stored.key.as_str().starts_with("v1/meta/");
        page.items.into_iter().filter(|stored| !of_time(stored)).collect()
    }

    /// A token for the default network, an hour long, after `adjust`.
    async fn token(&self, adjust: impl FnOnce(&mut record::JoinToken)) -> Token {
        let number = self.tokens.fetch_add(1, Ordering::Relaxed) + 1;
        let mut id = [0; 8];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let token = Token { id: TokenId::new(id), secret: TokenSecret::new(rand::random()) };
        let now = SystemTime::now();
        let mut record = record::JoinToken {
            secret_hash: token.secret.hash().to_vec().into(),
            network: "default".into(),
            max_uses: 1,
            created_at_millis: clock::unix_millis(now),
            expires_at_millis: clock::unix_millis(now + HOUR),
            ..record::JoinToken::default()
        };
        adjust(&mut record);
        self.put(Transaction::default().put(keys::join_token(token.id), encoded(&record))).await;
        token
    }

    async fn uses(&self, token: &Token) -> u32 {
        let stored = self.store().get(&keys::join_token(token.id)).await.unwrap().unwrap();
        record::JoinToken::decode(stored.value).unwrap().uses
    }

    async fn put(&self, transaction: Transaction) {
        let _ = self.store().commit(transaction).await.unwrap();
    }

    /// A connection of somebody who knows the pin alone, as from a token.
    async fn stranger(&self) -> Channel {
        self.dial(wattle_certs::pinned_client_config(self.replica.ca().pin()).unwrap()).await
    }

    /// A connection with a certificate.
    async fn known(&self, certificate: &[u8], key: &KeyPair) -> Channel {
        let chain = vec![CertificateDer::from(certificate.to_vec())];
        let (roots, domain) = (&self.replica.roots(), &self.replica.trust_domain);
        let tls = wattle_certs::client_config(roots, Some((chain, key)), Some(domain));
        self.dial(tls.unwrap()).await
    }

    async fn of(&self, node: &Node) -> EnrollmentServiceClient<Channel> {
        let channel = self.known(&node.credential.certificate, &node.machine.key).await;
        EnrollmentServiceClient::new(channel)
    }

    async fn dial(&self, tls: rustls::ClientConfig) -> Channel {
        let addresses = [self.address.clone()];
        dial::channel(&addresses, Arc::new(tls), PATIENCE).await.unwrap().channel
    }

    async fn enroll(&self, request: EnrollRequest) -> Result<EnrollResponse, Status> {
        let mut client = EnrollmentServiceClient::new(self.stranger().await);
        client.enroll(request).await.map(tonic::Response::into_inner)
    }

    /// A new node, with a token of its own.
    async fn node(&self) -> Node {
        let (token, machine) = (self.token(|_| {}).await, Machine::new());
        let answer = self.enroll(machine.request(&token)).await.unwrap();
        let id = NodeId::try_from(answer.node_id.as_ref()).unwrap();
        Node { machine, id, credential: answer.credential.unwrap() }
    }

    /// Demands that a request is refused, in these words, and changes nothing.
    async fn refuses(&self, request: EnrollRequest, code: Code, words: &str) {
        let before = self.kept().await;
        for validate_only in [true, false] {
            let request = EnrollRequest { validate_only, ..request.clone() };
            let status = self.enroll(request).await.unwrap_err();
            assert_eq!((status.code(), status.message()), (code, words));
        }
        assert_eq!(self.kept().await, before, "a refused request has no effect");
    }
}

impl Machine {
    fn new() -> Self {
        let public_key = PublicKey::new(rand::random()).unwrap();
        Self { key: KeyPair::generate(), public_key }
    }

    fn request(&self, token: &Token) -> EnrollRequest {
        EnrollRequest {
            token_id: token.id.as_bytes().to_vec().into(),
            token_secret: token.secret.expose_bytes().to_vec().into(),
            csr: self.key.csr().into(),
            wireguard_public_key: self.public_key.as_bytes().to_vec().into(),
            ..EnrollRequest::default()
        }
    }
}

fn encoded(message: &impl prost::Message) -> Bytes {
    message.encode_to_vec().into()
}
