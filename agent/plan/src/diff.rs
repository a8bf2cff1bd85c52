//! Desired against observed. The order of the operations is `order`'s, the choice of endpoints
//! `endpoint`'s; here is what differs.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Instant,
};

use ipnet::IpNet;
use wattle_model::{PresharedKey, PublicKey};

use crate::{
    Desired, EndpointMemory, Observed, ObservedPeer, Op, SetPeer,
    endpoint::strays,
    order::{Move, in_order},
    route::routes,
    target::{Target, resolve},
};

/// What makes `observed` into `desired`, in the order to do it; nothing for what is already right.
///
/// `now` is monotonic. `memory` lives as long as the agent. Call it on every commit, after a failed
/// operation, and every few seconds: a candidate that doesn't answer is only noticed by looking.
pub fn diff(
    desired: &Desired,
    observed: &Observed,
    memory: &mut EndpointMemory,
    now: Instant,
) -> Vec<Op> {
    let mut ops = device(desired, observed);
    let (targets, _) = resolve(desired, observed.public_key);
    let prefixes = targets.values().flat_map(|target| &target.prefixes);
    ops.extend(routes(&desired.device, observed, prefixes));
    memory.retain(|key| targets.contains_key(key));
    ops.extend(peers(desired, &targets, observed, memory, now));
    ops
}

/// What makes the peers of `observed` into `targets`.
pub(crate) fn peers(
    desired: &Desired,
    targets: &BTreeMap<PublicKey, Target<'_>>,
    observed: &Observed,
    memory: &mut EndpointMemory,
    now: Instant,
) -> Vec<Op> {
    let owners = owners(observed);
    let mut settings = BTreeMap::new();
    let mut moves = BTreeMap::new();
    // A key that a peer will change to comes after the one in use: it is to be found where that is.
    let in_use = targets.iter().filter(|(_, target)| target.heir_of.is_none());
    let heirs = targets.iter().filter(|(_, target)| target.heir_of.is_some());
    for (key, target) in in_use.chain(heirs) {
        let peer = observed.peers.get(key);
        settings.insert(*key, Setting::of(desired, *key, target, observed, memory, now));
        if let Some(change) = Move::between(*key, &target.prefixes, peer, &owners) {
            moves.insert(*key, change);
        }
    }
    let unknown = observed.peers.iter().filter(|(key, _)| !targets.contains_key(*key));
    let mut removed = Vec::new();
    if desired.is_complete() {
        removed.extend(unknown.map(|(key, _)| Op::RemovePeer { key: *key }));
    } else {
        moves.extend(robbed(unknown, targets));
    }

    let mut ops = Vec::new();
    for step in in_order(moves) {
        ops.push(settings.remove(&step.key).unwrap_or_default().with(step.key, step.prefixes));
    }
    ops.extend(settings.into_iter().filter_map(|(key, setting)| setting.alone(key)));
    ops.extend(removed);
    ops
}

/// The link's own operations. An address goes before another comes: Linux makes a second address of
/// one subnet the first's secondary, and takes it away together with the first.
fn device(desired: &Desired, observed: &Observed) -> Vec<Op> {
    let spec = &desired.device;
    let mut ops = Vec::new();
    if observed.mtu != spec.mtu {
        ops.push(Op::SetMtu(spec.mtu));
    }
    if spec.listen_port != 0 && observed.listen_port != spec.listen_port {
        ops.push(Op::SetListenPort(spec.listen_port));
    }
    if observed.mark != spec.mark {
        ops.push(Op::SetMark(spec.mark));
    }
    let wanted: BTreeSet<IpNet> = spec.addresses.iter().copied().collect();
    let unwanted = observed.addresses.difference(&wanted).filter(|a| desired.decides(a));
    ops.extend(unwanted.copied().map(Op::RemoveAddress));
    ops.extend(wanted.difference(&observed.addresses).copied().map(Op::AddAddress));
    if !observed.up {
        ops.push(Op::SetUp);
    }
    ops
}

/// Who has which prefix. A kernel lists one owner each; a userspace device may list several.
fn owners(observed: &Observed) -> HashMap<IpNet, Vec<PublicKey>> {
    let mut owners: HashMap<IpNet, Vec<PublicKey>> = HashMap::new();
    for (key, peer) in &observed.peers {
        for prefix in &peer.allowed_ips {
            owners.entry(*prefix).or_default().push(*key);
        }
    }
    owners
}

/// Peers that stay only because nobody has said yet that they are gone: they lose what a known
/// peer is given, and nothing else.
fn robbed<'a>(
    unknown: impl Iterator<Item = (&'a PublicKey, &'a ObservedPeer)>,
    targets: &BTreeMap<PublicKey, Target<'_>>,
) -> Vec<(PublicKey, Move)> {
    let claimed: BTreeSet<IpNet> =
        targets.values().flat_map(|target| target.prefixes.iter().copied()).collect();
    unknown.filter_map(|(key, peer)| Some((*key, Move::robbed(peer, &claimed)?))).collect()
}

/// What a peer needs apart from its prefixes.
#[derive(Default)]
struct Setting {
    create: bool,
    endpoint: Option<std::net::SocketAddr>,
    keepalive: Option<u16>,
    preshared: Option<PresharedKey>,
}

impl Setting {
    fn of(
        desired: &Desired,
        key: PublicKey,
        target: &Target<'_>,
        device: &Observed,
        memory: &mut EndpointMemory,
        now: Instant,
    ) -> Self {
        let observed = device.peers.get(&key);
        // Nobody answers to a key that isn't used yet.
        let wanted = desired.keepalive.filter(|_| target.heir_of.is_none()).unwrap_or(0);
        let has = observed.and_then(|peer| peer.keepalive).unwrap_or(0);
        let endpoint = match (target.candidates, target.heir_of) {
            (None, _) => None,
            (Some(candidates), None) => memory.choose(key, candidates, observed, now),
            (Some(candidates), Some(present)) => {
                let endpoint = memory.inherit(key, present, candidates);
                endpoint.filter(|at| observed.is_none_or(|peer| strays(peer, *at)))
            }
        };
        let preshared = &target.preshared;
        let right = observed.map_or(preshared.is_none(), |peer| peer.preshared == *preshared);
        Self {
            create: observed.is_none(),
            endpoint,
            keepalive: (wanted != has).then_some(wanted),
            preshared: (!right).then(|| preshared.clone()),
        }
    }

    fn with(self, key: PublicKey, prefixes: crate::Prefixes) -> Op {
        let Self { create, endpoint, keepalive, preshared } = self;
        Op::SetPeer(SetPeer { key, create, prefixes, endpoint, keepalive, preshared })
    }

    /// The operation for a peer whose prefixes are right.
    fn alone(self, key: PublicKey) -> Option<Op> {
        let needed = self.create
            || self.endpoint.is_some()
            || self.keepalive.is_some()
            || self.preshared.is_some();
        needed.then(|| self.with(key, crate::Prefixes::Keep))
    }
}
