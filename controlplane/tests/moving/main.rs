//! A control plane from one store to another, and through a backup file: what arrives, and what every
//! interruption leaves behind.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod commands;
mod copies;
mod killed;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tempfile::TempDir;
use wattle_controlplane::{
    authority::CaFiles,
    cluster,
    nodes::{Enrolment, Nodes},
    store::{Outcome, Store, Stored, Transaction, embedded::Embedded, keys},
};
use wattle_model::{Fingerprint, Labels, NetworkName, NodeId, PublicKey, TokenId, TokenSecret};
use wattle_proto::store as proto;
use wattle_runtime::{clock, shutdown::Shutdown};

/// A store in a folder of its own.
struct Place {
    store: Arc<dyn Store>,
    folder: TempDir,
}

impl Place {
    fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Embedded::open(&folder.path().join("store.redb")).unwrap());
        Self { store, folder }
    }

    /// A control plane that has lived: nodes that came, were labelled and went, and a token.
    async fn lived() -> (Self, Vec<NodeId>) {
        let place = Self::empty();
        let files = CaFiles::of(place.folder.path());
        cluster::open(&*place.store, &files, SystemTime::now()).await.unwrap();
        let secret = TokenSecret::new([5; 32]);
        let token = proto::JoinToken {
            secret_hash: Bytes::copy_from_slice(&secret.hash()),
            network: "default".into(),
            expires_at_millis: clock::unix_millis(SystemTime::now() + Duration::from_secs(3600)),
            ..Default::default()
        };
        let id = TokenId::new([5; 8]);
        place.put(keys::join_token(id), prost::Message::encode_to_vec(&token)).await;
        let shutdown = Shutdown::new();
        let nodes = Nodes::new(place.store.clone(), &shutdown);
        let mut made = Vec::new();
        for n in 0..250_u32 {
            let enrolled = nodes.enroll(wish(id, &secret, n)).await.unwrap();
            made.push(enrolled.node);
        }
        for node in &made[..20] {
            let loaded = nodes.load(*node).await.unwrap().unwrap();
            let labels = Labels::from_texts(["site=fra"]).unwrap();
            let _ = place.store.commit(loaded.plan_label(labels)).await.unwrap();
        }
        for node in &made[10..30] {
            nodes.delete(*node).await.unwrap();
        }
        shutdown.drain(Duration::from_secs(5)).await;
        (place, made)
    }

    async fn put(&self, key: wattle_controlplane::store::Key, value: impl Into<Bytes>) {
        let put = Transaction::default().put(key, value.into());
        assert!(matches!(self.store.commit(put).await.unwrap(), Outcome::Committed(_)));
    }

    async fn all(&self) -> Vec<Stored> {
        self.store.list(&keys::all(), None, 100_000).await.unwrap().items
    }
}

fn wish(token: TokenId, secret: &TokenSecret, n: u32) -> Enrolment {
    let mut key = [7; 32];
    key[..4].copy_from_slice(&n.to_be_bytes());
    Enrolment {
        token,
        secret: secret.clone(),
        fingerprint: Fingerprint::new(key),
        public_key: PublicKey::new(key).unwrap(),
        name: Some(format!("n{n}").parse().unwrap()),
        endpoints: Vec::new(),
        observed: None,
        root: Fingerprint::new([9; 32]),
    }
}

fn network() -> NetworkName {
    "default".parse().unwrap()
}
