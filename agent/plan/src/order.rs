//! The order in which prefixes move between peers, right for a kernel and for a userspace device.
//!
//! Setting a prefix takes it from whoever had it: atomically in a kernel; in gotatun only from the
//! routing table, while the former owner's own list keeps it and *any* later update of that peer
//! takes the prefix back. So each prefix is set on its final owner first, and each former owner is
//! then rewritten with its full list, before anything else is done to it. In a cycle somebody must
//! begin: one peer is given its new prefixes while it still has its old ones, and is rewritten last.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use ipnet::IpNet;
use wattle_model::PublicKey;

use crate::{ObservedPeer, Prefixes};

/// How one peer's prefixes change.
#[derive(Debug)]
pub(crate) struct Move {
    /// All it shall have.
    full: BTreeSet<IpNet>,
    /// What it doesn't have yet, or not alone.
    gains: Vec<IpNet>,
    /// What it has and shall not keep.
    loses: Vec<IpNet>,
}

impl Move {
    /// `None` where the peer has what it should.
    pub(crate) fn between(
        key: PublicKey,
        full: &BTreeSet<IpNet>,
        observed: Option<&ObservedPeer>,
        owners: &HashMap<IpNet, Vec<PublicKey>>,
    ) -> Option<Self> {
        let alone = |prefix: &IpNet| owners.get(prefix).is_some_and(|keys| keys == &[key]);
        let gains: Vec<IpNet> = full.iter().copied().filter(|prefix| !alone(prefix)).collect();
        let loses: Vec<IpNet> = observed
            .map(|peer| peer.allowed_ips.difference(full).copied().collect())
            .unwrap_or_default();
        let changes = !gains.is_empty() || !loses.is_empty();
        changes.then(|| Self { full: full.clone(), gains, loses })
    }

    /// What a peer that nobody describes has left once the claimed prefixes are gone.
    pub(crate) fn robbed(observed: &ObservedPeer, claimed: &BTreeSet<IpNet>) -> Option<Self> {
        let (loses, full): (Vec<IpNet>, Vec<IpNet>) =
            observed.allowed_ips.iter().partition(|prefix| claimed.contains(*prefix));
        (!loses.is_empty()).then(|| Self { full: full.into_iter().collect(), gains: vec![], loses })
    }

    /// The whole move at once.
    fn whole(&self) -> Prefixes {
        if self.loses.is_empty() {
            Prefixes::Add(self.gains.clone())
        } else {
            Prefixes::Replace(self.full.iter().copied().collect())
        }
    }

    /// The gains only, to break a cycle: what others shall take stays until they take it. What they
    /// already took must go now, or a userspace device would take it back.
    fn first_half(&self, taken: &BTreeSet<IpNet>) -> Prefixes {
        if self.loses.iter().any(|prefix| taken.contains(prefix)) {
            let left = self.loses.iter().filter(|prefix| !taken.contains(*prefix));
            Prefixes::Replace(self.full.iter().chain(left).copied().collect())
        } else {
            Prefixes::Add(self.gains.clone())
        }
    }
}

/// One operation of a move.
pub(crate) struct Step {
    pub(crate) key: PublicKey,
    pub(crate) prefixes: Prefixes,
}

/// The moves as steps: a peer comes after all who gain what it loses. One step a peer, and one
/// more for each cycle.
pub(crate) fn in_order(mut moves: BTreeMap<PublicKey, Move>) -> Vec<Step> {
    let mut waiting = Waiting::new(&moves);
    let mut taken = BTreeSet::new();
    let mut steps = Vec::with_capacity(moves.len());
    loop {
        while let Some(key) = waiting.ready.pop_front() {
            let Some(change) = moves.remove(&key) else { continue };
            steps.push(Step { key, prefixes: change.whole() });
            taken.extend(change.gains);
            waiting.gained(key);
        }
        let Some(first) = moves.keys().next() else { return steps };
        let key = waiting.on_a_cycle(*first);
        let change = moves.get(&key).expect("whoever is waited for hasn't moved yet");
        steps.push(Step { key, prefixes: change.first_half(&taken) });
        taken.extend(change.gains.iter().copied());
        waiting.gained(key);
    }
}

/// Who waits for whom.
struct Waiting {
    /// Peers that nobody has to come before, lowest key first.
    ready: VecDeque<PublicKey>,
    /// Loser → gainers that have not gained yet.
    before: HashMap<PublicKey, BTreeSet<PublicKey>>,
    /// Gainer → losers that wait for it.
    after: HashMap<PublicKey, BTreeSet<PublicKey>>,
}

impl Waiting {
    fn new(moves: &BTreeMap<PublicKey, Move>) -> Self {
        let gainer: HashMap<IpNet, PublicKey> = moves
            .iter()
            .flat_map(|(key, change)| change.gains.iter().map(|prefix| (*prefix, *key)))
            .collect();
        let mut waiting =
            Self { ready: VecDeque::new(), before: HashMap::new(), after: HashMap::new() };
        for (loser, change) in moves {
            let gainers: BTreeSet<PublicKey> =
                change.loses.iter().filter_map(|prefix| gainer.get(prefix)).copied().collect();
            if gainers.is_empty() {
                waiting.ready.push_back(*loser);
                continue;
            }
            for gainer in &gainers {
                waiting.after.entry(*gainer).or_default().insert(*loser);
            }
            waiting.before.insert(*loser, gainers);
        }
        waiting
    }

    /// `key` has its new prefixes: whoever only waited for that is ready.
    fn gained(&mut self, key: PublicKey) {
        for loser in self.after.remove(&key).unwrap_or_default() {
            if let Some(gainers) = self.before.get_mut(&loser) {
                gainers.remove(&key);
                if gainers.is_empty() {
                    self.before.remove(&loser);
                    self.ready.push_back(loser);
                }
            }
        }
    }

    /// Follows the waiting from `start` until a peer comes again: that one is on a cycle. Nobody is
    /// ready, so everybody left waits for somebody left.
    fn on_a_cycle(&self, start: PublicKey) -> PublicKey {
        let mut seen = BTreeSet::new();
        let mut key = start;
        while seen.insert(key) {
            let Some(next) = self.before.get(&key).and_then(|gainers| gainers.first()) else {
                break;
            };
            key = *next;
        }
        key
    }
}
