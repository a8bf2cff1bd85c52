//! The registry: which agents are connected, what each of them has applied, and who waits for it.
//!
//! It has one record for each node that was connected to this replica and still lives; the admin
//! API reads it, streams write it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use rand::{RngExt as _, seq::SliceRandom as _};
use tokio::{sync::oneshot, time::Instant};
use wattle_model::{NetworkName, NodeId, PublicKey};
use wattle_view::Life;

use super::{
    Call,
    arrivals::Arrivals,
    claim::Claim,
    counts::Counts,
    hello::FullSet,
    inspections::{Inspection, Tunnel},
    orders::{End, Orders},
    record::{Applied, Entering, Record, Rejected, SessionInfo, State, Stream},
    wait::Waits,
};
use crate::store::feed::Live;

/// All sessions of this replica. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Sessions(pub(super) Arc<Registry>);

pub(super) struct Registry {
    pub(super) live: Live,
    records: Mutex<HashMap<NodeId, Arc<Record>>>,
    online: AtomicUsize,
    next_number: AtomicU64,
    pub(super) waits: Waits,
    arrivals: Arrivals,
    /// Nodes whose agents haven't got the key that their peers know; bounded by the nodes there are.
    want_keys: Mutex<BTreeSet<NodeId>>,
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
            arrivals: Arrivals::default(),
            want_keys: Mutex::default(),
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

    /// What is known of every node's agent that was ever connected to this replica, or of those of
    /// these nodes.
    pub fn list(&self, nodes: Option<&[NodeId]>) -> Vec<(NodeId, SessionInfo)> {
        let records: Vec<_> = {
            let records = self.0.records.lock();
            match nodes {
                Some(nodes) => nodes.iter().filter_map(|id| records.get(id)).cloned().collect(),
                None => records.values().cloned().collect(),
            }
        };
        records.iter().map(|record| (record.node, record.info())).collect()
    }

    /// Agents that came here, for whoever tells others of them.
    pub fn arrivals(&self) -> &Arrivals {
        &self.0.arrivals
    }

    /// A node's agent has a stream at another replica: an older one here ends. The same agent's does
    /// so silently; another machine's is displaced.
    pub fn elsewhere(&self, node: NodeId, there: &Claim) {
        let Some(record) = self.record(node) else { return };
        let mut state = record.lock();
        let here = state.info.claim();
        let Some(stream) = &state.stream else { return };
        if !there.beats(&here) {
            return;
        }
        if there.instance == here.instance {
            stream.orders.end(End::Replaced);
            return;
        }
        stream.orders.end(End::Displaced);
        state.displaced();
        self.0.counts.count_displaced(1);
        tracing::warn!(network = %record.network, %node, "two machines use this node's identity");
    }

    /// Agents that were told to go to another replica, and are still here.
    pub fn leaving(&self) -> usize {
        self.records().iter().filter(|record| record.lock().is_leaving()).count()
    }

    /// Tells so many agents, or as many as may be told, to go to another replica; `prefer` says of each
    /// where to. Says how many were told.
    pub fn shed(&self, count: usize, mut prefer: impl FnMut() -> Vec<String>) -> usize {
        let mut records = self.records();
        records.shuffle(&mut rand::rng());
        let told = records.iter().filter(|record| record.lock().shed(&mut prefer)).take(count);
        let told = told.count();
        self.0.counts.count_shed(told as u64);
        told
    }

    /// What every agent's config says has changed: streams look whether theirs differs.
    pub fn reconfigure(&self) {
        for record in self.records() {
            if let Some(stream) = &record.lock().stream {
                stream.orders.reconfigure();
            }
        }
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

    /// Asks a node's agent for another WireGuard key, which it makes and doesn't use yet; `None` where
    /// it isn't connected, or doesn't answer within `timeout`.
    pub async fn next_key(&self, node: NodeId, timeout: Duration) -> Option<PublicKey> {
        let (answer, answered) = oneshot::channel();
        {
            let record = self.record(node)?;
            let state = record.lock();
            state.stream.as_ref()?.orders.ask_next_key(answer);
        }
        tokio::time::timeout(timeout, answered).await.ok()?.ok()
    }

    /// Whether a node's agent is connected to this replica.
    pub fn is_online(&self, node: NodeId) -> bool {
        self.record(node).is_some_and(|record| record.lock().stream.is_some())
    }

    /// Nodes that have asked for another key by themselves; told once.
    pub fn take_key_wishes(&self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.0.want_keys.lock())
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
        self.0.arrivals.add(*node, state.info.claim());
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
        for record in self.records() {
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

    fn records(&self) -> Vec<Arc<Record>> {
        self.0.records.lock().values().cloned().collect()
    }

    pub(super) fn record(&self, node: NodeId) -> Option<Arc<Record>> {
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

    /// The agent hasn't got the key that its peers know.
    pub(super) fn wants_key(&self) {
        self.sessions.0.want_keys.lock().insert(self.record.node);
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
