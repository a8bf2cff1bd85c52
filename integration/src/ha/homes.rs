//! Which replica an agent was connected to, and when, by its own log.

use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;

/// An agent's session began or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// When, by this machine's clock.
    pub at: Timestamp,
    /// The address it is connected to since; `None`: to nobody.
    pub to: Option<String>,
}

/// All of them, in their order.
pub fn moves(log: &str) -> Result<Vec<Move>> {
    log.lines().filter_map(parse).collect()
}

fn parse(line: &str) -> Option<Result<Move>> {
    let (when, rest) = line.split_once(' ')?;
    let to = if let Some((_, said)) = rest.split_once(": connected ") {
        let (_, address) = said.split_once("control_plane=")?;
        Some(address.split_whitespace().next()?.trim_matches('"').to_owned())
    } else if rest.contains(": disconnected;") {
        None
    } else {
        return None;
    };
    let at = when.parse().with_context(|| format!("{line}: no time"));
    Some(at.map(|at| Move { at, to }))
}

/// Where it was at a time.
pub(crate) fn home(moves: &[Move], at: Timestamp) -> Option<&str> {
    moves.iter().rfind(|one| one.at <= at)?.to.as_deref()
}

/// How long after `at` it was without a replica that answered: until it was connected to another
/// address than `from`, or to the same one anew. `None`: it never was again.
pub(crate) fn rehomed_after(moves: &[Move], at: Timestamp) -> Option<Duration> {
    let next = moves.iter().find(|one| one.at > at && one.to.is_some())?;
    Duration::try_from(next.at.duration_since(at)).ok()
}

/// Whether it lost its stream after `at`. Whoever only goes elsewhere, as its replica told it to, has the
/// other stream first, and none is lost.
pub(crate) fn cut_after(moves: &[Move], at: Timestamp) -> bool {
    moves.iter().any(|one| one.at > at && one.to.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-11-25T10:20:00.100000Z  INFO wattle_agent::app: joined the network \"default\" as n1
2026-11-25T10:20:01.000000Z  INFO session: wattle_agent::session: connected control_plane=\"192.0.2.1:7443\" replica=ab
2026-11-25T10:20:05.000000Z  INFO wattle_agent::session: disconnected; the mesh stays as it is why=\"x\"
2026-11-25T10:20:05.750000Z  INFO wattle_agent::session: connected control_plane=\"192.0.2.2:7443\" replica=cd
";

    #[test]
    fn a_log_says_where_an_agent_was() {
        let moves = moves(LOG).unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(moves.len(), 3);
        assert_eq!(home(&moves, at("2026-11-25T10:20:00.5Z")), None);
        assert_eq!(home(&moves, at("2026-11-25T10:20:02Z")), Some("192.0.2.1:7443"));
        assert_eq!(home(&moves, at("2026-11-25T10:20:05.2Z")), None);
        let fault = at("2026-11-25T10:20:04.5Z");
        assert_eq!(rehomed_after(&moves, fault), Some(Duration::from_millis(1250)));
        assert_eq!(rehomed_after(&moves, at("2026-11-25T10:20:06Z")), None);
        assert!(cut_after(&moves, fault) && !cut_after(&moves, at("2026-11-25T10:20:05.2Z")));
    }

    #[test]
    fn whoever_goes_elsewhere_in_order_lost_nothing() {
        let first = LOG.lines().nth(1).unwrap();
        let second = first.replace("10:20:01", "10:20:09").replace("192.0.2.1", "192.0.2.3");
        let moves = moves(&format!("{first}\n{second}\n")).unwrap();
        assert_eq!(moves.len(), 2);
        assert!(!cut_after(&moves, moves[0].at));
    }
}
