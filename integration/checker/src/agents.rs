//! What an agent heard, against what the store said.

use std::collections::BTreeMap;

use bytes::Bytes;
use wattle_model::{Digest, NodeId};

use crate::{
    recording::{Agent, Heard, StoreLog},
    violation::{Finds, Guarantee, Violation},
    world::World,
};

/// Full sets that an agent may be sent in one epoch: the first.
pub const FULL_SETS_ALLOWED: usize = 1;

type Change = (NodeId, Option<Bytes>);

/// What the agent holds, as its messages made it.
#[derive(Default)]
struct Held {
    epoch: Bytes,
    revision: u64,
    entries: BTreeMap<NodeId, Bytes>,
    full_sets: usize,
}

pub(crate) fn check(
    agent: &Agent,
    stores: &BTreeMap<Bytes, StoreLog>,
    violations: &mut Vec<Violation>,
) {
    let mut finds = Finds { subject: format!("agent {}", agent.node), all: violations };
    let mut held = Held::default();
    let mut replay = None;
    for heard in &agent.heard {
        match heard {
            Heard::Welcome { epoch, full_set, from } => {
                held.welcome(epoch, *full_set, *from, &mut finds);
                if replay.as_ref().is_none_or(|replay: &Replay<'_>| replay.epoch != epoch) {
                    replay = stores.get(epoch).map(|log| Replay::new(epoch, log));
                    finds.demand(Guarantee::Reliable, replay.is_some(), || {
                        format!("the epoch {} is of no store", hex::encode(epoch))
                    });
                }
            }
            Heard::Batch { revision, .. } | Heard::Heartbeat { revision, .. } => {
                let Some(replay) = &mut replay else { continue };
                held.take(agent, heard, replay.at(*revision), &mut finds);
            }
        }
    }
}

impl Held {
    fn welcome(&mut self, epoch: &Bytes, full_set: bool, from: u64, finds: &mut Finds<'_>) {
        if *epoch != self.epoch {
            finds.demand(Guarantee::Resumable, full_set, || {
                "the first stream of an epoch didn't begin with a full set".into()
            });
            *self = Self { epoch: epoch.clone(), entries: self.entries.clone(), ..Self::default() };
        } else {
            finds.demand(Guarantee::Resumable, from == self.revision, || {
                format!("it held {} and was resumed from {from}", self.revision)
            });
        }
        self.full_sets += usize::from(full_set);
        finds.demand(Guarantee::Resumable, self.full_sets <= FULL_SETS_ALLOWED, || {
            format!("another full set, from revision {from}")
        });
    }

    fn take(&mut self, agent: &Agent, heard: &Heard, world: &World, finds: &mut Finds<'_>) {
        let (revision, digest) = match heard {
            Heard::Batch { revision, full_set, changes, digest } => {
                self.ordered(*revision, finds);
                if !full_set {
                    self.unique(*revision, changes, world, finds);
                }
                self.batch(*full_set, changes);
                (*revision, digest)
            }
            // One that came while the agent was ahead moves nothing.
            Heard::Heartbeat { revision, .. } if *revision < self.revision => return,
            Heard::Heartbeat { revision, digest } => (*revision, digest),
            Heard::Welcome { .. } => return,
        };
        self.whole(agent, revision, world, finds);
        let mut own = Digest::EMPTY;
        self.entries.iter().for_each(|(node, entry)| own += Digest::of(*node, entry));
        finds.demand(Guarantee::Digest, own.to_bytes() == **digest, || {
            format!("at revision {revision} it has {own}, and was told {}", hex::encode(digest))
        });
        self.revision = revision;
    }

    fn ordered(&self, revision: u64, finds: &mut Finds<'_>) {
        finds.demand(Guarantee::Ordered, revision >= self.revision, || {
            format!("from revision {} back to {revision}", self.revision)
        });
    }

    /// An entry comes because it is new to the agent or was put since; nothing else.
    fn unique(&self, revision: u64, changes: &[Change], world: &World, finds: &mut Finds<'_>) {
        let from = self.revision;
        if revision == from {
            finds.demand(Guarantee::Unique, changes.is_empty(), || {
                format!("revision {revision} came again, with changes")
            });
            return;
        }
        // What was seen then, the store has forgotten: it says everything again.
        if from < world.floor() {
            return;
        }
        for (node, _) in changes.iter().filter(|(_, entry)| entry.is_some()) {
            let put = world.entry_revision(*node).is_some_and(|put| put > from);
            // One that was put and has gone again within the batch comes with its removal.
            let gone = changes.iter().any(|(other, entry)| other == node && entry.is_none());
            finds.demand(
                Guarantee::Unique,
                put || gone || !self.entries.contains_key(node),
                || format!("node {node} came again in the batch from {from} to {revision}"),
            );
        }
    }

    fn batch(&mut self, full_set: bool, changes: &[Change]) {
        if full_set {
            self.entries.clear();
        }
        for (node, entry) in changes {
            match entry {
                Some(entry) => drop(self.entries.insert(*node, entry.clone())),
                None => drop(self.entries.remove(node)),
            }
        }
    }

    /// After a commit an agent's state is its sight at that revision, and nothing else.
    fn whole(&self, agent: &Agent, revision: u64, world: &World, finds: &mut Finds<'_>) {
        let expected = world.sight(&agent.network, agent.node);
        if self.entries == expected {
            return;
        }
        for (node, entry) in &expected {
            match self.entries.get(node) {
                None => finds.find(
                    Guarantee::Reliable,
                    format!("at revision {revision} it doesn't hold node {node}"),
                ),
                Some(held) if held != entry => finds.find(
                    Guarantee::Atomic,
                    format!("at revision {revision} it holds another entry of node {node}"),
                ),
                Some(_) => {}
            }
        }
        for node in self.entries.keys().filter(|node| !expected.contains_key(*node)) {
            finds.find(
                Guarantee::Reliable,
                format!("at revision {revision} it holds node {node}, which it isn't to see"),
            );
        }
    }
}

/// The store, brought from revision to revision as an agent asks for them.
struct Replay<'a> {
    epoch: &'a Bytes,
    log: &'a StoreLog,
    world: World,
    next: usize,
}

impl<'a> Replay<'a> {
    fn new(epoch: &'a Bytes, log: &'a StoreLog) -> Self {
        let mut world = World::default();
        world.apply(&log.first);
        Self { epoch, log, world, next: 0 }
    }

    /// The store at a revision. One that goes back begins anew: it is wrong, and is judged all the
    /// same.
    fn at(&mut self, revision: u64) -> &World {
        if revision < self.world.revision {
            *self = Self::new(self.epoch, self.log);
        }
        while let Some(next) = self.log.transactions.get(self.next) {
            if next.revision > revision {
                break;
            }
            self.world.apply(next);
            self.next += 1;
        }
        &self.world
    }
}
