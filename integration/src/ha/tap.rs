//! What happens in the store, read past the product: one watch of etcd's own, of any member that
//! answers, so that there is something to compare with.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use etcd_client::{
    Client, ConnectOptions, EventType, GetOptions, GetResponse, KeyValue, WatchOptions,
    WatchResponse,
};
use tokio::time::{sleep, timeout};
use wattle_checker::{Operation, Transaction};

use super::recorder::Recorder;

/// A member that answers at all answers within this.
const ANSWER: Duration = Duration::from_secs(2);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// A frozen member is noticed by this.
const KEEPALIVE: Duration = Duration::from_secs(1);

/// Where the tap reads.
pub(crate) struct Tap {
    pub(crate) members: Vec<String>,
    pub(crate) prefix: String,
    pub(crate) recorder: Recorder,
}

impl Tap {
    /// Reads what there is; the next revision.
    pub(crate) async fn begin(&self) -> Result<i64> {
        let mut last = None;
        for member in self.members.iter().cycle().take(60) {
            match self.list(member).await {
                Ok(next) => return Ok(next),
                Err(error) => last = Some(error),
            }
            sleep(PAUSE).await;
        }
        Err(last.context("no member")?)
    }

    /// Records all that comes from revision `next` on, until it is dropped.
    pub(crate) async fn follow(self, mut next: i64) {
        for member in self.members.iter().cycle() {
            // However it ends, another member knows what comes next.
            let _ = self.watch(member, &mut next).await;
            sleep(PAUSE).await;
        }
    }

    async fn connect(member: &str) -> Result<Client> {
        let options = ConnectOptions::new()
            .with_require_leader(true)
            .with_connect_timeout(ANSWER)
            .with_keep_alive(KEEPALIVE, KEEPALIVE)
            .with_keep_alive_while_idle(true);
        Ok(Client::connect([format!("http://{member}")], Some(options)).await?)
    }

    async fn list(&self, member: &str) -> Result<i64> {
        let mut client = Self::connect(member).await?;
        let options = GetOptions::new().with_prefix();
        let listed = timeout(ANSWER, client.get(self.prefix.as_str(), Some(options))).await??;
        let revision = listed.header().context("no header")?.revision();
        let (epoch, operations) = self.listed(&listed);
        let epoch = epoch.context("the store has no epoch")?;
        self.recorder.store(epoch, Transaction { revision: number(revision), operations });
        Ok(revision + 1)
    }

    fn listed(&self, listed: &GetResponse) -> (Option<Bytes>, Vec<Operation>) {
        let operations: Vec<_> =
            listed.kvs().iter().filter_map(|kv| self.operation(kv, true)).collect();
        let epoch = operations.iter().find(|operation| operation.key == "v1/meta/epoch");
        (epoch.and_then(|epoch| epoch.value.clone()), operations)
    }

    async fn watch(&self, member: &str, next: &mut i64) -> Result<()> {
        let mut client = Self::connect(member).await?;
        let options = WatchOptions::new().with_prefix().with_start_revision(*next);
        let mut watch =
            timeout(ANSWER, client.watch(self.prefix.as_str(), Some(options))).await??;
        while let Some(response) = watch.message().await? {
            if response.canceled() {
                bail!("canceled: {}", response.cancel_reason());
            }
            self.take(&response, next);
        }
        Ok(())
    }

    /// All events of one revision are one transaction, and come in one response.
    fn take(&self, response: &WatchResponse, next: &mut i64) {
        let mut transaction = Transaction::default();
        for event in response.events() {
            let Some(kv) = event.kv().filter(|kv| kv.mod_revision() >= *next) else { continue };
            if transaction.revision != number(kv.mod_revision()) {
                self.record(std::mem::take(&mut transaction));
                transaction.revision = number(kv.mod_revision());
            }
            let put = event.event_type() == EventType::Put;
            transaction.operations.extend(self.operation(kv, put));
        }
        if transaction.revision > 0 {
            *next = i64::try_from(transaction.revision).unwrap_or(i64::MAX) + 1;
        }
        self.record(transaction);
    }

    fn record(&self, transaction: Transaction) {
        if transaction.revision > 0 {
            self.recorder.transaction(transaction);
        }
    }

    fn operation(&self, kv: &KeyValue, put: bool) -> Option<Operation> {
        let key = kv.key_str().ok()?.strip_prefix(&self.prefix)?.to_owned();
        let value = put.then(|| Bytes::copy_from_slice(kv.value()));
        Some(Operation { key, value, modified: number(kv.mod_revision()) })
    }
}

fn number(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}
