//! Questions to one agent about its tunnel to one peer: asked by operators, answered by the agent,
//! and never about a peer that it doesn't see.

use std::{collections::VecDeque, time::Duration};

use tokio::sync::oneshot;
use wattle_model::{Endpoint, NodeId};

/// Questions that a stream has open. Past it the oldest is given up.
const MAX_OPEN: usize = 8;

/// An agent's tunnel to one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnel {
    /// Where its packets go.
    pub endpoint: Option<Endpoint>,
    /// How long ago the last handshake was.
    pub last_handshake: Option<Duration>,
}

/// Somebody wants to know.
#[derive(Debug)]
pub(super) struct Inspection {
    pub(super) peer: NodeId,
    pub(super) answer: oneshot::Sender<Tunnel>,
}

/// What an agent was asked and hasn't answered.
#[derive(Debug, Default)]
pub(super) struct Inspections {
    next: u64,
    open: VecDeque<(u64, oneshot::Sender<Tunnel>)>,
}

impl Inspections {
    /// The question's number.
    pub(super) fn ask(&mut self, answer: oneshot::Sender<Tunnel>) -> u64 {
        if self.open.len() == MAX_OPEN {
            self.open.pop_front();
        }
        self.next += 1;
        self.open.push_back((self.next, answer));
        self.next
    }

    /// The agent answers. Says whether it was ever asked; an answer that comes late is nobody's.
    pub(super) fn answered(&mut self, query: u64, tunnel: Tunnel) -> bool {
        if let Some(at) = self.open.iter().position(|(asked, _)| *asked == query)
            && let Some((_, answer)) = self.open.remove(at)
        {
            // Whoever asked may have gone.
            let _ = answer.send(tunnel);
        }
        (1..=self.next).contains(&query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TUNNEL: Tunnel = Tunnel { endpoint: None, last_handshake: None };

    #[test]
    fn an_answer_reaches_whoever_asked_and_a_lie_is_noticed() {
        let mut inspections = Inspections::default();
        let (answer, mut answered) = oneshot::channel();
        assert!(!inspections.answered(1, TUNNEL), "nothing was asked");
        assert_eq!(inspections.ask(answer), 1);
        assert!(inspections.answered(1, TUNNEL));
        assert_eq!(answered.try_recv(), Ok(TUNNEL));
        assert!(inspections.answered(1, TUNNEL), "twice is late");
        assert!(!inspections.answered(2, TUNNEL) && !inspections.answered(0, TUNNEL));
    }

    #[test]
    fn an_agent_that_never_answers_costs_a_bounded_list() {
        let mut inspections = Inspections::default();
        let asked: Vec<_> = (0..100)
            .map(|_| {
                let (answer, answered) = oneshot::channel();
                inspections.ask(answer);
                answered
            })
            .collect();
        assert_eq!(inspections.open.len(), MAX_OPEN);
        drop(asked);
    }
}
