//! Keys that become too old, over months of a simulated clock. A look at their ages is what each replica
//! does every minute, and so is carrying out whatever has been wished; here it is done by hand.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use wattle_controlplane::{
    nodes::{Nodes, TURNS, Turn},
    rotation::{Old, old_keys},
    store::{Transaction, keys},
};
use wattle_model::{Mode, NodeId, PublicKey};
use wattle_proto::record::{NetworkBody, decode_history, encode_changed};
use wattle_runtime::clock;

use crate::{
    HOUR, World,
    rotation::{network, nodes},
};

const NODES: usize = 24;
const LIMIT: Duration = HOUR.saturating_mul(30 * 24);
/// Between two looks: longer than a replica's, and short against the last tenth.
const STEP: Duration = HOUR;

/// When each node's key was changed.
type Changes = BTreeMap<NodeId, Vec<SystemTime>>;

/// A network whose nodes joined together.
async fn world() -> (World, SystemTime) {
    let world = World::start().await;
    let key = keys::network(&network());
    let stored = world.store().get(&key).await.unwrap().unwrap();
    let history = decode_history::<NetworkBody>(&stored.value, stored.modified).unwrap();
    let body = history.present().body.clone().unwrap();
    let body = NetworkBody { mode: Mode::Mesh, key_rotation_seconds: LIMIT.as_secs(), ..body };
    let changed = encode_changed(history, Some(body));
    world.put(Transaction::default().replace(&stored, changed)).await;
    for _ in 0..NODES {
        world.node().await;
    }
    (world, clock::now())
}

/// Wishes another key for all that are too old.
async fn look(world: &World, replica: &Nodes, now: SystemTime) -> usize {
    let old = old_keys(world.store(), now).await.unwrap();
    for Old { node, keyed_at } in &old {
        replica.ask_rotation_of(*node, *keyed_at).await.unwrap();
    }
    old.len()
}

/// Changes the keys of all for whom that is wished; how many are changed at a time.
async fn carry_out(replica: &Nodes, now: SystemTime, changes: &mut Changes) -> BTreeSet<usize> {
    let mut at_once = BTreeSet::new();
    loop {
        let mut begun = Vec::new();
        for wish in replica.rotations(None).await.unwrap().0 {
            if replica.take_turn(&wish).await.unwrap() == Turn::Now {
                begun.push(wish);
            }
        }
        if begun.is_empty() {
            return at_once;
        }
        at_once.insert(begun.len());
        for wish in begun {
            let next = PublicKey::new(rand::random()).unwrap();
            replica.announce_key(wish.node, next).await.unwrap();
            assert!(replica.promote_key(wish.node, now).await.unwrap().is_some());
            replica.give_turn_back(&wish).await.unwrap();
            changes.entry(wish.node).or_default().push(now);
        }
    }
}

#[tokio::test]
async fn each_key_changes_in_the_last_tenth_of_its_age_and_once() {
    let (world, begun) = world().await;
    let (one, other) = (nodes(&world), nodes(&world));
    let mut changes = Changes::new();
    for step in 1..=65 * 24 {
        let now = begun + STEP * step;
        // Both see the same ages before either does anything, and one of them carries on.
        look(&world, &one, now).await;
        look(&world, &other, now).await;
        let replica = if step % 2 == 0 { &one } else { &other };
        carry_out(replica, now, &mut changes).await;
    }
    assert_eq!(changes.len(), NODES);
    let mut moments = BTreeSet::new();
    for (node, changed) in &changes {
        assert_eq!(changed.len(), 2, "{node}");
        moments.insert(changed[0]);
        for (before, at) in [begun, changed[0]].into_iter().zip(changed) {
            let age = at.duration_since(before).unwrap();
            // Those who joined first are some seconds older than `begun` says.
            let allowed = LIMIT.mul_f64(0.9) - Duration::from_secs(60)..=LIMIT + STEP;
            assert!(allowed.contains(&age), "{node}: {age:?}");
        }
    }
    assert!(moments.len() > NODES / 2, "not together: {} moments", moments.len());
    world.stop().await;
}

/// The control plane was away for long, so that all are too old.
#[tokio::test]
async fn however_many_are_too_old_few_change_at_a_time() {
    let (world, begun) = world().await;
    let (replica, mut changes) = (nodes(&world), Changes::new());
    let now = begun + 2 * LIMIT;
    assert_eq!(look(&world, &replica, now).await, NODES);
    let at_once = carry_out(&replica, now, &mut changes).await;
    assert_eq!(at_once.last(), Some(&TURNS), "{at_once:?}");
    assert!(changes.values().all(|changed| changed.len() == 1) && changes.len() == NODES);
    assert_eq!(look(&world, &replica, now).await, 0, "all are young");
    world.stop().await;
}

#[tokio::test]
async fn a_replica_that_begins_anew_begins_no_change_anew() {
    let (world, begun) = world().await;
    let now = begun + LIMIT;
    let (mut changes, before) = (Changes::new(), nodes(&world));
    look(&world, &before, now).await;
    let (wishes, _) = before.rotations(None).await.unwrap();
    let halfway = wishes[0].clone();
    let next = PublicKey::new(rand::random()).unwrap();
    assert_eq!(before.take_turn(&halfway).await.unwrap(), Turn::Now);
    let announced = before.announce_key(halfway.node, next).await.unwrap();
    let stale = old_keys(world.store(), now).await.unwrap();

    let anew = nodes(&world);
    look(&world, &anew, now).await;
    assert_eq!(anew.rotations(None).await.unwrap().0, wishes);
    assert_eq!(anew.take_turn(&halfway).await.unwrap(), Turn::Now, "it has it already");
    assert_eq!(anew.announce_key(halfway.node, next).await.unwrap(), announced);
    carry_out(&anew, now, &mut changes).await;

    // Whoever looked at the ages before the changes comes too late.
    for Old { node, keyed_at } in stale {
        anew.ask_rotation_of(node, keyed_at).await.unwrap();
    }
    assert_eq!(anew.rotations(None).await.unwrap().0, []);
    assert_eq!(changes.values().map(Vec::len).sum::<usize>(), NODES);
    world.stop().await;
}
