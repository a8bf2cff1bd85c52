//! Keeping a fair share of the agents. A replica with more than a tenth over the average tells some
//! of its agents, slowly, to go to one that has room; make-before-break, so they miss nothing. It does
//! so only while all replicas are well: an odd moment is none to move agents in.

use std::time::Duration;

use rand::RngExt as _;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Other, Replicas};

/// How often the share is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// One in so many of a replica's agents may be told to go each time: 2 %.
const PART: u32 = 50;
/// A replica that has just come is given the time to be reached by everybody.
const SETTLED: Duration = Duration::from_secs(5);

/// Another replica, as far as this matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    sessions: u32,
    well: bool,
}

impl Replicas {
    /// Sheds what is over the share, until told to end.
    pub(super) async fn keep_share(self, end: CancellationToken) {
        let mut timer = interval(EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while end.run_until_cancelled(timer.tick()).await.is_some() {
            self.shed();
        }
    }

    fn shed(&self) {
        let replica = self.own();
        let roster = self.roster();
        let well = roster.is_fresh()
            && replica.live.is_ready()
            && !replica.live.is_stale()
            && !self.0.draining.is_cancelled();
        if !well {
            return;
        }
        let (others, now) = (roster.others(), Instant::now());
        let share = |other: &Other| Share {
            sessions: other.presence.sessions,
            well: other.is_well() && now - other.known >= SETTLED,
        };
        let shares: Vec<_> = others.iter().map(share).collect();
        let own = u32::try_from(self.sessions().online()).unwrap_or(u32::MAX);
        let leaving = u32::try_from(self.sessions().leaving()).unwrap_or(u32::MAX);
        let count = excess(own, leaving, &shares);
        if count == 0 {
            return;
        }
        let rooms = rooms(own, &shares);
        let shed = self.sessions().shed(count as usize, || preferred(&others, &rooms));
        tracing::debug!(shed, own, "agents are sent to other replicas");
    }
}

/// How many agents to tell now. `leaving` were told and are still here.
fn excess(own: u32, leaving: u32, others: &[Share]) -> u32 {
    if others.is_empty() || others.iter().any(|other| !other.well) {
        return 0;
    }
    let total = u64::from(own) + others.iter().map(|other| u64::from(other.sessions)).sum::<u64>();
    let most = (total * 11).div_ceil(10 * (others.len() as u64 + 1));
    let over = u64::from(own.saturating_sub(leaving)).saturating_sub(most);
    u32::try_from(over).unwrap_or(u32::MAX).min((own / PART).max(1))
}

/// How many agents each other replica has too few for an even share.
fn rooms(own: u32, others: &[Share]) -> Vec<u32> {
    let total = u64::from(own) + others.iter().map(|other| u64::from(other.sessions)).sum::<u64>();
    let even = u32::try_from(total / (others.len() as u64 + 1)).unwrap_or(u32::MAX);
    others.iter().map(|other| even.saturating_sub(other.sessions)).collect()
}

/// Addresses of the replica that an agent should go to: at random, the more likely the more room it
/// has.
fn preferred(others: &[Other], rooms: &[u32]) -> Vec<String> {
    let all: u64 = rooms.iter().copied().map(u64::from).sum();
    if all == 0 {
        return Vec::new();
    }
    let mut draw = rand::rng().random_range(0..all);
    for (other, room) in others.iter().zip(rooms) {
        match draw.checked_sub(u64::from(*room)) {
            Some(rest) => draw = rest,
            None => return other.presence.addresses.clone(),
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::{super::presence::tests::presence, *};

    fn shares(sessions: &[u32]) -> Vec<Share> {
        sessions.iter().map(|sessions| Share { sessions: *sessions, well: true }).collect()
    }

    #[test]
    fn who_is_within_a_tenth_of_the_average_sheds_nobody() {
        assert_eq!(excess(110, 0, &shares(&[100, 90])), 0);
        assert_eq!(excess(111, 0, &shares(&[99, 90])), 1);
        assert_eq!(excess(300, 0, &shares(&[0, 0])), 6, "two of a hundred at a time");
        assert_eq!(excess(300, 188, &shares(&[0, 0])), 2, "others are on their way");
        assert_eq!(excess(300, 190, &shares(&[0, 0])), 0);
        assert_eq!(excess(1, 0, &shares(&[0, 0])), 0, "somebody has to have the last one");
        assert_eq!(excess(2, 0, &shares(&[0])), 0);
        assert_eq!(excess(3, 0, &shares(&[0])), 1);
        assert_eq!(excess(1000, 0, &[]), 0, "alone");
    }

    #[test]
    fn nobody_is_moved_while_anybody_isnt_well() {
        let mut others = shares(&[0, 0]);
        others[1].well = false;
        assert_eq!(excess(300, 0, &others), 0);
    }

    /// Each sheds by what it knows of the others, which is two seconds old.
    #[test]
    fn replicas_come_within_the_bound_and_stay_there() {
        for begin in [[9000, 0, 0], [5000, 4000, 0], [3, 3, 0], [10, 0, 0], [3301, 3300, 2400]] {
            let mut now: [u32; 3] = begin;
            let (mut told, mut moved) = (now, 0);
            let total: u32 = now.iter().sum();
            let most = (total * 11).div_ceil(30);
            for second in 0..400 {
                if second % 2 == 0 {
                    told = now;
                }
                let mut next = now;
                for own in 0..3 {
                    let others: Vec<_> = (0..3).filter(|other| *other != own).collect();
                    let known: Vec<_> = others.iter().map(|other| told[*other]).collect();
                    let count = excess(now[own], 0, &shares(&known));
                    let rooms = rooms(now[own], &shares(&known));
                    for n in 0..count {
                        // The one with more room, as the draw mostly has it.
                        let to = if rooms[0] >= rooms[1] { others[0] } else { others[1] };
                        next[own] -= 1;
                        next[to] += 1;
                        moved += 1;
                        assert!(n < 10_000);
                    }
                }
                now = next;
                if second > 300 {
                    assert!(now.iter().all(|one| *one <= most), "{begin:?} became {now:?}");
                }
            }
            let needed: u32 = begin.iter().map(|one| one.saturating_sub(most)).sum();
            assert!(moved <= needed + needed / 4 + 2, "{begin:?}: {moved} moved for {needed}");
        }
    }

    #[test]
    fn whoever_has_room_is_preferred() {
        let other = |n| {
            let now = Instant::now();
            Other { presence: presence(n), heard: now, known: now }
        };
        let others = [other(2), other(3)];
        assert_eq!(rooms(300, &shares(&[0, 90])), [130, 40]);
        for _ in 0..50 {
            assert_eq!(preferred(&others, &[0, 5]), ["192.0.2.3:7443"]);
        }
        assert!(preferred(&others, &[0, 0]).is_empty());
    }
}
