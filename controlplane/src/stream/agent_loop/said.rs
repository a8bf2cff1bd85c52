//! What the agent is told, one message at a time, and what each means for the cursor.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rand::RngExt as _;
use tokio::time::Instant;
use wattle_model::Revision;
use wattle_proto::sync::retry::Reason;
use wattle_view::Life;

use super::{
    super::{Call, encode, farewell::Farewell, inspections::Inspection},
    AgentLoop,
};

/// How long an agent that is shed may look for another replica. It isn't cut after that: it stays.
const SHED_WITHIN: Duration = Duration::from_secs(10);

impl AgentLoop {
    /// Whatever is due now, most urgent first; `None` when the agent is up to date.
    pub(super) fn next_message(&mut self) -> Result<Option<Bytes>, Farewell> {
        if let Some(drain) = self.drain.as_mut().filter(|drain| !drain.announced) {
            drain.announced = true;
            return Ok(Some(encode::drain(drain.cut_at - Instant::now(), Vec::new())));
        }
        if let Some(prefer) = self.shed_to.take() {
            return Ok(Some(encode::drain(SHED_WITHIN, prefer)));
        }
        if let Some(config) = self.config.unsent(&self.shared.configs) {
            self.cursor.owe_commit();
            return Ok(Some(config));
        }
        if let Some(question) = self.inspection() {
            return Ok(Some(question));
        }
        if let Some(answer) = self.registration.orders().take_next_key() {
            return Ok(Some(self.own_key.ask(answer)));
        }
        self.check_era()?;
        let head = *self.head.borrow_and_update();
        let up_to_date =
            self.sight.is_some_and(|sight| sight.revision == head) && !self.cursor.owes_commit();
        if !up_to_date && let Some(page) = self.next_page()? {
            return Ok(Some(page));
        }
        // An ack of this revision is to mean the network's record, too.
        if self.outdated.is_some() {
            return Ok(None);
        }
        Ok(self.heartbeat())
    }

    /// An agent of another store than the view's comes again, and gets a full set.
    fn check_era(&self) -> Result<(), Farewell> {
        match self.shared.replica.live.era() == self.era {
            true => Ok(()),
            false => Err(Farewell::retry(Reason::Behind)),
        }
    }

    /// What an operator wants to know; nothing of a peer that the agent doesn't see.
    fn inspection(&mut self) -> Option<Bytes> {
        let Inspection { peer, answer } = self.registration.orders().next_inspection()?;
        let Call { network, node, .. } = &self.call;
        let sees = self.shared.replica.live.read().sees(network, *node, peer);
        sees.then(|| encode::inspect(self.inspections.ask(answer), peer))
    }

    /// A part of a batch. An agent for which nothing changed gets none: its cursor moves on.
    fn next_page(&mut self) -> Result<Option<Bytes>, Farewell> {
        let from = self.cursor.from();
        if from == Revision::ZERO && !self.turn.may_go() {
            return match self.turn.until() {
                Some(until) if until <= Instant::now() => {
                    self.shared.sessions.counts().count_full_set_put_off(1);
                    Err(Farewell::retry(Reason::Busy))
                }
                _ => Ok(None),
            };
        }
        let shared = Arc::clone(&self.shared);
        let index = shared.replica.live.read();
        // Again, holding the index: what is read of it is of this store.
        self.check_era()?;
        if from != Revision::ZERO && !index.resumable(from) {
            // The view was listed anew and has forgotten, or unlearned, where this agent stands.
            return Err(Farewell::retry(Reason::Behind));
        }
        let Some(key) =
            index.pull_key(&self.call.network, self.call.node, from, self.cursor.after())
        else {
            return Err(match index.life(&self.call.network, self.call.node) {
                Life::Deleted => Farewell::Removed,
                // Not known to be deleted: let it ask again, and somebody who knows.
                Life::Unknown | Life::Live => Farewell::retry(Reason::Behind),
            });
        };
        // In the same commit as all else that changed with it.
        let since = index.network_since(&self.call.network);
        if let Some(since) = since.filter(|s| *s > self.looked_up && self.config.is_older(*s)) {
            (self.outdated, self.looked_up) = (Some(since), since);
            return Ok(None);
        }
        // Before the commit at which its peers learn of it, whether or not it sees itself.
        if let Some(own_key) = self.own_key.changed(index.node(&self.call.network, self.call.node))
        {
            self.cursor.owe_commit();
            return Ok(Some(own_key));
        }
        let ack_wanted = shared.sessions.anybody_waits();
        let page = shared.frames.page(&index, key, ack_wanted);
        drop(index);
        let Some(commit) = page.commit else {
            self.cursor.sent_page(page.position);
            return Ok(Some(page.message.clone()));
        };
        self.turn.done();
        let silent = page.empty && !self.cursor.owes_commit();
        self.cursor.committed(commit.revision);
        self.sight = Some(commit);
        if silent {
            return Ok(None);
        }
        self.ledger.sent(commit.revision, commit.digest, true, ack_wanted);
        self.heartbeat_at = Instant::now() + jittered(self.shared.pace.heartbeat);
        Ok(Some(page.message.clone()))
    }

    /// A heartbeat, where it is time for one or somebody waits for an ack.
    fn heartbeat(&mut self) -> Option<Bytes> {
        let sight = self.sight?;
        let wanted = self.registration.orders().ack_wanted();
        let ask = wanted <= sight.revision && self.ledger.must_ask(wanted);
        if !ask && Instant::now() < self.heartbeat_at {
            return None;
        }
        self.heartbeat_at = Instant::now() + jittered(self.shared.pace.heartbeat);
        self.ledger.sent(sight.revision, sight.digest, false, ask);
        Some(encode::heartbeat(sight.revision, sight.digest, ask))
    }
}

/// A tenth more or less, so that agents that came together don't stay together.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(rand::rng().random_range(0.9..1.1))
}
