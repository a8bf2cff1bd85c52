//! Small pieces of text: ids, addresses and times of messages as people and programs read them.

use std::{
    fmt::Display,
    time::{Duration, SystemTime},
};

use prost_types::Timestamp;
use wattle_model::{Endpoint, PublicKey, address_from_bytes};
use wattle_proto::{Invalid as _, InvalidField};

/// Lower-case hex, whatever the length.
pub(crate) fn id(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

/// An address; `None` where there is none.
pub(crate) fn address(field: &'static str, bytes: &[u8]) -> Result<Option<String>, InvalidField> {
    if bytes.is_empty() {
        return Ok(None);
    }
    address_from_bytes(bytes).map(|address| Some(address.to_string())).field(field)
}

/// A public key, as `wg` shows it.
pub(crate) fn public_key(field: &'static str, bytes: &[u8]) -> Result<String, InvalidField> {
    PublicKey::try_from(bytes).map(|key| key.to_string()).field(field)
}

/// An endpoint.
pub(crate) fn endpoint(field: &'static str, bytes: &[u8]) -> Result<String, InvalidField> {
    Endpoint::try_from(bytes).map(|endpoint| endpoint.to_string()).field(field)
}

/// RFC 3339 in UTC, to the millisecond; `None` where there is none.
pub(crate) fn time(
    field: &'static str,
    time: Option<&Timestamp>,
) -> Result<Option<String>, InvalidField> {
    let Some(time) = time else { return Ok(None) };
    let time = jiff::Timestamp::new(time.seconds, time.nanos).field(field)?;
    Ok(Some(format!("{time:.3}")))
}

/// Whether a moment has passed; none never does.
pub(crate) fn has_passed(time: Option<&Timestamp>, now: SystemTime) -> bool {
    time.is_some_and(|time| SystemTime::try_from(*time).is_ok_and(|time| time <= now))
}

/// How long ago something was, to two units; "-" where it is unknown.
pub(crate) fn ago(time: Option<&Timestamp>, now: SystemTime) -> String {
    let time = time.and_then(|time| SystemTime::try_from(*time).ok());
    time.map_or_else(|| "-".into(), |time| rough(now.duration_since(time).unwrap_or_default()))
}

/// How long until something is, to two units; "-" where it is never.
pub(crate) fn until(time: Option<&Timestamp>, now: SystemTime) -> String {
    let time = time.and_then(|time| SystemTime::try_from(*time).ok());
    time.map_or_else(|| "-".into(), |time| rough(time.duration_since(now).unwrap_or_default()))
}

/// A duration for people: two units at the most, milliseconds only below a second.
pub(crate) fn rough(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes, seconds) {
        (0, 0, 0, 0) => format!("{millis}ms"),
        (0, 0, 0, _) => format!("{seconds}s"),
        (0, 0, _, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _, _) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

/// A duration as people write it and read it again: `30d`, `36h`, `90s`.
pub(crate) fn exact(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let whole = units.into_iter().find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit));
    let (unit, name) = whole.unwrap_or((1, "s"));
    format!("{}{name}", seconds / unit)
}

/// A duration such as `90s`, `24h` or `7days`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}: write 90s, 24h or 7days"))
}

/// A duration as requests carry it; one too long for a message is the control plane's to refuse.
pub(crate) fn duration_message(duration: Duration) -> prost_types::Duration {
    const MOST: prost_types::Duration = prost_types::Duration { seconds: i64::MAX, nanos: 0 };
    prost_types::Duration::try_from(duration).unwrap_or(MOST)
}

/// A duration of a message; `None` where it is absent or negative.
pub(crate) fn duration(duration: Option<&prost_types::Duration>) -> Option<Duration> {
    duration.and_then(|duration| Duration::try_from(*duration).ok())
}

/// As much of a number as fits; what it measures is never that large.
pub(crate) fn whole(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// A count for people: `9,998`.
pub(crate) fn count(number: impl Into<u64>) -> String {
    let digits = number.into().to_string();
    let first = digits.len() % 3;
    let (head, tail) = digits.split_at(first);
    let thousands = (0..tail.len()).step_by(3).map(|at| &tail[at..at + 3]);
    let groups: Vec<_> =
        Some(head).filter(|head| !head.is_empty()).into_iter().chain(thousands).collect();
    groups.join(",")
}

/// The text, or a dash where it is empty: a table has no empty cells.
pub(crate) fn or_dash(text: impl Display) -> String {
    let text = text.to_string();
    if text.is_empty() { "-".into() } else { text }
}

/// An empty text is nothing.
pub(crate) fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Labels as selectors and `--label` write them.
pub(crate) fn labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let pairs = labels.into_iter().map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_two_units() {
        for (millis, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (59_000, "59s"),
            (61_000, "1m1s"),
            (3_600_000, "1h0m"),
            (90_000_000, "1d1h"),
        ] {
            assert_eq!(rough(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn durations_written_exactly_are_read_as_the_same() {
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (5400, "90m"), (129_600, "36h"), (2_592_000, "30d")]
        {
            let duration = Duration::from_secs(seconds);
            assert_eq!(exact(duration), text);
            assert_eq!(parse_duration(text), Ok(duration));
        }
    }

    #[test]
    fn counts_have_thousands() {
        for (number, text) in
            [(0_u64, "0"), (12, "12"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn times_are_rfc_3339() {
        let moment = Timestamp { seconds: 1_700_000_000, nanos: 5_000_000 };
        let text = time("at", Some(&moment)).unwrap();
        assert_eq!(text.as_deref(), Some("2023-11-14T22:13:20.005Z"));
        let bad = Timestamp { seconds: i64::MAX, nanos: 0 };
        assert!(time("at", Some(&bad)).unwrap_err().to_string().starts_with("at: "));
    }

    #[test]
    fn a_moment_passes() {
        let moment = Timestamp { seconds: 100, nanos: 0 };
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(!has_passed(Some(&moment), at(99)) && has_passed(Some(&moment), at(100)));
        assert!(!has_passed(None, at(100)));
        assert_eq!(
            (until(Some(&moment), at(40)), ago(Some(&moment), at(40))),
            ("1m0s".into(), "0ms".into())
        );
    }
}
