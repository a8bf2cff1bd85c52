//! What the rest of the replica tells one stream: to end, to end soon, or to ask its agent for an
//! ack, about a tunnel or for another key. Orders coalesce: a stream that comes late finds the last of each.

use std::{collections::VecDeque, future::poll_fn, task::Poll};

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};
use wattle_model::{PublicKey, Revision};

use super::inspections::Inspection;

/// Questions about tunnels that wait for the stream. Past it the next one isn't taken.
const MAX_INSPECTIONS: usize = 8;

/// Why a stream must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Its own agent has opened another one.
    Replaced,
    /// Another machine came with the same identity.
    Displaced,
}

/// One stream's orders.
#[derive(Default)]
pub(super) struct Orders {
    given: Mutex<Given>,
    /// The stream's task. One waiter, and no list of them to enter and leave at each change.
    stream: AtomicWaker,
}

#[derive(Default)]
struct Given {
    end: Option<End>,
    ack_wanted: Revision,
    drain_until: Option<Instant>,
    shed_to: Option<Vec<String>>,
    reconfigured: bool,
    inspections: VecDeque<Inspection>,
    next_key: Option<oneshot::Sender<PublicKey>>,
    /// Since the stream looked last.
    changed: bool,
}

impl Orders {
    /// Tells the stream to end. The first reason stays.
    pub(super) fn end(&self, why: End) {
        self.give(|given| {
            given.end.get_or_insert(why);
        });
    }

    /// Somebody waits for the agent to ack this revision.
    pub(super) fn want_ack(&self, revision: Revision) {
        self.give(|given| given.ack_wanted = given.ack_wanted.max(revision));
    }

    /// The replica is stopping: the stream is cut at `until`.
    pub(super) fn drain(&self, until: Instant) {
        self.give(|given| {
            given.drain_until.get_or_insert(until);
        });
    }

    /// The replica has too many agents: this one may go, best to one of these addresses.
    pub(super) fn shed(&self, prefer: Vec<String>) {
        self.give(|given| given.shed_to = Some(prefer));
    }

    /// Where the agent may go, if so; told once.
    pub(super) fn take_shed(&self) -> Option<Vec<String>> {
        self.given.lock().shed_to.take()
    }

    /// What every config says may have changed.
    pub(super) fn reconfigure(&self) {
        self.give(|given| given.reconfigured = true);
    }

    /// Somebody wants to know of a tunnel; where too many do, the question is dropped, and with it
    /// the hope for an answer.
    pub(super) fn inspect(&self, inspection: Inspection) {
        self.give(|given| {
            if given.inspections.len() < MAX_INSPECTIONS {
                given.inspections.push_back(inspection);
            }
        });
    }

    /// The agent is to make another key; whoever asked before gets no answer.
    pub(super) fn ask_next_key(&self, answer: oneshot::Sender<PublicKey>) {
        self.give(|given| given.next_key = Some(answer));
    }

    /// Who wants another key, if somebody does; told once.
    pub(super) fn take_next_key(&self) -> Option<oneshot::Sender<PublicKey>> {
        self.given.lock().next_key.take()
    }

    /// The next question about a tunnel.
    pub(super) fn next_inspection(&self) -> Option<Inspection> {
        self.given.lock().inspections.pop_front()
    }

    /// Whether the config is to be looked at again; told once.
    pub(super) fn take_reconfigured(&self) -> bool {
        std::mem::take(&mut self.given.lock().reconfigured)
    }

    /// When the stream is cut, if so.
    pub(super) fn drain_until(&self) -> Option<Instant> {
        self.given.lock().drain_until
    }

    /// Why to end, if so.
    pub(super) fn must_end(&self) -> Option<End> {
        self.given.lock().end
    }

    /// The revision that somebody waits for.
    pub(super) fn ack_wanted(&self) -> Revision {
        self.given.lock().ack_wanted
    }

    /// Returns when there is something new. For the stream alone.
    pub(super) async fn changed(&self) {
        poll_fn(|cx| {
            self.stream.register(cx.waker());
            match std::mem::take(&mut self.given.lock().changed) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    fn give(&self, change: impl FnOnce(&mut Given)) {
        let mut given = self.given.lock();
        change(&mut given);
        given.changed = true;
        drop(given);
        self.stream.wake();
    }
}
