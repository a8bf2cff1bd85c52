//! What was asked for and answered, against what the store said: an answer is a promise, a refusal
//! has no effect, nothing is done twice, and one order fits all answers and real time.

use std::collections::BTreeMap;

use wattle_model::NodeId;

use crate::{
    recording::{Call, Outcome, StoreLog, Transaction, What},
    violation::{Finds, Guarantee, Violation},
    world::World,
};

/// What something said, and the revision from which it did.
type Timeline<T> = Vec<(u64, Option<T>)>;

/// The store's log as calls are judged by it.
struct Facts {
    /// At which revisions a request's answer was written, by the request's id in hex.
    requests: BTreeMap<String, Vec<u64>>,
    labels: BTreeMap<(NodeId, String), Timeline<String>>,
    policies: BTreeMap<String, Timeline<(String, String)>>,
    /// When nodes came, and when they went.
    born: BTreeMap<NodeId, u64>,
    died: BTreeMap<NodeId, u64>,
    last: u64,
}

pub(crate) fn check(log: &StoreLog, violations: &mut Vec<Violation>) {
    let (facts, calls) = (Facts::read(log, &log.calls), &log.calls);
    for (number, call) in calls.iter().enumerate() {
        let subject = format!("call {number}, {:?}, {:?}", call.what, call.outcome);
        let mut finds = Finds { subject, all: violations };
        once_or_never(call, &facts, &mut finds);
        durable(call, &facts, &mut finds);
    }
    order(calls, violations);
    reads(calls, &facts, violations);
}

impl Facts {
    fn read(log: &StoreLog, calls: &[Call]) -> Self {
        let mut facts = Self {
            requests: BTreeMap::new(),
            labels: BTreeMap::new(),
            policies: BTreeMap::new(),
            born: BTreeMap::new(),
            died: BTreeMap::new(),
            last: 0,
        };
        for call in calls {
            match &call.what {
                What::Label { node, key, .. } | What::ReadLabel { node, key } => {
                    facts.labels.entry((*node, key.clone())).or_default();
                }
                What::Policy { name, .. } => {
                    facts.policies.entry(name.clone()).or_default();
                }
                _ => {}
            }
        }
        let mut world = World::default();
        for transaction in std::iter::once(&log.first).chain(&log.transactions) {
            facts.note_requests(transaction);
            world.apply(transaction);
            facts.note(&world);
        }
        facts.last = world.revision;
        facts
    }

    fn note_requests(&mut self, transaction: &Transaction) {
        for operation in transaction.operations.iter().filter(|o| o.value.is_some()) {
            if let ["v1", "request", _, id] = operation.key.split('/').collect::<Vec<_>>()[..] {
                self.requests.entry(id.to_owned()).or_default().push(operation.modified);
            }
        }
    }

    fn note(&mut self, world: &World) {
        let at = world.revision;
        for ((node, key), timeline) in &mut self.labels {
            let labels = world.labels(*node);
            let value = labels.and_then(|labels| labels.get(key)).map(str::to_owned);
            if timeline.last().is_none_or(|(_, last)| *last != value) {
                timeline.push((at, value));
            }
        }
        for (name, timeline) in &mut self.policies {
            let policy = world.policy("default", name);
            let sides = policy.map(|policy| (policy.from.to_string(), policy.to.to_string()));
            if timeline.last().is_none_or(|(_, last)| *last != sides) {
                timeline.push((at, sides));
            }
        }
        for (node, identity) in &world.identities {
            self.born.entry(*node).or_insert(at);
            if identity.deleted_at_millis != 0 {
                self.died.entry(*node).or_insert(at);
            }
        }
    }

    fn written(&self, call: &Call) -> &[u64] {
        let id = hex::encode(&call.request);
        self.requests.get(&id).map_or(&[], Vec::as_slice)
    }
}

fn once_or_never(call: &Call, facts: &Facts, finds: &mut Finds<'_>) {
    if call.request.is_empty() {
        return;
    }
    let written = facts.written(call);
    finds.demand(Guarantee::OnceOrNever, written.len() <= 1, || {
        format!("it was carried out at the revisions {written:?}")
    });
    if matches!(call.outcome, Outcome::Refused(_)) {
        finds.demand(Guarantee::OnceOrNever, written.is_empty(), || {
            format!("it was refused, and carried out at {written:?}")
        });
    }
}

/// What was answered is in the store, at the revision that was said.
fn durable(call: &Call, facts: &Facts, finds: &mut Finds<'_>) {
    match (&call.what, &call.outcome) {
        (_, Outcome::Done(0)) => {}
        (what, Outcome::Done(revision)) => {
            let written = facts.written(call);
            finds.demand(Guarantee::Durable, written == [*revision], || {
                format!("the store says that it was carried out at {written:?}")
            });
            content(what, *revision, facts, finds);
        }
        (_, Outcome::Enrolled(node)) => {
            finds.demand(Guarantee::Durable, facts.born.contains_key(node), || {
                "the store knows no such node".into()
            });
        }
        _ => {}
    }
}

fn content(what: &What, revision: u64, facts: &Facts, finds: &mut Finds<'_>) {
    let is_so = match what {
        What::Label { node, key, value } => {
            said(&facts.labels[&(*node, key.clone())], revision) == Some(value)
        }
        What::Policy { name, sides } => said(&facts.policies[name], revision) == Some(sides),
        What::Delete(node) => facts.died.get(node) == Some(&revision),
        What::Token { .. } | What::Enrol { .. } | What::ReadLabel { .. } => true,
    };
    finds.demand(Guarantee::Durable, is_so, || {
        format!("at revision {revision} the store says something else")
    });
}

/// What was so at a revision.
fn said<T>(timeline: &[(u64, T)], revision: u64) -> Option<&T> {
    timeline.iter().rfind(|(from, _)| *from <= revision).map(|(_, said)| said)
}

/// Whoever asks after another was answered comes after them.
fn order(calls: &[Call], violations: &mut Vec<Violation>) {
    let mut done: Vec<(&Call, u64)> = calls
        .iter()
        .filter_map(|call| match call.outcome {
            Outcome::Done(revision) if revision > 0 => Some((call, revision)),
            _ => None,
        })
        .collect();
    done.sort_by_key(|(call, _)| call.begun);
    let mut ended = done.clone();
    ended.sort_by_key(|(call, _)| call.ended);
    let (mut next, mut highest) = (0, 0);
    for (call, revision) in done {
        while let Some((before, at)) = ended.get(next).filter(|(c, _)| c.ended < call.begun) {
            let _ = before;
            highest = highest.max(*at);
            next += 1;
        }
        let subject = format!("call {:?}", call.what);
        let mut finds = Finds { subject, all: violations };
        finds.demand(Guarantee::Linearizable, revision > highest, || {
            format!("revision {revision}, and one that had been answered before has {highest}")
        });
    }
}

/// What was read was so at some moment between the question and the answer.
fn reads(calls: &[Call], facts: &Facts, violations: &mut Vec<Violation>) {
    let mut asked: Vec<&Call> =
        calls.iter().filter(|call| matches!(call.outcome, Outcome::Read(_))).collect();
    asked.sort_by_key(|call| call.begun);
    // What a read has seen, none after it may unsee.
    let mut seen: BTreeMap<(NodeId, String), Vec<(u64, u64)>> = BTreeMap::new();
    for call in asked {
        let (What::ReadLabel { node, key }, Outcome::Read(value)) = (&call.what, &call.outcome)
        else {
            continue;
        };
        let of = (*node, key.clone());
        let answered = calls.iter().filter(|other| other.ended < call.begun);
        let answered = answered.filter_map(|other| match other.outcome {
            Outcome::Done(revision) => Some(revision),
            _ => None,
        });
        let before = seen.entry(of.clone()).or_default();
        let unseen = before.iter().filter(|(ended, _)| *ended < call.begun).map(|(_, at)| *at);
        let from = answered.chain(unseen).max().unwrap_or(0);
        let timeline = &facts.labels[&of];
        let until = |place: usize| timeline.get(place + 1).map_or(facts.last, |next| next.0 - 1);
        let held = timeline
            .iter()
            .enumerate()
            .find(|(place, (_, said))| said == value && until(*place) >= from);
        let mut finds = Finds { subject: format!("read of {key} of node {node}"), all: violations };
        match held {
            Some((_, (at, _))) => before.push((call.ended, (*at).max(from))),
            None => finds.find(
                Guarantee::Linearizable,
                format!("it read {value:?}, which was not so at or after revision {from}"),
            ),
        }
    }
}
