//! A checker that finds nothing is worth nothing: each guarantee is broken once, in a recording that
//! is otherwise right, and has to be found.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod story;

use bytes::Bytes;
use wattle_checker::{Guarantee, Heard, Operation, Outcome, Recording, What, check};

use crate::story::{Story, node};

/// Breaks a recording in one way.
fn broken(guarantee: Guarantee, by: impl FnOnce(&mut Recording)) {
    let mut recording = Story::told();
    by(&mut recording);
    let found = check(&recording);
    let named: Vec<_> = found.iter().map(|violation| violation.guarantee).collect();
    assert!(named.contains(&guarantee), "{guarantee:?} isn't among {found:#?}");
}

/// The batches of the first agent.
fn batch(recording: &mut Recording, number: usize) -> &mut Heard {
    let heard = recording.agents[0].heard.iter_mut();
    heard.filter(|heard| matches!(heard, Heard::Batch { .. })).nth(number).unwrap()
}

fn call(recording: &mut Recording, place: usize) -> &mut wattle_checker::Call {
    let log = recording.stores.values_mut().next().unwrap();
    &mut log.calls[place]
}

fn transactions(recording: &mut Recording) -> &mut Vec<wattle_checker::Transaction> {
    &mut recording.stores.values_mut().next().unwrap().transactions
}

#[test]
fn what_is_right_is_found_right() {
    assert_eq!(check(&Story::told()), []);
}

#[test]
fn a_revision_that_goes_back() {
    broken(Guarantee::Ordered, |recording| {
        let last = recording.agents[0].heard.len() - 1;
        let early = batch(recording, 0).clone();
        recording.agents[0].heard.insert(last, early);
    });
}

#[test]
fn a_batch_that_comes_twice() {
    broken(Guarantee::Unique, |recording| {
        let again = batch(recording, 1).clone();
        let place = recording.agents[0].heard.iter().position(|heard| *heard == again).unwrap();
        recording.agents[0].heard.insert(place, again);
    });
}

#[test]
fn an_entry_that_comes_again_later() {
    broken(Guarantee::Unique, |recording| {
        let Heard::Batch { changes, .. } = batch(recording, 0).clone() else { panic!() };
        let Heard::Batch { changes: later, .. } = batch(recording, 2) else { panic!() };
        later.extend(changes);
    });
}

#[test]
fn half_a_transaction() {
    broken(Guarantee::Reliable, |recording| {
        let Heard::Batch { changes, .. } = batch(recording, 0) else { panic!() };
        changes.pop();
    });
}

#[test]
fn another_entry_than_the_stores() {
    broken(Guarantee::Atomic, |recording| {
        let Heard::Batch { changes, .. } = batch(recording, 2) else { panic!() };
        changes[0].1 = Some(Story::entry(node(1), 99));
    });
}

#[test]
fn a_lost_removal() {
    broken(Guarantee::Reliable, |recording| {
        for heard in &mut recording.agents[0].heard {
            if let Heard::Batch { changes, .. } = heard {
                changes.retain(|(_, entry)| entry.is_some());
            }
        }
    });
}

/// Whoever is told that nothing has changed believes it.
#[test]
fn a_heartbeat_past_a_change() {
    broken(Guarantee::Reliable, |recording| {
        let place = recording.agents[0].heard.len() - 1;
        let heard = recording.agents[0].heard.remove(place);
        let Heard::Batch { revision, digest, .. } = heard else { panic!() };
        recording.agents[0].heard.push(Heard::Heartbeat { revision, digest });
    });
}

#[test]
fn a_digest_of_something_else() {
    broken(Guarantee::Digest, |recording| {
        let Heard::Batch { digest, .. } = batch(recording, 1) else { panic!() };
        *digest = Bytes::from_static(&[7; 16]);
    });
}

#[test]
fn a_second_full_set() {
    broken(Guarantee::Resumable, |recording| {
        for heard in &mut recording.agents[0].heard {
            if let Heard::Welcome { full_set, .. } = heard {
                *full_set = true;
            }
        }
    });
}

#[test]
fn a_resume_from_elsewhere() {
    broken(Guarantee::Resumable, |recording| {
        for heard in &mut recording.agents[0].heard {
            if let Heard::Welcome { from, full_set: false, .. } = heard {
                *from -= 1;
            }
        }
    });
}

#[test]
fn an_answer_that_isnt_in_the_store() {
    broken(Guarantee::Durable, |recording| {
        transactions(recording).pop();
    });
    broken(Guarantee::Durable, |recording| {
        let What::Label { value, .. } = &mut call(recording, 0).what else { panic!() };
        *value = Some("other".into());
    });
    broken(Guarantee::Durable, |recording| {
        call(recording, 3).outcome = Outcome::Enrolled(node(77));
    });
}

#[test]
fn a_refusal_that_was_carried_out() {
    broken(Guarantee::OnceOrNever, |recording| {
        call(recording, 0).outcome = Outcome::Refused("no".into());
    });
}

#[test]
fn a_request_that_was_carried_out_twice() {
    broken(Guarantee::OnceOrNever, |recording| {
        let request = hex::encode(&call(recording, 0).request);
        call(recording, 0).outcome = Outcome::Unknown("cut".into());
        let last = transactions(recording).last_mut().unwrap();
        let key = format!("v1/request/local/{request}");
        let modified = last.revision;
        last.operations.push(Operation { key, value: Some(Bytes::new()), modified });
    });
}

#[test]
fn an_answer_from_before_another() {
    broken(Guarantee::Linearizable, |recording| {
        let later = call(recording, 1).ended + 10;
        let first = call(recording, 0);
        (first.begun, first.ended) = (later, later + 1);
    });
}

#[test]
fn a_read_of_what_was_overwritten() {
    broken(Guarantee::Linearizable, |recording| {
        call(recording, 2).outcome = Outcome::Read(Some("one".into()));
    });
    broken(Guarantee::Linearizable, |recording| {
        call(recording, 2).outcome = Outcome::Read(None);
    });
}

/// Both were so while they were asked, but not in this order.
#[test]
fn a_read_that_unsees() {
    broken(Guarantee::Linearizable, |recording| {
        let writes = call(recording, 1).ended;
        let log = recording.stores.values_mut().next().unwrap();
        // Nobody has been answered: all that binds the second read is the first.
        log.calls[0].ended = writes + 100;
        log.calls[1].ended = writes + 100;
        let mut read = log.calls[2].clone();
        (read.begun, read.ended) = (writes + 1, writes + 2);
        log.calls[2] = read.clone();
        (read.begun, read.ended) = (writes + 3, writes + 4);
        read.outcome = Outcome::Read(Some("one".into()));
        log.calls.push(read);
    });
}

#[test]
fn an_address_with_two_owners() {
    broken(Guarantee::OneOwner, |recording| Story::give(recording, 2, 1));
}

#[test]
fn an_address_that_was_given_again() {
    broken(Guarantee::OneOwner, |recording| Story::give(recording, 2, 4));
}

#[test]
fn a_token_used_too_often() {
    broken(Guarantee::TokenUses, Story::use_token_again);
}

#[test]
fn half_a_node() {
    broken(Guarantee::Whole, |recording| {
        for transaction in transactions(recording) {
            transaction.operations.retain(|operation| !operation.key.starts_with("v1/peer/"));
        }
    });
}
