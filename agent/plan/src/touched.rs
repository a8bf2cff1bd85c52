//! What one change means for a device that is known to be as desired before it: the same operations
//! as [`diff()`](crate::diff()) gives, from the peers it touches alone. So a change costs the same on
//! a device of ten peers and of ten thousand.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use ipnet::IpNet;
use wattle_model::{NodeId, PeerSpec, PublicKey};

use crate::{
    Desired, EndpointMemory, Observed, ObservedPeer, Op,
    diff::peers,
    target::{Target, addresses, keys},
};

/// The peers that a change touched, as they were and as they are. Nobody else claims what they have
/// or had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    before: BTreeMap<NodeId, PeerSpec>,
    now: BTreeMap<NodeId, PeerSpec>,
}

impl Touched {
    /// A peer as it was. What it was first counts: a change may name it twice.
    pub(crate) fn was(&mut self, peer: Option<PeerSpec>) {
        let Some(peer) = peer else { return };
        if !self.now.contains_key(&peer.node) {
            self.before.entry(peer.node).or_insert(peer);
        }
    }

    /// A peer as it is.
    pub(crate) fn is(&mut self, peer: PeerSpec) {
        self.now.insert(peer.node, peer);
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = &PeerSpec> {
        self.before.values().chain(self.now.values())
    }
}

/// The operations for a device that was as desired before the change; `None` where that isn't
/// enough to know, and the device has to be looked at: where the control plane takes back the endpoint in
/// use, the peer may have moved meanwhile (a key that it will change to begins with where it is), and
/// routes depend on all peers.
pub fn diff_touched(
    desired: &Desired,
    touched: &Touched,
    own_key: PublicKey,
    memory: &mut EndpointMemory,
    now: Instant,
) -> Option<Vec<Op>> {
    let routed = |peer: &PeerSpec| {
        let inside = |a| desired.device.addresses.iter().any(|net| net.contains(&a));
        desired.via.values().any(|name| *name == peer.name) || !addresses(peer).all(inside)
    };
    if touched.peers().any(|peer| keys(peer).any(|key| key == own_key) || routed(peer)) {
        return None;
    }
    let mut observed = Observed { public_key: Some(own_key), ..Observed::default() };
    for peer in touched.before.values() {
        let was = ObservedPeer {
            allowed_ips: prefixes(peer),
            keepalive: desired.keepalive.filter(|seconds| *seconds != 0),
            preshared: desired.preshared_key(peer),
            ..ObservedPeer::default()
        };
        let heir = ObservedPeer { preshared: was.preshared.clone(), ..ObservedPeer::default() };
        observed.peers.insert(peer.public_key, was);
        observed.peers.extend(peer.next_public_key.map(|next| (next, heir)));
    }
    let mut targets = BTreeMap::new();
    for peer in touched.now.values() {
        let there = touched.before.values().find(|was| keys(was).any(|key| key == peer.public_key));
        // The next look takes the others into account: none of them is to be sent now.
        let stays = |was: &PeerSpec| {
            was.endpoints == peer.endpoints || memory.stays(&peer.public_key, &peer.endpoints)
        };
        if there.is_some_and(|was| !stays(was)) {
            return None;
        }
        if let Some(next) = peer.next_public_key {
            let was = touched.before.get(&peer.node);
            was.filter(|was| keys(was).eq(keys(peer)))?;
            let heir = Target::heir_of(peer, desired.preshared_key(peer));
            targets.insert(next, Target { candidates: None, ..heir });
        }
        // An endpoint that stays is left to the device.
        let candidates = there.is_none().then_some(&peer.endpoints[..]);
        let (prefixes, preshared) = (prefixes(peer), desired.preshared_key(peer));
        targets.insert(peer.public_key, Target { prefixes, candidates, heir_of: None, preshared });
    }
    for key in observed.peers.keys().filter(|key| !targets.contains_key(key)) {
        memory.forget(key);
    }
    Some(peers(desired, &targets, &observed, memory, now))
}

fn prefixes(peer: &PeerSpec) -> BTreeSet<IpNet> {
    addresses(peer).map(IpNet::from).collect()
}
