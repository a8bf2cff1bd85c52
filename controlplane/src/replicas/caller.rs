//! Calling other replicas: one connection to each that is asked anything, kept, and made anew when
//! it is lost or its certificate has grown old. No call waits longer than [`PATIENCE`], so one
//! replica that is gone holds up nobody's answer for longer.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tonic::{Code, Status, transport::Channel};
use wattle_certs::{CaError, KeyPair, client_config};
use wattle_model::{Fingerprint, ReplicaId};
use wattle_proto::replica::replica_service_client::ReplicaServiceClient;
use wattle_runtime::{clock, dial};

use super::Presence;
use crate::replica::Replica;

/// How long another replica may take to answer, the connection included.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// A page of sessions with many rejections in it.
const MAX_ANSWER: usize = 16 << 20;

/// A client of another replica.
pub(super) type Client = ReplicaServiceClient<Channel>;

/// Why another replica didn't answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("no certificate to call with: {0}")]
    Certificate(#[from] CaError),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error(transparent)]
    Dial(#[from] dial::DialError),
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    #[error("no answer within {0:?}")]
    Silent(Duration),
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// The connections to other replicas, and the key that proves who calls.
pub(super) struct Caller {
    replica: Arc<Replica>,
    key: KeyPair,
    open: Mutex<HashMap<ReplicaId, Slot>>,
}

/// Whoever needs a connection first makes it; the others wait for it.
type Slot = Arc<tokio::sync::Mutex<Option<Open>>>;

struct Open {
    channel: Channel,
    since: Instant,
}

impl Caller {
    pub(super) fn new(replica: Arc<Replica>) -> Self {
        Self { replica, key: KeyPair::generate(), open: Mutex::default() }
    }

    /// Of the key: what the record of this replica says.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.key.fingerprint()
    }

    /// Asks another replica.
    pub(super) async fn ask<T>(
        &self,
        other: &Presence,
        question: impl FnOnce(Client) -> BoxFuture<'static, Result<T, Status>> + Send,
    ) -> Result<T, CallError> {
        let asked = async {
            let answer = question(self.client(other).await?).await;
            if let Err(status) = &answer
                && matches!(status.code(), Code::Unavailable | Code::Unknown)
            {
                self.forget(other.id).await;
            }
            Ok(answer?)
        };
        match timeout(PATIENCE, asked).await {
            Ok(answer) => answer,
            Err(_) => {
                // It may be a connection to nowhere.
                self.open.lock().remove(&other.id);
                Err(CallError::Silent(PATIENCE))
            }
        }
    }

    /// Closes connections to replicas that aren't there any more.
    pub(super) fn keep_only(&self, present: impl Fn(ReplicaId) -> bool) {
        self.open.lock().retain(|id, _| present(*id));
    }

    async fn client(&self, other: &Presence) -> Result<Client, CallError> {
        let slot = self.open.lock().entry(other.id).or_default().clone();
        let mut open = slot.lock().await;
        let old = self.replica.certificate_lifetime / 2;
        let channel = match &*open {
            Some(open) if open.since.elapsed() < old => open.channel.clone(),
            _ => {
                let channel = self.dial(other).await?;
                open.insert(Open { channel, since: Instant::now() }).channel.clone()
            }
        };
        Ok(Client::new(channel).max_decoding_message_size(MAX_ANSWER))
    }

    async fn dial(&self, other: &Presence) -> Result<Channel, CallError> {
        let Replica { authority, trust_domain, certificate_lifetime, id, .. } = &*self.replica;
        let (key, now, trust) = (self.key.csr_key(), clock::now(), authority.now());
        let leaf = trust.ca.issue_caller(trust_domain, *id, &key, *certificate_lifetime, now)?;
        let credential = Some((vec![leaf], &self.key));
        let tls = client_config(trust.roots.trusted(), credential, Some(trust_domain))?;
        let addresses = [other.replica_address.clone()];
        Ok(dial::channel(&addresses, Arc::new(tls), PATIENCE).await?.channel)
    }

    async fn forget(&self, id: ReplicaId) {
        let slot = self.open.lock().get(&id).cloned();
        if let Some(slot) = slot {
            slot.lock().await.take();
        }
    }
}
