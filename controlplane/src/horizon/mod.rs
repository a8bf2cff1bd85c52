//! The horizon: the oldest revision from which an agent can be resumed, a day behind.
//!
//! Every hour the head is marked; the mark of a day ago becomes the horizon. It is raised in the
//! store first, and only then is anything older forgotten ([`sweep`]). Every replica does this;
//! comparisons make them agree.

mod rules;
mod sweep;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use prost::Message as _;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use wattle_model::Revision;
use wattle_proto::store as proto;
use wattle_runtime::clock::{self, unix_millis};

use self::rules::Cutoff;
use crate::store::{Key, Outcome, Store, StoreError, Transaction, keys};

const HOUR: Duration = Duration::from_secs(3600);
/// How far behind the horizon stays, and how long answered requests, dead tokens and dead
/// operators are kept.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Marks that have been made since one that is a day old: one an hour. A clock that jumps makes a single
/// one, and so counts as an hour, however far it went.
const MARKS: usize = 24;
/// How often the clock is looked at: a machine that was asleep marks soon after.
const EVERY: Duration = Duration::from_secs(300);

/// Why the horizon stays where it is, or what lies behind it stays.
#[derive(Debug, thiserror::Error)]
pub enum HorizonError {
    /// The store can't be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was raised, and not all that lies behind it is gone. The next round goes on.
    #[error("it was raised, and not everything that lies behind it was forgotten: {0}")]
    Sweep(StoreError),
    /// The record of the horizon can't be read.
    #[error("{0}: missing or malformed")]
    Malformed(Key),
}

/// Raises the horizon as time goes by, until told to end.
pub async fn keep(store: Arc<dyn Store>, end: CancellationToken) {
    let mut timer = interval(EVERY);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while end.run_until_cancelled(timer.tick()).await.is_some() {
        if let Err(error) = advance(store.as_ref(), clock::now()).await {
            tracing::warn!(%error, "the horizon is not kept as it should be");
        }
    }
}

/// Marks the head where that is due. Raises the horizon where a mark is old enough, and then
/// forgets what lies behind it.
pub async fn advance(store: &dyn Store, now: SystemTime) -> Result<Revision, HorizonError> {
    let malformed = || HorizonError::Malformed(keys::horizon());
    let stored = store.get(&keys::horizon()).await?.ok_or_else(malformed)?;
    let record = proto::Horizon::decode(stored.value.clone()).map_err(|_| malformed())?;
    let before = Revision(record.revision);
    let (next, passed) = moved(record.clone(), store.head().await?, unix_millis(now));
    if next == record {
        return Ok(before);
    }
    let horizon = Revision(next.revision);
    let raise = Transaction::default().replace(&stored, next.encode_to_vec().into());
    match store.commit(raise).await? {
        // Another replica did it.
        Outcome::Conflict => Ok(before),
        Outcome::Committed(_) => {
            // Every hour, because requests and tokens run out by the clock: by the one of a day ago,
            // which has been right for as long.
            let Some(millis) = passed else { return Ok(horizon) };
            let gone = sweep::sweep(store, Cutoff { horizon, millis }).await;
            let gone = gone.map_err(HorizonError::Sweep)?;
            tracing::debug!(%horizon, gone, "horizon kept");
            Ok(horizon)
        }
    }
}

/// The record an instant later, and when what has passed the horizon was marked. What was marked in the
/// future, by a clock that has since been set back, is dropped: the horizon then rises late. A mark
/// isn't old by the clock alone, or one that is set forward would raise it to a moment ago.
fn moved(mut record: proto::Horizon, head: Revision, now: u64) -> (proto::Horizon, Option<u64>) {
    let (hour, day) = (millis(HOUR), millis(DAY));
    record.marks.retain(|mark| mark.at_millis <= now);
    if record.marks.last().is_none_or(|mark| mark.at_millis + hour <= now) {
        record.marks.push(proto::Mark { revision: head.0, at_millis: now });
    }
    let old = record.marks.partition_point(|mark| mark.at_millis + day <= now);
    let old = old.min(record.marks.len().saturating_sub(MARKS));
    let passed = record.marks.drain(..old).next_back();
    if let Some(mark) = &passed {
        record.revision = record.revision.max(mark.revision);
    }
    (record, passed.map(|mark| mark.at_millis))
}

const fn millis(duration: Duration) -> u64 {
    duration.as_secs() * 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn hours(n: u64) -> u64 {
        1_000_000_000 + n * 3_600_000
    }

    /// What becomes of a record when it is looked at at these hours; the revision is ten times the hour.
    fn at(record: proto::Horizon, when: impl IntoIterator<Item = u64>) -> proto::Horizon {
        let look = |record, hour| moved(record, Revision(hour * 10), hours(hour)).0;
        when.into_iter().fold(record, look)
    }

    #[test]
    fn it_stays_a_day_behind_and_its_marks_are_few() {
        let mut record = proto::Horizon::default();
        for hour in 0..100 {
            // Ten revisions an hour; looked at more often than there is something to mark.
            for minute in [0, 20, 40] {
                let now = hours(hour) + minute * 60_000;
                record = moved(record, Revision(hour * 10), now).0;
            }
            let expected = hour.checked_sub(24).map_or(0, |behind| behind * 10);
            assert_eq!(record.revision, expected, "after {hour} hours");
            assert!(record.marks.len() <= 25);
        }
    }

    #[test]
    fn a_clock_set_back_raises_nothing_early() {
        let record = at(proto::Horizon::default(), [50, 10]);
        assert_eq!(record.marks.len(), 1, "the mark from the future is dropped");
        let record = at(record, 11..34);
        assert_eq!(record.revision, 0);
        assert_eq!(at(record, [34]).revision, 100);
    }

    #[test]
    fn a_clock_set_forward_raises_nothing_but_an_hour() {
        let record = at(proto::Horizon::default(), 0..=30);
        assert_eq!(record.revision, 60);
        // By a month, for three hours, and back.
        let ahead = at(record.clone(), [750]);
        assert_eq!(ahead.revision, 70);
        let ahead = at(ahead, 751..753);
        assert_eq!(ahead.revision, 90, "hour by hour, as ever");
        let back = at(ahead, [33]);
        assert_eq!((back.revision, back.marks.len()), (90, 22));
        let later = at(back, 34..=36);
        assert_eq!(later.revision, 100, "two hours late: it was early by so many");
    }

    #[test]
    fn a_long_sleep_is_an_hour() {
        let record = at(proto::Horizon::default(), [0, 1, 500]);
        assert_eq!((record.revision, record.marks.len()), (0, 3));
        assert_eq!(at(record, 501..=523).revision, 10);
    }

    #[test]
    fn what_runs_out_by_the_clock_goes_by_the_clock_of_a_day_ago() {
        let record = at(proto::Horizon::default(), 0..=30);
        let (_, passed) = moved(record.clone(), Revision(310), hours(31));
        assert_eq!(passed, Some(hours(7)));
        let (_, passed) = moved(record.clone(), Revision(310), hours(750));
        assert_eq!(passed, Some(hours(7)), "it hasn't been a month");
        assert_eq!(moved(record, Revision(310), hours(30)).1, None);
    }
}
