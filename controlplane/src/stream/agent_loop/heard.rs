//! What the agent says, once it can be read: acks, reports, a wish for a full set.

use wattle_model::Revision;
use wattle_proto::sync::retry::Reason;

use super::{
    super::{
        convert::{Ack, Inspected, MAX_REJECTED, Report, Request},
        farewell::Farewell,
        hello::FullSet,
        record::{Applied, Rejected},
        reports::Reported,
    },
    AgentLoop,
};
use crate::nodes::observed_endpoint;

impl AgentLoop {
    pub(super) fn request(&mut self, request: Request) -> Result<(), Farewell> {
        match request {
            Request::Hello(_) => Err(Farewell::protocol("message: hello comes once")),
            Request::Ack(ack) => self.ack(ack),
            Request::Report(report) => {
                self.report(report);
                Ok(())
            }
            Request::Resync(at) => self.resync(at),
            Request::Observations(said) => {
                self.observed(said);
                Ok(())
            }
            Request::NextKey(key) => {
                if !self.own_key.answered(key) {
                    self.registration.wants_key();
                }
                Ok(())
            }
            Request::Inspected(Inspected { query, tunnel }) => {
                match self.inspections.answered(query, tunnel) {
                    true => Ok(()),
                    false => Err(Farewell::protocol("inspected.query: never asked")),
                }
            }
        }
    }

    fn ack(&mut self, ack: Ack) -> Result<(), Farewell> {
        let acked = self.ledger.ack(ack.revision, ack.digest).map_err(Farewell::protocol)?;
        if !acked.digest_matches {
            tracing::debug!(node = %self.call.node, revision = %ack.revision, "wrong digest");
            self.shared.sessions.counts().count_digest_mismatch(1);
            return Ok(());
        }
        let rejected = acked.commit.then(|| self.rejected(&ack, acked.since));
        self.registration.applied(Applied {
            revision: ack.revision,
            verified: ack.verified,
            apply: ack.apply,
            rejected,
        });
        Ok(())
    }

    /// All that is rejected after a batch: what it brought, and what was rejected before and
    /// hasn't changed since.
    fn rejected(&self, ack: &Ack, since: Revision) -> Vec<Rejected> {
        let mut rejected = self.registration.rejected();
        if !rejected.is_empty() {
            let index = self.shared.replica.live.read();
            rejected.retain(|rejected| {
                let peer = index.node(&self.call.network, rejected.node);
                peer.is_some_and(|peer| peer.changed <= rejected.upto)
            });
        }
        rejected.extend(ack.rejected.iter().map(|(node, reason)| Rejected {
            node: *node,
            reason: reason.clone(),
            after: since,
            upto: ack.revision,
        }));
        rejected.truncate(MAX_REJECTED);
        rejected
    }

    fn report(&mut self, report: Report) {
        let observed = observed_endpoint(self.call.address, report.listen_port);
        self.registration.note(|info| info.data_plane = report.data_plane);
        self.config.observe(observed);
        let Report { endpoints: own, secret_generation, .. } = report;
        self.reports.offer(Reported { own, observed, secret_generation });
    }

    fn resync(&mut self, at: Revision) -> Result<(), Farewell> {
        if !self.ledger.knows(at) {
            return Err(Farewell::protocol(format_args!("resync.revision: {at} was never sent")));
        }
        if self.shared.replica.live.is_stale() && !self.accept_stale {
            return Err(Farewell::retry(Reason::Stale));
        }
        if let Err(wait) = self.registration.resync() {
            self.shared.sessions.counts().count_resync_refused(1);
            return Err(Farewell::Retry(Reason::Busy, wait));
        }
        tracing::info!(node = %self.call.node, revision = %at, "agent asks for a full set");
        self.shared.sessions.count_full_set(FullSet::Resync);
        self.cursor.resync();
        Ok(())
    }
}
