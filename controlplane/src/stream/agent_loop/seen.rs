//! What the agent says of where its peers are: whether it may say so, and what becomes of it.

use wattle_model::NodeId;
use wattle_proto::entry;

use super::{
    super::{
        convert::Observation,
        counts::Counts,
        observations::{Answer, Seen},
    },
    AgentLoop,
};
use crate::nodes::{ChangeError, NotObserved, Observed};

/// Observations that cost as much as one other message.
const PER_MESSAGE: usize = 16;

impl AgentLoop {
    /// Takes what the agent says of peers that it sees and has spoken with lately.
    pub(super) fn observed(&mut self, said: Vec<Observation>) {
        (0..said.len() / PER_MESSAGE).for_each(|_| self.budget.spend());
        for said in said {
            let peer = said.peer;
            if !self.sees(peer) {
                tracing::debug!(node = %self.call.node, %peer, "says where a peer is that it doesn't see");
                self.counts().count_observation_unseen(1);
            } else if let Some(seen) = Seen::now(said) {
                if self.is_known(&seen) {
                    self.observations.supersede(seen);
                } else if !self.observations.offer(seen) {
                    self.counts().count_observation_dropped(1);
                }
            } else {
                self.counts().count_observation_old(1);
            }
        }
    }

    /// Looks into one of them, if it is time. In a task of its own, as with reports.
    pub(super) fn look_into_observation(&mut self) {
        let Some((seen, answer)) = self.observations.begin() else { return };
        // It may have waited.
        let allowed = self.sees(seen.peer);
        if !allowed || !seen.is_fresh() {
            match allowed {
                true => self.counts().count_observation_old(1),
                false => self.counts().count_observation_unseen(1),
            }
            let _ = answer.send(Answer::Done);
            return;
        }
        let (nodes, sessions) = (self.shared.nodes.clone(), self.shared.sessions.clone());
        let node = self.call.node;
        self.shared.shutdown.spawn("observe", async move {
            let observed = nodes.observe(seen.peer, seen.endpoint).await;
            tracing::debug!(%node, ?seen, ?observed, "says where a peer is");
            // The stream may be over by now.
            let _ = answer.send(settle(observed, sessions.counts()));
        });
    }

    fn sees(&self, peer: NodeId) -> bool {
        let (network, node) = (&self.call.network, self.call.node);
        peer != node && self.shared.replica.live.read().sees(network, node, peer)
    }

    /// Whether that is what the peer's entry says already: most of what honest agents say, and not
    /// worth a question to the store.
    fn is_known(&self, seen: &Seen) -> bool {
        let index = self.shared.replica.live.read();
        let entry = index.node(&self.call.network, seen.peer).and_then(|peer| peer.entry);
        let peer = entry.and_then(|bytes| entry::decode(bytes).ok());
        peer.is_some_and(|peer| peer.endpoints.contains(&seen.endpoint))
    }

    fn counts(&self) -> &Counts {
        self.shared.sessions.counts()
    }
}

fn settle(observed: Result<Observed, NotObserved>, counts: &Counts) -> Answer {
    match observed {
        Ok(Observed::Known) => {}
        Ok(Observed::Accepted(_)) => counts.count_observation_accepted(1),
        Err(NotObserved::OtherAddress) => counts.count_observation_elsewhere(1),
        Err(NotObserved::OwnWord) => counts.count_observation_own_word(1),
        Err(NotObserved::TooSoon(wait)) => {
            counts.count_observation_too_soon(1);
            return Answer::Later(wait);
        }
        // It was deleted: nobody sees it any more.
        Err(NotObserved::Failed(ChangeError::Gone)) => counts.count_observation_unseen(1),
        Err(NotObserved::Failed(_)) => return Answer::Failed,
    }
    Answer::Done
}
