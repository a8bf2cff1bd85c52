//! Which other replicas run, as this one last saw, and where agents reach any of them. Written by
//! [`super::heart`] alone; everybody else reads.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::RwLock;
use tokio::time::Instant;
use wattle_model::ReplicaId;

use super::{MAX_REPLICAS, Presence};

/// A replica that has said nothing for so long isn't well, and a list that is so old isn't fresh:
/// three beats and what a slow store may add.
const SILENCE: Duration = Duration::from_secs(7);

/// The others, and the addresses of all. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Roster(Arc<RwLock<State>>);

#[derive(Debug)]
struct State {
    others: Arc<[Other]>,
    listed: Option<Instant>,
    addresses: Arc<[String]>,
}

/// Another replica.
#[derive(Debug, Clone)]
pub struct Other {
    /// What it says of itself.
    pub presence: Presence,
    /// When it was last seen to say anything.
    pub heard: Instant,
    /// When it was first seen.
    pub known: Instant,
}

impl Other {
    /// It says that it is well, and said so a moment ago.
    pub fn is_well(&self) -> bool {
        self.heard.elapsed() < SILENCE && !self.presence.stale && !self.presence.draining
    }
}

impl Roster {
    /// Nobody else is known; agents reach this replica at `addresses`.
    pub fn alone(addresses: &[String]) -> Self {
        let state = State { others: Arc::new([]), listed: None, addresses: addresses.into() };
        Self(Arc::new(RwLock::new(state)))
    }

    /// The others, in the order of their ids.
    pub fn others(&self) -> Arc<[Other]> {
        self.0.read().others.clone()
    }

    /// Where agents reach any replica: what their configs, tokens and operators' files carry.
    pub fn addresses(&self) -> Arc<[String]> {
        self.0.read().addresses.clone()
    }

    /// The list was read a moment ago.
    pub fn is_fresh(&self) -> bool {
        self.0.read().listed.is_some_and(|listed| listed.elapsed() < SILENCE)
    }

    /// Everybody who has a record, this replica included; it is left out.
    pub(super) fn listed(&self, own: ReplicaId, all: Vec<Presence>) {
        let now = Instant::now();
        let mut state = self.0.write();
        let before: HashMap<_, _> =
            state.others.iter().map(|other| (other.presence.id, other)).collect();
        let others = all.into_iter().filter(|presence| presence.id != own).take(MAX_REPLICAS);
        let others = others.map(|presence| match before.get(&presence.id) {
            Some(known) if known.presence.beat == presence.beat => (*known).clone(),
            Some(known) => Other { presence, heard: now, known: known.known },
            None => Other { presence, heard: now, known: now },
        });
        let others = others.collect();
        state.others = others;
        state.listed = Some(now);
    }

    /// Says whether they are other ones than before.
    pub(super) fn set_addresses(&self, addresses: &[String]) -> bool {
        let mut state = self.0.write();
        let changed = *state.addresses != *addresses;
        if changed {
            state.addresses = addresses.into();
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{BEAT, presence::tests::presence},
        *,
    };

    const OWN: ReplicaId = ReplicaId::new([1; 16]);

    #[tokio::test(start_paused = true)]
    async fn who_doesnt_beat_isnt_well() {
        let roster = Roster::alone(&["a:1".into()]);
        assert!(!roster.is_fresh() && roster.others().is_empty());
        let beats = |beat| Presence { beat, draining: false, ..presence(2) };
        let known = Instant::now();
        for beat in 1..10 {
            roster.listed(OWN, vec![beats(beat), presence(1)]);
            tokio::time::advance(BEAT).await;
        }
        let others = roster.others();
        assert_eq!(others.len(), 1, "it doesn't list itself");
        assert!(others[0].is_well() && others[0].known == known);
        for _ in 0..3 {
            roster.listed(OWN, vec![beats(9)]);
            tokio::time::advance(BEAT).await;
        }
        assert!(!roster.others()[0].is_well() && roster.is_fresh());
        tokio::time::advance(SILENCE).await;
        assert!(!roster.is_fresh());
        roster.listed(OWN, vec![beats(10)]);
        assert!(roster.others()[0].is_well());
        roster.listed(OWN, vec![Presence { stale: true, ..beats(11) }]);
        assert!(!roster.others()[0].is_well());
        roster.listed(OWN, vec![]);
        assert!(roster.others().is_empty());
    }

    #[test]
    fn a_crowd_is_cut() {
        let roster = Roster::alone(&[]);
        roster.listed(OWN, (2..=200).map(presence).collect());
        assert_eq!(roster.others().len(), MAX_REPLICAS);
    }
}
