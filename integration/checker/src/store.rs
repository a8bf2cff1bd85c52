//! What the store itself must never say, at any revision: two owners of one thing, a token used too
//! often, half a node.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use wattle_model::NodeId;
use wattle_proto::entry;

use crate::{
    recording::StoreLog,
    violation::{Finds, Guarantee, Violation},
    world::World,
};

pub(crate) fn check(log: &StoreLog, violations: &mut Vec<Violation>) {
    let mut world = World::default();
    let mut owners = BTreeMap::new();
    world.apply(&log.first);
    judge(&world, &mut owners, violations);
    for transaction in &log.transactions {
        let before = world.revision;
        let mut finds = Finds { subject: "the store".into(), all: violations };
        finds.demand(Guarantee::Ordered, transaction.revision > before, || {
            format!("revision {} after {before}", transaction.revision)
        });
        world.apply(transaction);
        judge(&world, &mut owners, violations);
    }
}

/// `owners`: who has ever owned an address, for one that is freed rests for longer than any run.
fn judge(world: &World, owners: &mut BTreeMap<Bytes, NodeId>, violations: &mut Vec<Violation>) {
    let subject = format!("the store at revision {}", world.revision);
    let mut finds = Finds { subject, all: violations };
    if !world.unreadable.is_empty() {
        finds.find(Guarantee::Whole, format!("{:?} can't be read", world.unreadable));
    }
    tokens(world, &mut finds);
    whole(world, &mut finds);
    one_owner(world, owners, &mut finds);
}

fn tokens(world: &World, finds: &mut Finds<'_>) {
    let mut used: BTreeMap<String, u32> = BTreeMap::new();
    for identity in world.identities.values() {
        *used.entry(hex::encode(&identity.token_id)).or_default() += 1;
    }
    for (id, token) in &world.tokens {
        let used = used.get(id).copied().unwrap_or(0);
        finds.demand(Guarantee::TokenUses, token.max_uses == 0 || used <= token.max_uses, || {
            format!("token {id} is for {} machines and let in {used}", token.max_uses)
        });
        finds.demand(Guarantee::TokenUses, token.uses == used, || {
            format!("token {id} counts {} uses and let in {used}", token.uses)
        });
    }
}

/// A node's keys are written together, and go together.
fn whole(world: &World, finds: &mut Finds<'_>) {
    let lives = |node: &NodeId| {
        world.identities.get(node).is_some_and(|identity| identity.deleted_at_millis == 0)
    };
    let live: BTreeSet<NodeId> = world.identities.keys().filter(|id| lives(id)).copied().collect();
    let of = |what: &str, nodes: BTreeSet<NodeId>, finds: &mut Finds<'_>| {
        for node in live.symmetric_difference(&nodes) {
            let has = nodes.contains(node);
            finds.find(
                Guarantee::Whole,
                format!("node {node} has {what}: {has}, and an identity: {}", !has),
            );
        }
    };
    of("labels", world.nodes().collect(), finds);
    of("an entry", world.with_entries().collect(), finds);
    let held = world.claims.iter().filter(|(_, claim)| claim.released_at_millis == 0);
    for (key, claim) in held {
        let owner = NodeId::try_from(claim.node_id.as_ref()).ok();
        finds.demand(Guarantee::Whole, owner.is_some_and(|owner| live.contains(&owner)), || {
            format!("{key} is held by {owner:?}, which doesn't live")
        });
    }
}

fn one_owner(world: &World, owners: &mut BTreeMap<Bytes, NodeId>, finds: &mut Finds<'_>) {
    let mut seen: BTreeMap<String, NodeId> = BTreeMap::new();
    for node in world.with_entries() {
        let spec = match world.entry(node).map(entry::decode) {
            Some(Ok(spec)) => spec,
            other => {
                finds.find(Guarantee::Whole, format!("the entry of node {node}: {other:?}"));
                continue;
            }
        };
        let identity = world.identities.get(&node);
        let network = identity.map_or("", |identity| identity.network.as_str());
        let mut things = vec![format!("the key {:?}", spec.public_key)];
        things.push(format!("the name {} in {network}", spec.name));
        things.extend(spec.ipv4.map(|address| format!("{address} in {network}")));
        things.extend(spec.ipv6.map(|address| format!("{address} in {network}")));
        for thing in things {
            let other = seen.insert(thing.clone(), node);
            finds.demand(Guarantee::OneOwner, other.is_none(), || {
                format!("{thing} is of {node} and of {other:?}")
            });
        }
        let addresses = [spec.ipv4.map(std::net::IpAddr::V4), spec.ipv6.map(std::net::IpAddr::V6)];
        for address in addresses.into_iter().flatten() {
            let key = Bytes::from(format!("{network} {address}"));
            let first = *owners.entry(key).or_insert(node);
            finds.demand(Guarantee::OneOwner, first == node, || {
                format!("{address} was of {first} and was given to {node}")
            });
        }
    }
}
