//! A request worked out on what was read: what each resource is and becomes, and the transaction
//! that makes it so.

use std::collections::BTreeMap;

use prost::Message as _;
use tonic::{Code, Status};
use wattle_model::{NetworkName, NodeId, Revision, Traits};
use wattle_proto::{
    admin::{self, applied::Action, resource::Kind},
    record::NetworkBody,
};
use wattle_view::Proposal;

use super::{
    mistakes::{Mistakes, Place},
    wish::Asked,
};
use crate::{
    admin::{networks, record::Record},
    store::{MAX_BYTES, MAX_OPERATIONS, Stored, Transaction, keys},
};

/// What the record of the request takes beside the answer, at most.
const REQUEST_RECORD: usize = 512;

/// All that is known of a request by now.
pub(super) struct Draft {
    /// The store was read at this revision or later.
    pub(super) head: Revision,
    /// The networks that it speaks of.
    pub(super) sites: BTreeMap<NetworkName, Site>,
    /// What is wrong with it.
    pub(super) mistakes: Mistakes,
    /// Resources that are at another revision than the request was made for.
    pub(super) stale: Mistakes,
    /// What becomes of each resource, by its index.
    pub(super) applied: BTreeMap<usize, admin::Applied>,
    /// The changes, and what they rest on.
    pub(super) transaction: Transaction,
    /// How many resources change.
    pub(super) changes: usize,
}

/// One network that the request speaks of.
pub(super) struct Site {
    /// `keys::shape`, read before everything else of the network.
    pub(super) guard: Option<Stored>,
    pub(super) record: Record<NetworkBody>,
    /// The nodes that the request names, as they were read.
    pub(super) nodes: BTreeMap<NodeId, Traits>,
    pub(super) proposal: Proposal,
    /// Something of it changes.
    pub(super) changed: bool,
}

/// One resource: what it is and what it should be.
pub(super) struct Step {
    pub(super) network: NetworkName,
    /// "network", "policy", "labels of".
    pub(super) noun: &'static str,
    pub(super) name: String,
    pub(super) before: Option<Kind>,
    pub(super) after: Option<Kind>,
    /// Since when it is what it is; zero where there is no such thing.
    pub(super) revision: Revision,
    /// The last revision at which it is known to be still so.
    pub(super) upto: Revision,
    /// Makes it what it should be.
    pub(super) transaction: Transaction,
}

impl Draft {
    /// Takes in a resource. Says whether it changes.
    pub(super) fn step(&mut self, asked: Asked, step: Step) -> bool {
        if let Some(why) = asked.revision.and_then(|given| step.stale(given)) {
            self.stale.add(asked.place(), ".revision", why);
        }
        let changes = step.before != step.after;
        let action = match (&step.before, &step.after) {
            _ if !changes => Action::Unchanged,
            (None, _) => Action::Created,
            (_, None) => Action::Deleted,
            _ => Action::Updated,
        };
        // 0 stands for the revision that is being made.
        let revision = if changes { 0 } else { step.revision.0 };
        let resource = |kind: Option<Kind>, revision| {
            kind.map(|kind| admin::Resource {
                kind: Some(kind),
                revision: Some(revision),
                delete: false,
            })
        };
        let applied = admin::Applied {
            action: action.into(),
            name: step.name,
            before: resource(step.before, step.revision.0),
            after: resource(step.after, revision),
        };
        self.applied.insert(asked.index, applied);
        if changes {
            self.changes += 1;
            self.transaction = std::mem::take(&mut self.transaction).and(step.transaction);
            self.sites.entry(step.network).and_modify(|site| site.changed = true);
        }
        changes
    }

    /// The whole transaction. Where the networks are as they were read, so is everything that was
    /// said of their policies and modes.
    pub(super) fn transaction(&self) -> Transaction {
        self.sites.iter().fold(self.transaction.clone(), |transaction, (name, site)| {
            let guarded = transaction.as_read(keys::shape(name), site.guard.as_ref());
            if site.changed { guarded.and(networks::shaped(name)) } else { guarded }
        })
    }

    /// Says where the changes are more than one transaction may hold.
    pub(super) fn check_limits(&self, answer: &admin::ApplyResponse, mistakes: &mut Mistakes) {
        let transaction = self.transaction();
        let changes = self.changes;
        // The record of the request is one more of each.
        let writes = transaction.operations.len() + 1;
        let compares = transaction.compares.len() + 1;
        let bytes = transaction.bytes() + answer.encoded_len() + REQUEST_RECORD;
        let mut too_much = |what: &str, got: usize, limit: usize, of: &str| {
            if got > limit {
                let why = format!(
                    "{changes} changes are too many at once: they take {got} {what}, one \
                     transaction has at most {limit} ({of}): apply them in parts"
                );
                mistakes.add(Place::All, "", why);
            }
        };
        let each = "one for each change, one for each network, and one for the request";
        too_much("writes", writes, MAX_OPERATIONS, each);
        let each = "one for each change, each other node that is expected to see or not to see \
                    another, each network, and the request";
        // What is written is compared, too: said twice, one cause would look like two.
        if compares > writes {
            too_much("comparisons", compares, MAX_OPERATIONS, each);
        }
        too_much("bytes", bytes, MAX_BYTES, "what is changed with its history, and the answer");
    }

    /// Refuses what can't be done, before it is looked at what it would mean.
    pub(super) fn refuse(&mut self) -> Result<(), Status> {
        let (mistakes, stale) =
            (std::mem::take(&mut self.mistakes), std::mem::take(&mut self.stale));
        if mistakes.is_empty() {
            return stale.refuse(Code::Aborted);
        }
        mistakes.and(stale).refuse(Code::InvalidArgument)
    }
}

impl Step {
    /// Why it isn't what somebody saw at revision `given`; 0: they saw nothing.
    fn stale(&self, given: u64) -> Option<String> {
        let Self { noun, name, revision, upto, .. } = self;
        if (revision.0..=upto.0).contains(&given) {
            return None;
        }
        Some(match (given, *revision) {
            (_, Revision::ZERO) => {
                format!(
                    "there is no {noun} {name}, which was at revision {given}: `wattle get` again"
                )
            }
            (0, now) => {
                format!("{noun} {name} exists, at revision {now}: `wattle get` it, and change that")
            }
            (_, now) => format!(
                "{noun} {name} is at revision {now}, and this change was made for revision {given}: \
                 `wattle get` it again"
            ),
        })
    }
}
