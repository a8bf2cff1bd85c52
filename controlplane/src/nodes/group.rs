//! Several enrolments in one transaction: they share a token's counter and a network's compare, so
//! that a thousand machines with one token don't conflict with each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::SystemTime,
};

use bytes::Bytes;
use wattle_model::{Fingerprint, Generation, NetworkName, NodeName, PublicKey, Revision, TokenId};
use wattle_proto::record::{NodeBody, encode_first};
use wattle_runtime::clock;

use super::{
    addresses::Addresses,
    prepare::{Candidate, Enrolled, Enrolment},
    record::{Claim, NodeRecord},
};
use crate::store::{Transaction, keys};

/// Members at the most. Each writes 8 keys, and 2 more where token and network are its own; a
/// transaction has 128 operations.
pub(super) const MEMBERS: usize = 12;

/// Enrolments that can be made together.
#[derive(Default)]
pub(super) struct Group {
    members: Vec<Enrolled>,
    tokens: BTreeMap<TokenId, (Candidate, u32)>,
    names: BTreeSet<(NetworkName, NodeName)>,
    public_keys: BTreeSet<PublicKey>,
    fingerprints: BTreeSet<Fingerprint>,
}

impl Group {
    /// Whether a candidate can join: it must take nothing that a member takes, and must have read
    /// the token and the network that its members read. Who can't waits for the next group.
    pub(super) fn admits(&self, wish: &Enrolment, candidate: &Candidate) -> bool {
        let claimed =
            self.names.contains(&(candidate.network.name.clone(), candidate.name.clone()))
                || self.public_keys.contains(&wish.public_key)
                || self.fingerprints.contains(&wish.fingerprint);
        let shared = self.tokens.get(&wish.token).is_none_or(|(first, uses)| {
            first.token.stored == candidate.token.stored && first.token.has_uses(uses + 1)
        });
        let mut networks = self.tokens.values().map(|(first, _)| &first.network);
        let agreed = networks.all(|network| {
            network.name != candidate.network.name || network.stored == candidate.network.stored
        });
        self.members.len() < MEMBERS && !claimed && shared && agreed
    }

    /// Adds a candidate that [`Group::admits`].
    pub(super) fn add(
        &mut self,
        wish: &Enrolment,
        candidate: Candidate,
        addresses: Addresses,
        now: SystemTime,
    ) {
        let record = NodeRecord {
            network: candidate.network.name.clone(),
            name: candidate.name.clone(),
            fingerprint: wish.fingerprint,
            public_key: wish.public_key,
            next_public_key: None,
            keyed_at: now,
            ipv4: addresses.ipv4,
            ipv6: addresses.ipv6,
            token: wish.token,
            enrolled_at: now,
            deleted_at: None,
            own_endpoints: wish.endpoints.clone(),
            observed_endpoint: wish.observed,
            mapping: None,
            root: Some(wish.root),
            secret_generation: Generation::NONE,
        };
        self.names.insert((record.network.clone(), record.name.clone()));
        self.public_keys.insert(record.public_key);
        self.fingerprints.insert(record.fingerprint);
        self.members.push(Enrolled {
            node: candidate.node,
            record,
            ranges: candidate.network.ranges,
            mtu: candidate.network.mtu,
            revision: Revision::ZERO,
        });
        self.tokens.entry(wish.token).or_insert((candidate, 0)).1 += 1;
    }

    /// All of it at once.
    pub(super) fn transaction(&self) -> Transaction {
        let mut transaction = Transaction::default();
        let mut networks = BTreeSet::new();
        for (candidate, uses) in self.tokens.values() {
            let (token, network) = (&candidate.token, &candidate.network);
            transaction = transaction.replace(&token.stored, token.used(*uses));
            if networks.insert(&network.name) {
                transaction = transaction
                    .unchanged(&network.stored)
                    .put(keys::occupancy(&network.name), Bytes::new());
            }
        }
        self.members.iter().fold(transaction, |transaction, member| {
            let token = self.tokens.get(&member.record.token).map(|(first, _)| &first.token);
            let body = NodeBody {
                created_at_millis: clock::unix_millis(member.record.enrolled_at),
                labels: token.map(|token| token.labels.clone()).unwrap_or_default(),
                fixed_name: token.and_then(|token| token.name.clone()),
            };
            transaction.and(made(member, &body))
        })
    }

    /// Its members, once they were made.
    pub(super) fn made_at(self, revision: Revision) -> impl Iterator<Item = Enrolled> {
        self.members.into_iter().map(move |member| Enrolled { revision, ..member })
    }
}

/// Everything of one node, each key created if absent.
fn made(member: &Enrolled, body: &NodeBody) -> Transaction {
    let (node, record) = (member.node, &member.record);
    let (network, held) = (&record.network, Claim::held(node));
    let transaction = Transaction::default()
        .create(keys::identity(node), record.encode())
        .create(keys::node(network, node), encode_first(body))
        .create(keys::peer(network, node), record.entry(node))
        .create(keys::name(network, &record.name), held.clone())
        .create(keys::wireguard_key(record.public_key), held.clone())
        .create(keys::fingerprint(record.fingerprint), held.clone());
    record.addresses().fold(transaction, |transaction, address| {
        transaction.create(keys::address(network, address), held.clone())
    })
}
