//! One agent's stream, from Hello to the end. Wakes when something is new, says it, and sleeps
//! again; what it remembers is a cursor, an account of what was sent, and the latest report.
//!
//! It runs inside the response body, hence only while the agent has room for more.

mod heard;
mod said;
mod seen;

use std::{pin::Pin, sync::Arc};

use tokio::{
    select,
    sync::watch,
    time::{Instant, Sleep, sleep_until},
};
use tonic::Status;
use wattle_model::Revision;
use wattle_proto::sync::{SyncRequest, retry::Reason};
use wattle_view::Commit;

use super::{
    Call, Shared,
    admission::Turn,
    body::Outlet,
    budget::Budget,
    convert::Request,
    cursor::Cursor,
    encode,
    farewell::Farewell,
    hello::FullSet,
    inspections::Inspections,
    ledger::Ledger,
    observations::Observations,
    opening::{self, Start},
    orders::End,
    own_config::OwnConfig,
    own_key::OwnKey,
    record::Entering,
    reports::{Reported, Reports},
    requests::Requests,
    sessions::Registration,
    stalls::Watched,
};

/// Serves an agent until the stream ends.
pub(super) async fn run(
    shared: Arc<Shared>,
    call: Call,
    _watched: Watched,
    outlet: Outlet,
    mut requests: Box<Requests>,
) -> Status {
    let served = async {
        // On the heap: what opening needs is given back once the stream is open.
        let mut agent = Box::pin(AgentLoop::open(shared, call, &outlet, &mut requests)).await?;
        agent.serve(&outlet, &mut requests).await
    };
    let Err(farewell) = served.await;
    tracing::debug!(?farewell, "stream over");
    let (last, status) = farewell.parts();
    if let Some(message) = last {
        outlet.send(message).await;
    }
    status
}

enum Never {}

struct AgentLoop {
    shared: Arc<Shared>,
    call: Call,
    accept_stale: bool,
    /// The store that the agent is served from.
    era: u64,
    registration: Registration,
    head: watch::Receiver<Revision>,
    cursor: Cursor,
    ledger: Ledger,
    config: OwnConfig,
    /// The network's record is another one since, and has to be read before anything is sent of that.
    outdated: Option<Revision>,
    /// That of the last reading, whether or not it succeeded.
    looked_up: Revision,
    own_key: OwnKey,
    reports: Reports,
    observations: Observations,
    turn: Turn,
    budget: Budget,
    inspections: Inspections,
    /// What the agent sees at the cursor, once that is known.
    sight: Option<Commit>,
    heartbeat_at: Instant,
    drain: Option<Drain>,
    /// The agent may go elsewhere and hasn't been told; best to one of these addresses.
    shed_to: Option<Vec<String>>,
    timer: Pin<Box<Sleep>>,
}

/// The replica is stopping.
struct Drain {
    announced: bool,
    cut_at: Instant,
}

/// Why the loop woke.
#[expect(clippy::large_enum_variant, reason = "it is gone before the loop sleeps again")]
enum Event {
    Orders,
    Request(Result<Option<SyncRequest>, Status>),
    Other,
}

impl AgentLoop {
    async fn open(
        shared: Arc<Shared>,
        call: Call,
        outlet: &Outlet,
        requests: &mut Requests,
    ) -> Result<Box<Self>, Farewell> {
        let hello = opening::hello(requests).await?;
        let (start, era) = opening::decide(&shared, &call, &hello).await?;
        let unavailable = |error| {
            tracing::debug!(%error, "no config");
            Farewell::retry(Reason::Stale)
        };
        let own = shared.configs.own(&call.network, call.node).await.map_err(unavailable)?;
        // The store is ahead of the view. When the agent comes again it will be told what holds.
        let own = own.ok_or(Farewell::retry(Reason::Behind))?;
        let network = shared.configs.network(&call.network, Revision::ZERO).await;
        let network = network.map_err(unavailable)?;
        shared.secrets.load().await.map_err(unavailable)?;
        let config = OwnConfig::new(own, network, call.address, hello.config_hash);
        let (cursor, applied, full_set) = match start {
            Start::Resume(revision) => (Cursor::resume(revision), revision, None),
            Start::Everything(reason) => (Cursor::full_set(), Revision::ZERO, Some(reason)),
        };
        let entering = Entering {
            instance: hello.instance,
            stream: hello.stream,
            applied,
            agent_version: hello.agent_version,
        };
        let registration = shared.sessions.enter(&call, entering);
        match full_set {
            Some(reason) => shared.sessions.count_full_set(reason),
            None => shared.sessions.counts().count_resume(1),
        }
        tracing::info!(
            node = %call.node, network = %call.network, from = %applied,
            full_set = full_set.map(FullSet::as_str), "agent connected"
        );
        let (epoch, replica) = (era.epoch, shared.replica.id);
        let heartbeat = shared.pace.heartbeat;
        outlet.send(encode::welcome(epoch, full_set.is_some(), replica, heartbeat)).await;
        Ok(Box::new(Self {
            head: shared.replica.live.news(),
            cursor,
            ledger: Ledger::new(applied),
            config,
            outdated: None,
            looked_up: Revision::ZERO,
            own_key: OwnKey::new(hello.public_key, hello.secret_generation),
            reports: Reports::new(registration.write_at()),
            observations: Observations::new(),
            turn: shared.admission.turn(outlet.gate()),
            budget: Budget::new(),
            inspections: Inspections::default(),
            sight: None,
            // An agent that is owed nothing learns at once that it is up to date.
            heartbeat_at: Instant::now(),
            drain: None,
            shed_to: None,
            timer: Box::pin(sleep_until(Instant::now())),
            shared,
            call,
            accept_stale: hello.accept_stale,
            era: era.number,
            registration,
        }))
    }

    async fn serve(&mut self, outlet: &Outlet, requests: &mut Requests) -> Result<Never, Farewell> {
        loop {
            self.obey()?;
            if let Some(message) = self.next_message()? {
                outlet.send(message).await;
                // Between two pages the agent is heard, too, but needn't say anything. After the
                // last one it is heard below.
                if self.cursor.in_batch()
                    && let Some(event) = self.event_now(requests).await
                {
                    self.take(event).await?;
                }
                continue;
            }
            if let Some(viewed) = self.outdated.take() {
                Box::pin(self.refresh_network(viewed)).await;
                continue;
            }
            self.write_report();
            self.look_into_observation();
            let event = self.event(requests).await;
            self.take(event).await?;
        }
    }

    async fn event(&mut self, requests: &mut Requests) -> Event {
        self.arm_timer();
        select! {
            biased;
            () = self.registration.orders().changed() => Event::Orders,
            request = requests.message(), if self.budget.allows() => Event::Request(request),
            () = self.reports.ended() => Event::Other,
            () = self.observations.ended() => Event::Other,
            () = self.turn.granted() => Event::Other,
            changed = self.head.changed() => match changed {
                Ok(()) => Event::Other,
                // The index is gone: the replica is ending, and orders to drain come, too.
                Err(_) => std::future::pending().await,
            },
            () = &mut self.timer => Event::Other,
        }
    }

    /// What has happened already, without waiting for anything to happen.
    async fn event_now(&mut self, requests: &mut Requests) -> Option<Event> {
        select! {
            biased;
            () = self.registration.orders().changed() => Some(Event::Orders),
            request = requests.message(), if self.budget.allows() => Some(Event::Request(request)),
            () = std::future::ready(()) => None,
        }
    }

    fn arm_timer(&mut self) {
        let report = self.reports.due();
        let cut = self.drain.as_ref().map(|drain| drain.cut_at);
        let heard = (!self.budget.allows()).then(|| self.budget.next());
        // Who waits for its first set can't be sent a heartbeat: that one is due would only keep
        // this loop awake.
        let heartbeat = self.sight.map(|_| self.heartbeat_at);
        let due = [report, self.observations.due(), cut, heard, self.turn.until(), heartbeat];
        let due = due.into_iter().flatten().min().unwrap_or(self.heartbeat_at);
        // A timer that goes off early costs less than one that is moved at every message.
        if due < self.timer.deadline() || self.timer.is_elapsed() {
            self.timer.as_mut().reset(due);
        }
    }

    async fn take(&mut self, event: Event) -> Result<(), Farewell> {
        match event {
            Event::Orders => self.obey(),
            Event::Request(request) => {
                self.budget.spend();
                let request = request.map_err(Farewell::malformed)?.ok_or(Farewell::Done)?;
                let request = Request::try_from(request).map_err(Farewell::protocol);
                let taken = request.and_then(|request| self.request(request));
                if matches!(taken, Err(Farewell::Failed(_))) {
                    self.shared.sessions.counts().count_protocol_error(1);
                }
                taken
            }
            Event::Other => {
                if Instant::now() >= self.heartbeat_at {
                    Box::pin(self.refresh_network(Revision::ZERO)).await;
                }
                Ok(())
            }
        }
    }

    /// Does what the rest of the replica wants.
    fn obey(&mut self) -> Result<(), Farewell> {
        let orders = self.registration.orders();
        match orders.must_end() {
            Some(End::Replaced) => return Err(Farewell::Done),
            Some(End::Displaced) => return Err(Farewell::retry(Reason::Displaced)),
            None => {}
        }
        if let Some(prefer) = orders.take_shed() {
            self.shed_to = Some(prefer);
        }
        if orders.take_reconfigured() {
            self.config.look_again();
        }
        if let (None, Some(cut_at)) = (&self.drain, orders.drain_until()) {
            self.drain = Some(Drain { announced: false, cut_at });
        }
        if self
            .drain
            .as_ref()
            .is_some_and(|drain| drain.announced && Instant::now() >= drain.cut_at)
        {
            return Err(Status::unavailable("the replica is stopping").into());
        }
        Ok(())
    }

    /// Writes the latest report, if it is time. In a task of its own: this loop stands still while
    /// the agent doesn't read, and mustn't hold up others in the middle of a write.
    fn write_report(&mut self) {
        let Some((reported, done)) = self.reports.begin() else { return };
        self.registration.writes(self.reports.not_before());
        let (nodes, node) = (self.shared.nodes.clone(), self.call.node);
        self.shared.shutdown.spawn("report", async move {
            let Reported { own, observed, secret_generation } = reported;
            let written = nodes.report(node, &own, observed, secret_generation).await;
            if let Err(error) = &written {
                tracing::debug!(%node, %error, "a report isn't written");
            }
            // The stream may be over by now.
            let _ = done.send(written.is_ok());
        });
    }

    async fn refresh_network(&mut self, viewed: Revision) {
        match self.shared.configs.network(&self.call.network, viewed).await {
            Ok(network) => self.config.take_network(network),
            // The next heartbeat tries again.
            Err(error) => tracing::debug!(%error, "the network isn't read"),
        }
    }
}

impl Drop for AgentLoop {
    fn drop(&mut self) {
        tracing::info!(node = %self.call.node, acked = %self.ledger.acked(), "agent disconnected");
    }
}
