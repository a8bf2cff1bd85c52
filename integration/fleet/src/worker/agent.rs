//! One machine without a kernel: its identity, what it holds, what it was told to do, and the task
//! that keeps its stream open.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{select, sync::Notify, task::JoinHandle, time::sleep};
use wattle_model::Digest;
use wattle_runtime::backoff::Backoff;

use super::{
    enrol,
    socket::Target,
    state::State,
    stream,
    world::{World, now},
};

/// As the real agent has them.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// What a frozen agent lets the control plane send before it stands still, HTTP/2's part of it.
const SMALL_WINDOW: u32 = 1 << 10;

/// A machine.
pub(super) struct Agent {
    /// In the whole fleet.
    pub(super) number: usize,
    pub(super) group: usize,
    /// Where replicas are: by its token, then by what they say themselves.
    targets: Mutex<Vec<Target>>,
    /// Which of them it is connected to, or tries.
    place: AtomicUsize,
    /// Streams that it has tried to open.
    streams: AtomicU64,
    pub(super) instance: [u8; 16],
    pub(super) state: Mutex<State>,
    wish: Mutex<Wish>,
    /// The wish has changed.
    pub(super) told: Notify,
    /// Its replica wants it to go elsewhere.
    drained: Notify,
    /// A stream was accepted.
    accepted: Notify,
    task: Mutex<Option<JoinHandle<()>>>,
    confirmed: Mutex<Confirmed>,
    /// Where it says that it can be reached.
    endpoint: Mutex<SocketAddr>,
}

/// What it holds, as the control plane has confirmed by a commit or a heartbeat since the agent was
/// last told to connect.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Confirmed {
    pub(super) revision: u64,
    pub(super) at: u64,
}

/// What it was told.
#[derive(Debug, Default)]
struct Wish {
    connected: bool,
    frozen: bool,
    /// It has moved, and hasn't said so.
    moved: bool,
}

/// Why a stream ended.
pub(super) enum End {
    /// It was told to close it.
    Told,
    /// The node was deleted.
    Removed,
    /// The control plane asks for patience.
    Retry(Duration, String),
    /// Anything else.
    Lost(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Lost(error.into())
    }
}

impl Agent {
    pub(super) fn new(number: usize, group: usize, targets: Vec<Target>) -> Arc<Self> {
        // All have the same list, and are not all to meet at its head.
        let place = AtomicUsize::new(rand::random_range(0..targets.len().max(1)));
        Arc::new(Self {
            number,
            group,
            targets: Mutex::new(targets),
            place,
            streams: AtomicU64::new(0),
            instance: rand::random(),
            state: Mutex::default(),
            wish: Mutex::default(),
            told: Notify::new(),
            drained: Notify::new(),
            accepted: Notify::new(),
            task: Mutex::new(None),
            confirmed: Mutex::default(),
            endpoint: Mutex::new(enrol::endpoint(number)),
        })
    }

    /// Opens its stream and keeps it open.
    pub(super) fn connect(self: &Arc<Self>, world: &Arc<World>, forget: bool, frozen: bool) {
        if forget {
            *self.state.lock() = State::default();
        }
        *self.confirmed.lock() = Confirmed::default();
        *self.wish.lock() = Wish { connected: true, frozen, moved: false };
        let mut task = self.task.lock();
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            *task = Some(tokio::spawn(keep(self.clone(), world.clone())));
        }
    }

    /// Closes its stream.
    pub(super) async fn disconnect(&self) {
        *self.wish.lock() = Wish::default();
        self.told.notify_one();
        let task = self.task.lock().take();
        if let Some(task) = task {
            // A task that panicked has said so.
            let _ = task.await;
        }
    }

    /// Whether it reads.
    pub(super) fn freeze(&self, frozen: bool) {
        self.wish.lock().frozen = frozen;
        self.told.notify_one();
    }

    /// Reports another endpoint.
    pub(super) fn move_to(&self, endpoint: SocketAddr) {
        *self.endpoint.lock() = endpoint;
        self.wish.lock().moved = true;
        self.told.notify_one();
    }

    pub(super) fn wants_stream(&self) -> bool {
        self.wish.lock().connected
    }

    pub(super) fn is_frozen(&self) -> bool {
        let wish = self.wish.lock();
        wish.frozen && wish.connected
    }

    /// What HTTP/2 lets the control plane send it unread.
    pub(super) fn window(&self) -> Option<u32> {
        self.is_frozen().then_some(SMALL_WINDOW)
    }

    /// Where it connects now.
    pub(super) fn target(&self) -> Target {
        let targets = self.targets.lock();
        targets[self.place.load(Ordering::Relaxed) % targets.len()].clone()
    }

    /// Replicas are at these addresses. The place in the old list is kept where it still is one.
    pub(super) fn learn(&self, addresses: &[String]) {
        let found: Vec<SocketAddr> =
            addresses.iter().filter_map(|address| address.parse().ok()).collect();
        let now = self.target();
        let mut targets = self.targets.lock();
        if found.is_empty() || found.iter().eq(targets.iter().map(|target| &target.address)) {
            return;
        }
        let place = found.iter().position(|address| *address == now.address).unwrap_or(0);
        let target = |address| Target { address, tls: now.tls.clone() };
        *targets = found.into_iter().map(target).collect();
        self.place.store(place, Ordering::Relaxed);
    }

    /// The number of the stream that it opens now: from 1 on.
    pub(super) fn next_stream(&self) -> u64 {
        self.streams.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Its replica asks it to go elsewhere, to one of these addresses first.
    pub(super) fn drain(&self, prefer: &[String]) {
        let preferred = |target: &Target| prefer.contains(&target.address.to_string());
        match self.targets.lock().iter().position(preferred) {
            Some(place) => self.place.store(place, Ordering::Relaxed),
            None => self.turn(),
        }
        self.drained.notify_one();
    }

    fn turn(&self) {
        self.place.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether there is something to report.
    pub(super) fn takes_move(&self) -> bool {
        std::mem::take(&mut self.wish.lock().moved)
    }

    pub(super) fn endpoint(&self) -> SocketAddr {
        *self.endpoint.lock()
    }

    pub(super) fn confirmed(&self) -> Confirmed {
        *self.confirmed.lock()
    }

    /// The digest and the number of what it holds.
    pub(super) fn held(&self) -> (Digest, usize) {
        let state = self.state.lock();
        (state.digest(), state.entries())
    }

    /// The control plane has said that it holds a revision.
    pub(super) fn confirm(&self, world: &World, revision: u64, at: u64) {
        let before = std::mem::replace(&mut *self.confirmed.lock(), Confirmed { revision, at });
        world.confirmed(self.number, before.revision, revision, at);
    }
}

/// Keeps a stream open for as long as it should be.
async fn keep(agent: Arc<Agent>, world: Arc<World>) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let mut lost_at = None;
    while agent.wants_stream() {
        let (end, was_accepted) = follow(&agent, &world, &mut lost_at).await;
        if was_accepted {
            backoff.reset();
            lost_at = Some(now());
        }
        agent.turn();
        let wait = match end {
            End::Told => {
                lost_at = None;
                continue;
            }
            End::Removed => return world.counts.lost("removed".into()),
            End::Retry(after, why) => {
                world.counts.lost(why);
                after + backoff.next()
            }
            End::Lost(error) => {
                world.counts.lost(format!("{error:#}"));
                backoff.next()
            }
        };
        select! {
            () = sleep(wait) => {}
            () = agent.told.notified() => {}
        }
    }
}

/// A stream, and whether it was accepted.
type Followed<'a> = Pin<Box<dyn Future<Output = (End, bool)> + Send + 'a>>;

fn stream<'a>(agent: &'a Arc<Agent>, world: &'a Arc<World>) -> Followed<'a> {
    Box::pin(async move {
        let mut online = Online { world, agent, accepted: false };
        let end = stream::follow(agent, world, &mut online).await;
        (end, online.accepted)
    })
}

/// Follows a stream and, when its replica wants it gone, the one that replaces it: make before
/// break. Meanwhile the old one isn't read, as by the real agent: of two streams, one is behind.
async fn follow(agent: &Arc<Agent>, world: &Arc<World>, lost_at: &mut Option<u64>) -> (End, bool) {
    let mut current = stream(agent, world);
    loop {
        select! {
            // What is first known of a stream is that it was accepted.
            biased;
            followed = &mut current => return followed,
            () = agent.accepted.notified() => {
                let gap = lost_at.take().map(|at| now().saturating_sub(at));
                gap.into_iter().for_each(|gap| world.gap(gap));
            }
            () = agent.drained.notified() => {
                let mut other = stream(agent, world);
                select! {
                    // Nobody takes it: it stays until it is cut.
                    (_, _) = &mut other => {}
                    () = agent.accepted.notified() => {
                        world.gap(0);
                        current = other;
                    }
                }
            }
        }
    }
}

/// Counts an agent whose stream is accepted.
pub(super) struct Online<'a> {
    world: &'a World,
    agent: &'a Agent,
    accepted: bool,
}

impl Online<'_> {
    pub(super) fn accepted(&mut self) {
        if !std::mem::replace(&mut self.accepted, true) {
            self.world.counts.online.fetch_add(1, Ordering::Relaxed);
            self.agent.accepted.notify_one();
        }
    }
}

impl Drop for Online<'_> {
    fn drop(&mut self) {
        if self.accepted {
            self.world.counts.online.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
