//! This process's heartbeat: one key, put by one task, which nobody's impatience reaches. Many who
//! ask at once share one that is put after all of them have asked.
//!
//! That the key is newer than was known proves that some put was done, one that was given up perhaps,
//! long ago. What is said of a heartbeat is said of a put that etcd has just answered.

use std::{sync::Arc, time::Duration};

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse};
use tokio::{sync::watch, time::timeout};
use wattle_model::Revision;
use wattle_runtime::shutdown::Shutdown;

use super::{
    Client,
    identity::Mark,
    keyspace::{number, revision},
    lease::{Lease, Refused},
};
use crate::store::{Key, StoreError, keys};

/// How long a heartbeat tries.
const WITHIN: Duration = Duration::from_secs(6);
/// How long one put of it tries. A feed waits for 3 s: before, so that it hears what is wrong.
const PATIENCE: Duration = Duration::from_millis(2500);
/// Puts of one heartbeat: its lease may be gone, and late ones of others come between.
const PUTS: usize = 4;

/// Asks for heartbeats.
pub(super) struct Heartbeat {
    /// How many were asked for.
    asked: watch::Sender<u64>,
    answered: watch::Receiver<Answer>,
}

/// What came of one.
struct Answer {
    /// Everybody up to this number had asked before it was put.
    upto: u64,
    beaten: Result<Revision, StoreError>,
}

impl Heartbeat {
    /// Its task runs until `shutdown`.
    pub(super) fn begin(client: Arc<Client>, lease: Arc<Lease>, shutdown: &Shutdown) -> Self {
        let (asked, asking) = watch::channel(0);
        let never = StoreError::Unavailable("etcd: no heartbeat yet".to_owned());
        let (answers, answered) = watch::channel(Answer { upto: 0, beaten: Err(never) });
        let key = keys::beat(&hex::encode(rand::random::<[u8; 8]>()));
        let heart = Heart { client, lease, key, last: None, replaced: 0 };
        let end = shutdown.token();
        shutdown.spawn("heartbeat", async move {
            end.run_until_cancelled(heart.answer(asking, answers)).await;
        });
        Self { asked, answered }
    }

    /// Puts this process's heartbeat, and says at which revision watches will tell of it.
    pub(super) async fn beat(&self) -> Result<Revision, StoreError> {
        let mut number = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            number = *asked;
        });
        let mut answered = self.answered.clone();
        match answered.wait_for(|answer| answer.upto >= number).await {
            Ok(answer) => answer.beaten.clone(),
            Err(_) => Err(StoreError::Unavailable("etcd: this process ends".to_owned())),
        }
    }
}

/// Who puts them.
struct Heart {
    client: Arc<Client>,
    lease: Arc<Lease>,
    key: Key,
    /// Where our key is known to have been.
    last: Option<Revision>,
    /// How often another store had been found by then.
    replaced: u64,
}

/// What came of a put.
enum Put {
    /// It was done at this revision.
    Done(Revision),
    /// Nothing was put: an earlier one has come since, and put our key at this revision.
    Late(Revision),
    /// Nothing was put: our key isn't there, its lease has run out.
    Gone,
    /// Nothing was put: our key is there as it once was.
    SetBack(Revision),
}

impl Heart {
    /// Puts one whenever somebody has asked, until nobody can any more.
    async fn answer(mut self, mut asking: watch::Receiver<u64>, answers: watch::Sender<Answer>) {
        while asking.changed().await.is_ok() {
            let upto = *asking.borrow_and_update();
            let beaten = self.beat().await;
            answers.send_replace(Answer { upto, beaten });
        }
    }

    async fn beat(&mut self) -> Result<Revision, StoreError> {
        let late = || StoreError::Unavailable(format!("etcd: no heartbeat within {WITHIN:?}"));
        let beaten = timeout(WITHIN, self.put_until_done()).await;
        // Somebody else's call may have found it; who beats must hear of it, too.
        let replaced = self.client.identity.replaced();
        if std::mem::replace(&mut self.replaced, replaced) != replaced {
            self.last = None;
            return Err(StoreError::Replaced("etcd isn't the one it was".to_owned()));
        }
        beaten.unwrap_or_else(|_| Err(late()))
    }

    /// Nobody else writes our key. Where it is older than we left it, the store was set back, even
    /// if others have written so much since that its revision doesn't show it.
    async fn put_until_done(&mut self) -> Result<Revision, StoreError> {
        for _ in 0..PUTS {
            let mark = self.client.identity.mark();
            if self.client.identity.replaced() != self.replaced {
                self.last = None;
            }
            let lease = self.lease.id().await?;
            match self.put(lease, mark).await {
                Ok(Put::Done(revision)) => {
                    self.last = Some(revision);
                    return Ok(revision);
                }
                Ok(Put::Late(revision)) => self.last = Some(revision),
                Ok(Put::SetBack(revision)) => {
                    self.client.identity.set_back(mark);
                    return Err(StoreError::Replaced(format!(
                        "etcd has our heartbeat of revision {revision} again"
                    )));
                }
                Ok(Put::Gone) | Err(Refused::NoLease) => {
                    self.last = None;
                    self.lease.forget(lease);
                }
                Err(Refused::Failed(error)) => return Err(error),
            }
        }
        Err(StoreError::Unavailable("etcd: heartbeats don't last".to_owned()))
    }

    async fn put(&self, lease: i64, mark: Mark) -> Result<Put, Refused> {
        let key = self.client.keyspace.outer(&self.key);
        let put = TxnOp::put(key.clone(), [], Some(PutOptions::new().with_lease(lease)));
        let txn = match self.last {
            None => Txn::new().and_then([put]),
            Some(last) => {
                let same = Compare::mod_revision(key.clone(), CompareOp::Equal, number(last));
                Txn::new().when([same]).and_then([put]).or_else([TxnOp::get(key, None)])
            }
        };
        // Done unheard, it is found late.
        let response = self.client.endpoints.again(PATIENCE, |mut client| {
            let txn = txn.clone();
            async move { client.txn(txn).await }
        });
        let response = response.await.map_err(Refused::from)?;
        let header = self.client.identity.linear(response.header(), mark);
        let header = header.map_err(Refused::Failed)?;
        if response.succeeded() {
            return Ok(Put::Done(header));
        }
        let found = response.op_responses().into_iter().find_map(|answer| match answer {
            TxnOpResponse::Get(got) => got.kvs().first().map(|kv| revision(kv.mod_revision())),
            _ => None,
        });
        Ok(match found {
            None => Put::Gone,
            Some(found) if Some(found) < self.last => Put::SetBack(found),
            Some(found) => Put::Late(found),
        })
    }
}
