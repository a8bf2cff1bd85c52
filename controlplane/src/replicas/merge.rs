//! What several replicas know of nodes' agents, made one. Pure: whoever holds a node's newest stream
//! is believed, and nobody else.

use std::collections::HashMap;

use wattle_model::{NodeId, ReplicaId};

use crate::stream::SessionInfo;

/// What is known of a node's agent, and which replica says so.
#[derive(Debug, Clone)]
pub struct Known {
    /// The replica that its newest stream leads to, or led to.
    pub replica: ReplicaId,
    /// As that replica has it.
    pub info: SessionInfo,
}

/// Of all nodes that were asked for.
pub type AllKnown = HashMap<NodeId, Known>;

/// Adds what one more replica knows.
pub(super) fn add(all: &mut AllKnown, replica: ReplicaId, sessions: Vec<(NodeId, SessionInfo)>) {
    all.reserve(sessions.len().saturating_sub(all.len()));
    for (node, info) in sessions {
        let Some(known) = all.get_mut(&node) else {
            all.insert(node, Known { replica, info });
            continue;
        };
        // Two machines with one identity push each other out from one replica to the other: it is
        // so if any of them has seen it.
        let displaced = known.info.displaced || info.displaced;
        if info.claim().beats(&known.info.claim()) {
            *known = Known { replica, info };
        }
        known.info.displaced = displaced && known.info.online;
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use tokio::time::Instant;
    use wattle_model::{InstanceId, Revision};

    use super::*;

    const NODE: NodeId = NodeId::new([1; 16]);
    const A: ReplicaId = ReplicaId::new([1; 16]);
    const B: ReplicaId = ReplicaId::new([2; 16]);

    fn info(online: bool, stream: u64, applied: u64, ago: u64) -> SessionInfo {
        SessionInfo {
            network: "default".parse().unwrap(),
            online,
            since: SystemTime::UNIX_EPOCH,
            applied: Revision(applied),
            verified: Revision::ZERO,
            last_apply: None,
            rejected: Vec::new(),
            agent_version: String::new(),
            data_plane: None,
            displaced: false,
            instance: InstanceId::new([7; 16]),
            stream,
            moved: Instant::now() - Duration::from_secs(ago),
        }
    }

    fn merged(a: SessionInfo, b: SessionInfo) -> Known {
        let (mut one, mut other) = (AllKnown::new(), AllKnown::new());
        add(&mut one, A, vec![(NODE, a.clone())]);
        add(&mut one, B, vec![(NODE, b.clone())]);
        add(&mut other, B, vec![(NODE, b)]);
        add(&mut other, A, vec![(NODE, a)]);
        let (one, other) = (one.remove(&NODE).unwrap(), other.remove(&NODE).unwrap());
        assert_eq!(format!("{one:?}"), format!("{other:?}"), "whoever answers first");
        one
    }

    #[test]
    fn online_anywhere_is_online_and_the_newest_stream_says_what_is_applied() {
        // It left A, which remembers, and is at B.
        let known = merged(info(false, 1, 90, 1), info(true, 2, 80, 5));
        assert_eq!((known.replica, known.info.online, known.info.applied.0), (B, true, 80));
        // A hasn't noticed that its stream is dead.
        let known = merged(info(true, 1, 90, 50), info(true, 2, 80, 5));
        assert_eq!((known.replica, known.info.applied.0), (B, 80));
        // Away from both: the one where it was last.
        let known = merged(info(false, 1, 70, 2), info(false, 2, 80, 5));
        assert_eq!((known.replica, known.info.online, known.info.applied.0), (B, false, 80));
    }

    #[test]
    fn displaced_is_who_is_online_and_was_seen_twice_anywhere() {
        let seen = |online| SessionInfo { displaced: true, ..info(online, 1, 1, 50) };
        assert!(merged(seen(true), info(true, 2, 1, 5)).info.displaced);
        assert!(!merged(seen(false), info(false, 2, 1, 5)).info.displaced);
        assert!(!merged(info(true, 1, 1, 50), info(true, 2, 1, 5)).info.displaced);
    }
}
