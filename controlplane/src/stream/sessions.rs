//! The registry: which agents are connected, what each of them has applied, and who waits for it.
//!
//! It has one record for each node that was connected to this replica and still lives; the admin
//! API reads it, streams write it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use rand::RngExt as _;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use wattle_model::{NetworkName, NodeId, Revision};
use wattle_view::Life;

use super::{
    Call,
    counts::Counts,
    hello::FullSet,
    inspections::{Inspection, Tunnel},
    orders::{End, Orders},
    record::{Applied, Entering, Record, Rejected, SessionInfo, State, Stream},
    wait::{Progress, Standing, Wait, Waits},
};
use crate::store::feed::Live;

/// All sessions of this replica. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Sessions(Arc<Registry>);

struct Registry {
    live: Live,
    records: Mutex<HashMap<NodeId, Arc<Record>>>,
    online: AtomicUsize,
    next_number: AtomicU64,
    waits: Waits,
    full_sets: Mutex<BTreeMap<FullSet, u64>>,
    counts: Counts,
    apply_times: Histogram,
    /// Since when the replica is stopping, and how long streams have.
    drain: Mutex<Option<(Instant, Duration)>>,
}

impl Sessions {
    /// A registry of nobody.
    pub fn new(live: Live) -> Self {
        Self(Arc::new(Registry {
            live,
            records: Mutex::default(),
            online: AtomicUsize::new(0),
            next_number: AtomicU64::new(0),
            waits: Waits::default(),
            full_sets: Mutex::default(),
            counts: Counts::default(),
            // 100 µs to 6.5 s.
            apply_times: Histogram::new(exponential_buckets(0.0001, 2.0, 17)),
            drain: Mutex::default(),
        }))
    }

    /// What is known of a node's agent; `None` where it was never connected to this replica.
    pub fn info(&self, node: NodeId) -> Option<SessionInfo> {
        self.record(node).map(|record| record.info())
    }

    /// How many agents are connected.
    pub fn online(&self) -> usize {
        self.0.online.load(Ordering::Relaxed)
    }

    /// Full sets sent, by reason.
    pub fn full_sets(&self) -> BTreeMap<&'static str, u64> {
        let counted = self.0.full_sets.lock();
        counted.iter().map(|(reason, count)| (reason.as_str(), *count)).collect()
    }

    /// What went wrong with agents.
    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// How long agents took to apply batches, in seconds, as they say.
    pub fn apply_times(&self) -> &Histogram {
        &self.0.apply_times
    }

    /// Waits until every agent that `revision` concerns has applied it, or can't. The set is fixed
    /// once this replica has read the revision; where too many waits go on, or time is up, the
    /// answer is what there is.
    pub async fn wait_applied(&self, revision: Revision, timeout: Duration) -> Progress {
        let deadline = Instant::now() + timeout;
        let mut head = self.0.live.head();
        let indexed = timeout_at(deadline, head.wait_for(|head| *head >= revision)).await;
        let indexed = indexed.is_ok_and(|reached| reached.is_ok());
        if !indexed {
            return Progress::default();
        }
        let since = self.0.live.passage(revision).map(|passage| passage.since());
        let wait = Arc::new(Wait::new(revision, since));
        // Before the survey: an ack that comes between the two is seen by either.
        let waiting = self.0.waits.begin(Arc::clone(&wait));
        self.survey(&wait, true);
        if waiting.is_some() {
            // Time that is up is no error: what there is then is the answer.
            let _ = timeout_at(deadline, wait.settled()).await;
        }
        wait.progress()
    }

    /// How far a revision that this replica has read has come, as far as agents have said: nobody
    /// is asked.
    pub fn progress(&self, revision: Revision) -> Progress {
        let since = self.0.live.passage(revision).map(|passage| passage.since());
        let wait = Wait::new(revision, since);
        self.survey(&wait, false);
        wait.progress()
    }

    /// Asks a node's agent about its tunnel to a peer; `None` where it isn't connected, doesn't see
    /// the peer, or doesn't answer within `timeout`.
    pub async fn inspect(&self, node: NodeId, peer: NodeId, timeout: Duration) -> Option<Tunnel> {
        let (answer, answered) = oneshot::channel();
        {
            let record = self.record(node)?;
            let state = record.lock();
            state.stream.as_ref()?.orders.inspect(Inspection { peer, answer });
        }
        tokio::time::timeout(timeout, answered).await.ok()?.ok()
    }

    /// Finds whom a revision concerns and asks those for an ack, if so, who haven't given it.
    fn survey(&self, wait: &Wait, ask: bool) {
        let concerned = self.0.live.read().concerned(wait.revision);
        for (network, node) in concerned {
            let record = self.record(node);
            let applied = record.as_ref().map_or(Revision::ZERO, |r| r.lock().info.applied);
            // Not in one go with the lock below: see `Record::lock`.
            let concerns = applied < wait.revision
                && self.0.live.read().concerns(&network, node, applied, wait.revision);
            let Some(record) = record else {
                let offline = Standing::Offline(Revision::ZERO);
                wait.add(network, node, offline);
                continue;
            };
            let state = record.lock();
            let standing = match Standing::of(&state, wait.revision, wait.since) {
                Standing::Pending(_) | Standing::Offline(_) if !concerns => Standing::Applied(None),
                standing => standing,
            };
            if ask && let (Standing::Pending(_), Some(stream)) = (&standing, &state.stream) {
                stream.orders.want_ack(wait.revision);
            }
            wait.add(network, node, standing);
        }
    }

    /// Whether commits should ask for an ack: somebody waits.
    pub(super) fn anybody_waits(&self) -> bool {
        self.0.waits.any()
    }

    pub(super) fn count_full_set(&self, reason: FullSet) {
        *self.0.full_sets.lock().entry(reason).or_default() += 1;
    }

    /// A stream takes a node's identity over from whichever stream held it.
    pub(super) fn enter(&self, call: &Call, hello: Entering) -> Registration {
        let Call { network, node, .. } = call;
        let record = self.record_of(network, *node);
        let number = self.0.next_number.fetch_add(1, Ordering::Relaxed);
        let orders = Arc::new(Orders::default());
        let stream = Stream { number, orders: Arc::clone(&orders) };
        let mut state = record.lock();
        let before = state.info.instance;
        let same = before == hello.instance;
        match state.enter(stream, hello) {
            None => {
                self.0.online.fetch_add(1, Ordering::Relaxed);
            }
            Some(old) if same => old.orders.end(End::Replaced),
            Some(old) => {
                old.orders.end(End::Displaced);
                state.displaced();
                self.0.counts.count_displaced(1);
                tracing::warn!(%network, %node, "two machines use this node's identity");
            }
        }
        self.0.waits.moved(*node, &state);
        drop(state);
        // After the stream is in the registry: a drain that begins now finds it by one or the other.
        if let Some((since, grace)) = *self.0.drain.lock() {
            orders.drain(spread(since, grace));
        }
        Registration { sessions: self.clone(), record, number, orders }
    }

    /// Forgets nodes that don't live any more.
    pub(super) fn forget_dead(&self) {
        let index = self.0.live.read();
        let lives = |record: &Record| index.life(&record.network, record.node) == Life::Live;
        // A stream that is just entering holds its record, too.
        self.0.records.lock().retain(|_, r| Arc::strong_count(r) > 1 || lives(r));
    }

    /// Tells every agent to go elsewhere, each within a time of its own: a replica's worth of
    /// agents that moves at once would only move the trouble.
    pub(super) fn drain(&self, grace: Duration) {
        let now = Instant::now();
        *self.0.drain.lock() = Some((now, grace));
        let records: Vec<_> = self.0.records.lock().values().cloned().collect();
        for record in records {
            if let Some(stream) = &record.lock().stream {
                stream.orders.drain(spread(now, grace));
            }
        }
    }

    fn left(&self, record: &Record, state: &mut State, number: u64) {
        if state.leave(number) {
            self.0.online.fetch_sub(1, Ordering::Relaxed);
            self.0.waits.moved(record.node, state);
        }
    }

    fn record(&self, node: NodeId) -> Option<Arc<Record>> {
        self.0.records.lock().get(&node).cloned()
    }

    fn record_of(&self, network: &NetworkName, node: NodeId) -> Arc<Record> {
        let mut records = self.0.records.lock();
        let new = || Arc::new(Record::new(network.clone(), node));
        Arc::clone(records.entry(node).or_insert_with(new))
    }
}

/// A moment in the second half of the grace period.
fn spread(since: Instant, grace: Duration) -> Instant {
    since + grace.mul_f64(rand::rng().random_range(0.5..0.95))
}

/// A stream's hold on its node's identity. Gives it up on drop, unless another one has taken it.
pub(super) struct Registration {
    sessions: Sessions,
    record: Arc<Record>,
    number: u64,
    orders: Arc<Orders>,
}

impl Registration {
    pub(super) fn orders(&self) -> &Orders {
        &self.orders
    }

    /// An ack that was found right.
    pub(super) fn applied(&self, ack: Applied) {
        let mut state = self.record.lock();
        if self.holds(&state) {
            if ack.rejected.is_some() {
                self.sessions.0.apply_times.observe(ack.apply.as_secs_f64());
            }
            state.applied(ack);
            self.sessions.0.waits.moved(self.record.node, &state);
        }
    }

    /// When endpoints may be written for the node.
    pub(super) fn write_at(&self) -> Instant {
        self.record.lock().write_at
    }

    /// Endpoints are being written; not again before `next`.
    pub(super) fn writes(&self, next: Instant) {
        self.record.lock().write_at = next;
    }

    /// Notes a full set on request, or says how long the agent has to wait for one.
    pub(super) fn resync(&self) -> Result<(), Duration> {
        self.record.lock().resync()
    }

    /// Changes what is shown of the node, while this stream holds its identity.
    pub(super) fn note(&self, change: impl FnOnce(&mut SessionInfo)) {
        let mut state = self.record.lock();
        if self.holds(&state) {
            change(&mut state.info);
        }
    }

    /// What the agent couldn't apply so far.
    pub(super) fn rejected(&self) -> Vec<Rejected> {
        self.record.lock().info.rejected.clone()
    }

    fn holds(&self, state: &State) -> bool {
        state.stream.as_ref().is_some_and(|stream| stream.number == self.number)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.record.lock();
        self.sessions.left(&self.record, &mut state, self.number);
    }
}
