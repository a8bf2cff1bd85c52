//! Where agents stand towards a revision: whom it concerns, who has it, and waiting for them.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};
use wattle_model::{NetworkName, NodeId, Revision};

use super::{
    claim::Claim,
    sessions::Sessions,
    wait::{Following, Progress, Standing, Summary, Wait},
};

impl Sessions {
    /// Waits until every agent that `revision` concerns has applied it, or can't, as far as this
    /// replica alone knows. The set is fixed once it has read the revision; where too many waits go
    /// on, or time is up, the answer is what there is.
    pub async fn wait_applied(&self, revision: Revision, timeout: Duration) -> Progress {
        let deadline = Instant::now() + timeout;
        if !self.indexed(revision, deadline).await {
            return Progress::default();
        }
        let wait = Arc::new(Wait::new(revision, self.since(revision)));
        // Before the survey: an ack that comes between the two is seen by either.
        let waiting = self.0.waits.begin(Arc::clone(&wait));
        self.survey_into(&wait, true);
        if waiting.is_some() {
            // Time that is up is no error: what there is then is the answer.
            let _ = timeout_at(deadline, wait.settled()).await;
        }
        wait.progress()
    }

    /// Whether this replica has read a revision, or does so in time.
    pub async fn indexed(&self, revision: Revision, deadline: Instant) -> bool {
        let mut head = self.0.live.head();
        let indexed = timeout_at(deadline, head.wait_for(|head| *head >= revision)).await;
        indexed.is_ok_and(|reached| reached.is_ok())
    }

    /// How far a revision that this replica has read has come, as far as its agents have said:
    /// nobody is asked.
    pub fn progress(&self, revision: Revision) -> Progress {
        let wait = Wait::new(revision, self.since(revision));
        self.survey_into(&wait, false);
        wait.progress()
    }

    /// The same for a wait that goes on elsewhere, step by step; the agents are asked. `None` where
    /// too many waits go on.
    pub fn follow(&self, revision: Revision) -> Option<Following> {
        let following = Following::begin(&self.0.waits, revision, self.since(revision))?;
        self.survey_into(following.wait(), true);
        Some(following)
    }

    /// How far a revision has come with the agents that are connected here.
    pub fn summary(&self, revision: Revision) -> Summary {
        let mut summary = Summary { revision, ..Summary::default() };
        self.survey(revision, None, false, |_, _, standing, claim| {
            if claim.is_some_and(|claim| claim.online) {
                match standing {
                    Standing::Applied(_) => summary.applied += 1,
                    Standing::Pending(_) => summary.pending += 1,
                    Standing::Rejected(..) => summary.rejected += 1,
                    Standing::Offline(_) => {}
                }
            }
        });
        summary
    }

    /// When a revision was committed, or came here.
    fn since(&self, revision: Revision) -> Option<Instant> {
        self.0.live.passage(revision).map(|passage| passage.since())
    }

    fn survey_into(&self, wait: &Wait, ask: bool) {
        self.survey(wait.revision, wait.since, ask, |network, node, standing, claim| {
            wait.add(network, node, standing, claim);
        });
    }

    /// Finds whom a revision concerns and asks those for an ack, if so, who haven't given it.
    fn survey(
        &self,
        revision: Revision,
        since: Option<Instant>,
        ask: bool,
        mut each: impl FnMut(NetworkName, NodeId, Standing, Option<Claim>),
    ) {
        let concerned = self.0.live.read().concerned(revision);
        for (network, node) in concerned {
            let record = self.record(node);
            let applied = record.as_ref().map_or(Revision::ZERO, |r| r.lock().info.applied);
            // Not in one go with the lock below: see `Record::lock`.
            let concerns = applied < revision
                && self.0.live.read().concerns(&network, node, applied, revision);
            let Some(record) = record else {
                each(network, node, Standing::Offline(Revision::ZERO), None);
                continue;
            };
            let state = record.lock();
            let standing = match Standing::of(&state, revision, since) {
                Standing::Pending(_) | Standing::Offline(_) if !concerns => Standing::Applied(None),
                standing => standing,
            };
            if ask && let (Standing::Pending(_), Some(stream)) = (&standing, &state.stream) {
                stream.orders.want_ack(revision);
            }
            each(network, node, standing, Some(state.info.claim()));
        }
    }
}
