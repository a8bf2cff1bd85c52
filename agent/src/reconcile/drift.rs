//! What somebody else changed on the device: named, counted, and said at WARN, but not more often
//! than a person reads.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;
use wattle_plan::{Observed, Op, Prefixes, Repaired, RuleKind, SetPeer};

/// How often it is said at most; what isn't is counted.
const SAID: Duration = Duration::from_secs(10);
/// How many faults are named at once.
const NAMED: usize = 5;
/// While somebody keeps changing the device it is repaired once a second.
const CONTESTED: Duration = Duration::from_secs(10);

/// How often each kind of thing was put right since the agent started.
pub(crate) type Repairs = BTreeMap<&'static str, u64>;

/// Something that wasn't as it was left.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    kind: &'static str,
    text: String,
}

/// Keeps count.
#[derive(Debug, Default)]
pub(super) struct Drift {
    repairs: Repairs,
    said: Option<Instant>,
    unsaid: usize,
    last: Option<Instant>,
}

impl Drift {
    /// Takes note of what is being put right; the counts, if that was anything.
    pub(super) fn note(&mut self, interface: &str, faults: &[Fault]) -> Option<Repairs> {
        if faults.is_empty() {
            return None;
        }
        let now = Instant::now();
        self.last = Some(now);
        for fault in faults {
            *self.repairs.entry(fault.kind).or_default() += 1;
        }
        if self.said.is_some_and(|said| now - said < SAID) {
            self.unsaid += faults.len();
        } else {
            tracing::warn!(
                interface,
                unsaid = self.unsaid,
                "somebody changed the interface, it is put right: {}",
                sentence(faults)
            );
            (self.said, self.unsaid) = (Some(now), 0);
        }
        Some(self.repairs.clone())
    }

    /// Whether something was put right lately.
    pub(super) fn is_contested(&self) -> bool {
        self.last.is_some_and(|last| last.elapsed() < CONTESTED)
    }
}

fn sentence(faults: &[Fault]) -> String {
    let named: Vec<&str> = faults.iter().take(NAMED).map(|fault| &*fault.text).collect();
    let more = faults.len().saturating_sub(NAMED);
    let named = named.join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}

/// What was wrong on a device that had been right, as its repair tells.
pub(super) fn faults(observed: &Observed, ops: &[Op]) -> Vec<Fault> {
    let repaired = observed.repaired.iter().map(|repaired| match repaired {
        Repaired::Link => Fault::new("link", "the link was gone".into()),
        Repaired::PrivateKey => Fault::new("key", "the link had another private key".into()),
    });
    let repaired: Vec<Fault> = repaired.collect();
    if observed.repaired.contains(&Repaired::Link) {
        // All that was on it went with it.
        return repaired;
    }
    repaired.into_iter().chain(ops.iter().filter_map(|op| fault(observed, op))).collect()
}

impl Fault {
    const fn new(kind: &'static str, text: String) -> Self {
        Self { kind, text }
    }
}

fn fault(observed: &Observed, op: &Op) -> Option<Fault> {
    Some(match op {
        Op::SetMtu(mtu) => {
            Fault::new("mtu", format!("the MTU was {} instead of {mtu}", observed.mtu))
        }
        Op::SetListenPort(port) => {
            Fault::new("port", format!("the port was {} instead of {port}", observed.listen_port))
        }
        Op::SetMark(mark) => {
            Fault::new("mark", format!("the mark was {:#x} instead of {mark:#x}", observed.mark))
        }
        Op::SetUp => Fault::new("state", "the link was down".into()),
        Op::AddAddress(net) => Fault::new("address", format!("address {net} was missing")),
        Op::RemoveAddress(net) => Fault::new("address", format!("address {net} was there")),
        Op::AddRoute(to) => {
            Fault::new("route", format!("the route to {} was missing", to.destination))
        }
        Op::RemoveRoute(to) => {
            Fault::new("route", format!("a route to {} was there", to.destination))
        }
        Op::AddRule(rule) => Fault::new("rule", format!("{} was missing", rule_name(rule.kind))),
        Op::RemoveRule(rule) => Fault::new("rule", format!("{} was there", rule_name(rule.kind))),
        Op::RemovePeer { key } => Fault::new("peer", format!("peer {key} was there")),
        Op::SetPeer(set) => return peer_fault(set),
    })
}

const fn rule_name(kind: RuleKind) -> &'static str {
    match kind {
        RuleKind::MainFirst => "the rule for the main table",
        RuleKind::OwnUnlessMarked => "the rule for the interface's own table",
    }
}

/// An endpoint alone is no fault: the plan chooses another when one doesn't answer.
fn peer_fault(set: &SetPeer) -> Option<Fault> {
    let what = if set.create {
        "was missing"
    } else if set.prefixes != Prefixes::Keep {
        "had other addresses"
    } else if set.preshared.is_some() {
        "had another preshared key"
    } else if set.keepalive.is_some() {
        "had another keepalive"
    } else {
        return None;
    };
    Some(Fault::new("peer", format!("peer {} {what}", set.key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_was_gone_says_it_all() {
        let repaired = vec![Repaired::Link];
        let observed = Observed { repaired, mtu: 1420, ..Observed::default() };
        let found = faults(&observed, &[Op::SetUp, Op::SetMtu(1420)]);
        assert_eq!(sentence(&found), "the link was gone");
    }

    #[test]
    fn few_are_named_and_all_are_counted() {
        let observed = Observed { mtu: 9000, ..Observed::default() };
        let ops: Vec<Op> = (0..8).map(|_| Op::SetMtu(1420)).collect();
        let found = faults(&observed, &ops);
        let said = sentence(&found);
        assert!(said.starts_with("the MTU was 9000 instead of 1420, "), "{said}");
        assert!(said.ends_with(" and 3 more"), "{said}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _inside = runtime.enter();
        assert_eq!(Drift::default().note("wattle0", &found), Some([("mtu", 8)].into()));
    }
}
