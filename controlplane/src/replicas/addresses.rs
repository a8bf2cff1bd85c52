//! Where agents reach the control plane: every replica's addresses, in the order in which they
//! came, which is kept in the store. All replicas so tell agents the same, a restart with the same
//! addresses changes nothing, and no agent is sent a config for it.

use std::time::{Duration, SystemTime};

use prost::Message as _;
use wattle_proto::store::{self as proto, Address};
use wattle_runtime::clock::unix_millis;

use crate::store::{Outcome, Store, StoreError, Transaction, keys};

/// How long an address stays after its replica has gone.
const KEPT: Duration = Duration::from_secs(3600);
/// How old the record of an address may grow before it is written again.
const NOTED_EVERY: Duration = Duration::from_secs(600);
/// Addresses at the most: agents keep them all. Past it a new one isn't told.
const MAX_ADDRESSES: usize = 128;
/// Replicas that start together write the record one after the other.
const ATTEMPTS: usize = 8;

/// Brings the record up to date with the addresses that replicas have now, and says what it lists.
pub(super) async fn keep(
    store: &dyn Store,
    present: &[String],
    now: SystemTime,
) -> Result<Vec<String>, StoreError> {
    let key = keys::addresses_of_replicas();
    for _ in 0..ATTEMPTS {
        let stored = store.get(&key).await?;
        let record = match &stored {
            // What can't be read says nothing, and is written anew.
            Some(stored) => proto::Addresses::decode(stored.value.clone()).unwrap_or_default(),
            None => proto::Addresses::default(),
        };
        let next = renewed(record.clone(), present, unix_millis(now));
        let listed = next.addresses.iter().map(|known| known.address.clone()).collect();
        if next == record {
            return Ok(listed);
        }
        let transaction = Transaction::default()
            .as_read(key.clone(), stored.as_ref())
            .put(key.clone(), next.encode_to_vec().into());
        if let Outcome::Committed(_) = store.commit(transaction).await? {
            return Ok(listed);
        }
    }
    Err(StoreError::Unavailable(format!("{key} changes all the time")))
}

/// The record an instant later. What was seen in the future, by another replica's clock or by one that
/// has since been set back, is left as it is while the replica is there: two that disagree would write
/// it by turns for ever.
fn renewed(mut record: proto::Addresses, present: &[String], now: u64) -> proto::Addresses {
    record.addresses.retain_mut(|known| {
        if !present.contains(&known.address) {
            return now.abs_diff(known.seen_at_millis) < millis(KEPT);
        }
        if now.saturating_sub(known.seen_at_millis) >= millis(NOTED_EVERY) {
            known.seen_at_millis = now;
        }
        true
    });
    for address in present {
        let known = record.addresses.iter().any(|known| known.address == *address);
        if !known && record.addresses.len() < MAX_ADDRESSES {
            record.addresses.push(Address { address: address.clone(), seen_at_millis: now });
        }
    }
    record
}

const fn millis(duration: Duration) -> u64 {
    duration.as_secs() * 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    fn texts(record: &proto::Addresses) -> Vec<&str> {
        record.addresses.iter().map(|known| known.address.as_str()).collect()
    }

    fn present(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_replica_that_comes_back_within_the_hour_changes_nothing() {
        let mut now = 1_000_000 * MINUTE;
        let first = renewed(proto::Addresses::default(), &present(&["b", "a"]), now);
        assert_eq!(texts(&first), ["b", "a"], "in the order in which they came");
        let mut record = renewed(first, &present(&["a", "c"]), now + MINUTE);
        assert_eq!(texts(&record), ["b", "a", "c"]);
        // Beats of those who are left.
        for _ in 0..58 {
            now += MINUTE;
            record = renewed(record, &present(&["a", "c"]), now);
            assert_eq!(texts(&record), ["b", "a", "c"]);
        }
        let back = renewed(record.clone(), &present(&["a", "b", "c"]), now);
        assert_eq!(texts(&back), ["b", "a", "c"]);
        for _ in 0..20 {
            now += MINUTE;
            record = renewed(record, &present(&["a", "c"]), now);
        }
        assert_eq!(texts(&record), ["a", "c"], "an hour is over");
    }

    #[test]
    fn a_beat_writes_nothing_new_for_minutes_and_the_list_is_bounded() {
        let now = 1_000_000 * MINUTE;
        let first = renewed(proto::Addresses::default(), &present(&["a"]), now);
        assert_eq!(renewed(first.clone(), &present(&["a"]), now + 9 * MINUTE), first);
        assert_ne!(renewed(first.clone(), &present(&["a"]), now + 10 * MINUTE), first);
        let crowd: Vec<_> = (0..1000).map(|n| n.to_string()).collect();
        assert_eq!(renewed(first, &crowd, now).addresses.len(), MAX_ADDRESSES);
    }

    /// Each looks every two seconds.
    #[test]
    fn replicas_whose_clocks_differ_come_to_rest() {
        for apart in [9, 11, 59, 61, 60 * 24 * 400] {
            let (now, both) = (1_000_000 * MINUTE, present(&["a", "b"]));
            let mut record = renewed(proto::Addresses::default(), &both, now);
            let mut written = 0;
            for second in (0..600).step_by(2) {
                for clock in [now, now + apart * MINUTE] {
                    let next = renewed(record.clone(), &both, clock + second * 1000);
                    written += u64::from(next != record);
                    record = next;
                }
            }
            assert!(written <= 2, "{apart} minutes apart: written {written} times in ten minutes");
            assert_eq!(texts(&record), ["a", "b"]);
        }
    }

    #[test]
    fn a_clock_set_back_forgets_nobody_who_is_there() {
        let now = 1_000_000 * MINUTE;
        let ahead = renewed(proto::Addresses::default(), &present(&["a"]), now + 600 * MINUTE);
        assert_eq!(texts(&renewed(ahead, &present(&["a"]), now)), ["a"]);
    }
}
