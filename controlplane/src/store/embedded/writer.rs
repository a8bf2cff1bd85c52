//! The one thread that writes. Transactions that arrive while a group is being synced to disk form
//! the next group: one sync for all of them, each with its own revision, each evaluated after the
//! earlier ones of its group.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use redb::{ReadableTable as _, Table, WriteTransaction};
use tokio::sync::{mpsc, oneshot, watch};
use wattle_model::Revision;

use super::{
    file::{COMPACTED, DATA, HEAD, LOG, META, StoreFile, Written},
    reader,
};
use crate::store::{
    Compare, MAX_OPERATIONS, Operation, Outcome, StoreError, Stored, Transaction, keys,
    moments::Moments,
};

/// Transactions that wait for the thread. Where it is full, committers wait for a place.
const QUEUE: usize = 512;
/// Transactions and bytes of one group. More of them would only delay the first ones.
const GROUP: usize = 256;
const GROUP_BYTES: usize = 8 << 20;
/// Within which nothing more is tried after a failed write. Each failure makes the file unusable
/// until it is opened again, for those who read, too.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

struct Request {
    transaction: Transaction,
    answer: oneshot::Sender<Result<Outcome, StoreError>>,
}

/// Tells the head, and notes when it was committed.
pub(super) struct Publisher {
    pub(super) head: watch::Sender<Revision>,
    pub(super) moments: Moments,
}

impl Publisher {
    /// Noted before it is told: whoever hears of a revision can ask when it was committed.
    fn publish(&self, revision: Revision) {
        self.moments.committed(*self.head.borrow(), revision);
        self.head.send_if_modified(|head| std::mem::replace(head, revision) != revision);
    }
}

/// Hands transactions to the thread; the thread ends with it.
pub(super) struct Writer {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. It tells `publisher` the head after each group, once it is on disk.
    pub(super) fn start(
        file: Arc<StoreFile>,
        publisher: Publisher,
        log_revisions: u64,
    ) -> Result<Self, StoreError> {
        let (requests, receiver) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || run(&file, receiver, &publisher, log_revisions))
            .map_err(|error| StoreError::Unavailable(format!("no thread for writes: {error}")))?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Does a transaction.
    pub(super) async fn commit(&self, transaction: Transaction) -> Result<Outcome, StoreError> {
        let gone = || StoreError::Unavailable("the store is closed".into());
        let (answer, answered) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(gone)?;
        requests.send(Request { transaction, answer }).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // What it panicked with is already logged.
            let _ = thread.join();
        }
    }
}

/// Deletes what another process had announced, which is no more: nobody else has the file open.
pub(super) fn forget_live(file: &StoreFile, log_revisions: u64) -> Result<(), StoreError> {
    loop {
        let read = file.read()?;
        let page = reader::list(&read, &keys::live(), None, MAX_OPERATIONS);
        let page = page.map_err(|error| file.explain(error))?;
        drop(read);
        if page.items.is_empty() {
            return Ok(());
        }
        let delete = |t: Transaction, item: Stored| t.delete(item.key);
        let gone = page.items.into_iter().fold(Transaction::default(), delete);
        write_group(file, &[gone], log_revisions)?;
    }
}

fn run(
    file: &StoreFile,
    mut requests: mpsc::Receiver<Request>,
    publisher: &Publisher,
    log_revisions: u64,
) {
    let mut refused: Option<(Instant, StoreError)> = None;
    while let Some(first) = requests.blocking_recv() {
        let group = fill_group(first, &mut requests);
        let (transactions, answers): (Vec<_>, Vec<_>) =
            group.into_iter().map(|request| (request.transaction, request.answer)).unzip();
        let written = match &refused {
            Some((since, why)) if since.elapsed() < AFTER_FAILURE => Err(why.clone()),
            _ => write_group(file, &transactions, log_revisions).inspect_err(|why| {
                refused = Some((Instant::now(), why.clone()));
            }),
        };
        match written {
            Ok((outcomes, revision)) => {
                publisher.publish(revision);
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    // Nobody waits for it any more: it happened all the same.
                    let _ = answer.send(Ok(outcome));
                }
            }
            Err(error) => {
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }
}

fn fill_group(first: Request, requests: &mut mpsc::Receiver<Request>) -> Vec<Request> {
    let size = |request: &Request| request.transaction.bytes();
    let mut bytes = size(&first);
    let mut group = vec![first];
    while group.len() < GROUP && bytes < GROUP_BYTES {
        let Ok(request) = requests.try_recv() else { break };
        bytes += size(&request);
        group.push(request);
    }
    group
}

fn write_group(
    file: &StoreFile,
    group: &[Transaction],
    log_revisions: u64,
) -> Result<(Vec<Outcome>, Revision), StoreError> {
    let database = file.database()?;
    let write = || -> Result<_, redb::Error> {
        let transaction = database.begin_write()?;
        let mut tables = Tables::open(&transaction)?;
        let before = tables.head;
        let outcomes =
            group.iter().map(|t| tables.perform(t)).collect::<Result<Vec<_>, redb::Error>>()?;
        let head = tables.finish(log_revisions)?;
        if head > before {
            transaction.commit()?
        } else {
            transaction.abort()?
        }
        Ok((outcomes, Revision(head)))
    };
    write().map_err(|error| file.failed(&database, error))
}

/// The tables of one group's transaction.
struct Tables<'t> {
    data: Table<'t, &'static str, (u64, &'static [u8])>,
    log: Table<'t, (u64, u32), Written<'static>>,
    meta: Table<'t, &'static str, u64>,
    head: u64,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        let meta = transaction.open_table(META)?;
        let head = meta.get(HEAD)?.map_or(0, |head| head.value());
        let (data, log) = (transaction.open_table(DATA)?, transaction.open_table(LOG)?);
        Ok(Self { data, log, meta, head })
    }

    fn perform(&mut self, transaction: &Transaction) -> Result<Outcome, redb::Error> {
        for compare in &transaction.compares {
            if !self.holds(compare)? {
                return Ok(Outcome::Conflict);
            }
        }
        let mut index = 0;
        for operation in &transaction.operations {
            if self.write(operation, self.head + 1, index)? {
                index += 1;
            }
        }
        // As in etcd, what changes nothing takes no revision.
        self.head += u64::from(index > 0);
        Ok(Outcome::Committed(Revision(self.head)))
    }

    fn holds(&self, compare: &Compare) -> Result<bool, redb::Error> {
        let modified = |key: &str| -> Result<Option<u64>, redb::Error> {
            Ok(self.data.get(key)?.map(|stored| stored.value().0))
        };
        Ok(match compare {
            Compare::Modified(key, revision) => modified(key.as_str())? == Some(revision.0),
            Compare::Absent(key) => modified(key.as_str())?.is_none(),
        })
    }

    /// Says whether the operation changed anything.
    fn write(
        &mut self,
        operation: &Operation,
        revision: u64,
        index: u32,
    ) -> Result<bool, redb::Error> {
        let key = operation.key().as_str();
        let value = match operation {
            Operation::Put(_, value) => {
                self.data.insert(key, (revision, value.as_ref()))?;
                Some(value.as_ref())
            }
            Operation::Delete(_) if self.data.remove(key)?.is_none() => return Ok(false),
            Operation::Delete(_) => None,
        };
        self.log.insert((revision, index), (key, value))?;
        Ok(true)
    }

    /// Forgets what the log needn't remember, and sets head.
    fn finish(mut self, log_revisions: u64) -> Result<u64, redb::Error> {
        let compacted = self.head.saturating_sub(log_revisions);
        let before = self.meta.get(COMPACTED)?.map_or(0, |compacted| compacted.value());
        if compacted > before {
            self.log.retain_in(..=(compacted, u32::MAX), |_, _| false)?;
            self.meta.insert(COMPACTED, compacted)?;
        }
        self.meta.insert(HEAD, self.head)?;
        Ok(self.head)
    }
}
