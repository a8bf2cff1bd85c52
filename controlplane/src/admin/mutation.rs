//! Mutations: what makes a change happen once, however often it is asked for.
//!
//! A request id leaves a record in the same transaction as the change it asked for, so the record
//! is there exactly if the change is. Its mod_revision is the revision that the change made. The
//! records are deleted with the horizon, after 24 hours at the earliest.

use std::{ops::ControlFlow, time::Duration};

use prost::Message;
use sha2::{Digest as _, Sha256};
use tonic::Status;
use wattle_model::Revision;
use wattle_proto::{InvalidField, store as record};
use wattle_runtime::{backoff::Backoff, clock};

use super::error::{invalid, unreadable};
use crate::{
    access::Principal,
    nodes::store_failed,
    store::{Key, Outcome, Store, Transaction, keys},
};

/// Times that a change is planned anew because the store changed under it.
pub(super) const ATTEMPTS: u32 = 8;
/// The longest pause before the first repetition, and before any.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));
/// Bytes of a request id at the most.
const MAX_REQUEST_ID: usize = 64;

/// A request that changes something.
pub(super) trait Mutation: Message {
    /// The method's name: the same bytes sent to another method are another request.
    const METHOD: &'static str;
    /// What it is answered with.
    type Answer: Answer;
    /// What the caller called it.
    fn request_id(&self) -> &[u8];
}

/// The answer to a mutation.
pub(super) trait Answer: Message + Default + Clone {
    /// Writes the revision that the change made into the answer, and into the thing that changed:
    /// one whose revision is 0.
    fn made_at(&mut self, revision: Revision);
    /// Takes out what is shown only once.
    fn forget_secrets(&mut self) {}
}

/// A change that is about to be made, and what will be said of it.
pub(super) struct Planned<A> {
    /// What to write, and under which conditions.
    pub(super) transaction: Transaction,
    /// The answer, without revisions.
    pub(super) answer: A,
}

impl<A> Planned<A> {
    /// Nothing to write: all is as the request wants it. The answer names a revision and has to be
    /// true there, so what was read has to be `unchanged`.
    pub(super) fn nothing(unchanged: Transaction, answer: A) -> Self {
        Self { transaction: unchanged, answer }
    }

    /// Nothing to write, not even that it was asked for: the answer is as it is.
    pub(super) fn settled(answer: A) -> Self {
        Self { transaction: Transaction::default(), answer }
    }

    fn is_settled(&self) -> bool {
        self.transaction == Transaction::default()
    }
}

/// Does what `plan` says, or repeats the answer that this request had before. `plan` is called
/// again when the store changed between its reads and the commit.
pub(super) async fn mutate<M, P, F>(
    store: &dyn Store,
    principal: &Principal,
    request: &M,
    plan: P,
) -> Result<M::Answer, Status>
where
    M: Mutation,
    P: Fn() -> F + Send,
    F: Future<Output = Result<Planned<M::Answer>, Status>> + Send,
{
    let asked = Asked::new(principal, request)?;
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    for _ in 0..ATTEMPTS {
        if let Some(answer) = asked.answered_before(store).await? {
            return Ok(answer);
        }
        let planned = match plan().await {
            Ok(planned) => planned,
            // Perhaps this very request, sent twice, was done in the meantime.
            Err(refused) => return asked.answered_before(store).await?.ok_or(refused),
        };
        if planned.is_settled() {
            return Ok(planned.answer);
        }
        if let ControlFlow::Break(answer) = asked.commit(store, planned).await? {
            return Ok(answer);
        }
        tokio::time::sleep(backoff.next()).await;
    }
    Err(contended())
}

/// The store changed under every attempt.
pub(super) fn contended() -> Status {
    Status::aborted(format!(
        "others changed the same things {ATTEMPTS} times meanwhile: send the request again"
    ))
}

/// Whose request ids they are: an operator's, or those of the local socket.
fn key_part(principal: &Principal) -> Result<String, Status> {
    match principal {
        Principal::Operator { id, .. } => Ok(id.to_string()),
        Principal::Local => Ok("local".into()),
        Principal::Anonymous | Principal::Node { .. } | Principal::Replica(_) => {
            Err(Status::permission_denied("only operators may change things"))
        }
    }
}

/// One request: the key of its record, and what it says.
struct Asked {
    key: Key,
    hash: [u8; 32],
}

impl Asked {
    fn new<M: Mutation>(principal: &Principal, request: &M) -> Result<Self, Status> {
        let id = request.request_id();
        if id.is_empty() || id.len() > MAX_REQUEST_ID {
            let got = id.len();
            return Err(invalid("request_id", format!("1 to {MAX_REQUEST_ID} bytes, got {got}")));
        }
        let mut hash = Sha256::new();
        hash.update(M::METHOD);
        hash.update([0]);
        hash.update(request.encode_to_vec());
        Ok(Self { key: keys::request(&key_part(principal)?, id), hash: hash.finalize().into() })
    }

    async fn answered_before<A: Answer>(&self, store: &dyn Store) -> Result<Option<A>, Status> {
        let Some(stored) = store.get(&self.key).await.map_err(store_failed)? else {
            return Ok(None);
        };
        let bad = |source: prost::DecodeError| {
            let error = InvalidField { field: "request", source: source.into() };
            unreadable(&stored.key, &error)
        };
        let record = record::Request::decode(stored.value.clone()).map_err(bad)?;
        if record.hash != self.hash[..] {
            return Err(Status::already_exists(
                "request_id: it was used for another request: choose a new one",
            ));
        }
        let mut answer = A::decode(record.response).map_err(bad)?;
        answer.made_at(stored.modified);
        Ok(Some(answer))
    }

    /// Breaks with the answer once it is done; goes on where the store changed meanwhile.
    async fn commit<A: Answer>(
        &self,
        store: &dyn Store,
        planned: Planned<A>,
    ) -> Result<ControlFlow<A>, Status> {
        let Planned { transaction, mut answer } = planned;
        let mut kept = answer.clone();
        kept.forget_secrets();
        let record = record::Request {
            hash: self.hash.to_vec().into(),
            response: kept.encode_to_vec().into(),
            at_millis: clock::unix_millis(clock::now()),
        };
        let transaction = transaction.create(self.key.clone(), record.encode_to_vec().into());
        match store.commit(transaction).await.map_err(store_failed)? {
            Outcome::Conflict => Ok(ControlFlow::Continue(())),
            Outcome::Committed(revision) => {
                answer.made_at(revision);
                Ok(ControlFlow::Break(answer))
            }
        }
    }
}
