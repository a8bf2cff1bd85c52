//! Which of a peer's candidate endpoints to use, and when to send one to the device.
//!
//! The device learns endpoints by itself from what peers send: an endpoint sent without need breaks
//! a working path. So one is sent only to a peer that has none, when the control plane withdraws
//! the one in use, or when the one in use doesn't answer.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use wattle_model::{Endpoint, PublicKey};

use crate::{Desired, Observed, ObservedPeer, Translated};

/// A session is refused by WireGuard at this age; until then the path worked.
const FRESH: Duration = Duration::from_secs(180);

/// How long a candidate may leave what is sent to it unanswered. WireGuard repeats a handshake
/// every 5 s, so this is two.
const UNANSWERED: Duration = Duration::from_secs(10);

/// An endpoint that the device learnt from the peer this recently is fresher than what the control
/// plane says of it: that has been on its way for as long.
const FRESHER: Duration = Duration::from_secs(10);

/// How long a peer that is new, or somewhere else, may take to speak up.
const EXPECTED: Duration = Duration::from_secs(30);

/// What the agent remembers of its peers' endpoints between two looks at the device.
#[derive(Debug, Default)]
pub struct EndpointMemory {
    attached: Vec<IpNet>,
    nat: Option<IpAddr>,
    /// Numbers what is found of peers behind NAT.
    found: u64,
    peers: BTreeMap<PublicKey, Peer>,
}

#[derive(Debug, Default)]
struct Peer {
    /// The control plane's candidates when last looked at.
    candidates: Vec<Endpoint>,
    /// Since when, and from which counters, an answer is waited for.
    unanswered: Option<Mark>,
    /// The endpoint in use after the last look.
    endpoint: Option<SocketAddr>,
    /// When the device was first seen to have learnt it by itself.
    learnt: Option<Mark>,
    /// When the control plane withdrew it although it was fresher.
    doubted: Option<Mark>,
    /// Bytes received when the candidates last changed: what comes later says where the peer is.
    heard: u64,
    /// When that was, while nothing has come.
    expected: Option<Instant>,
    /// Where it was found behind NAT, and the number of that.
    found: Option<(SocketAddr, u64)>,
    /// It is where the peer was under the key before this one: nothing has come from it with this key.
    inherited: bool,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    since: Instant,
    tx: u64,
    rx: u64,
}

impl EndpointMemory {
    /// The subnets that this host's own interfaces are in. They rank candidates that are chosen
    /// from now on; they move no peer that has an endpoint.
    pub fn set_attached(&mut self, subnets: Vec<IpNet>) {
        self.attached = subnets;
    }

    /// The address of the NAT that this host is behind: where the control plane sees it and it isn't.
    /// Ranks as above.
    pub const fn set_nat(&mut self, address: Option<IpAddr>) {
        self.nat = address;
    }

    /// Forgets the peers that `keep` refuses.
    pub(crate) fn retain(&mut self, keep: impl Fn(&PublicKey) -> bool) {
        self.peers.retain(|key, _| keep(key));
    }

    /// Forgets one peer.
    pub(crate) fn forget(&mut self, key: &PublicKey) {
        self.peers.remove(key);
    }

    /// The key that a peer will change to is where its present key is, wherever that was learnt from.
    pub(crate) fn inherit(
        &mut self,
        next: PublicKey,
        present: PublicKey,
        candidates: &[Endpoint],
    ) -> Option<SocketAddr> {
        let before = self.peers.get(&present);
        let endpoint = before.and_then(|before| before.endpoint);
        let candidates = before.map_or_else(|| candidates.to_vec(), |b| b.candidates.clone());
        self.peers.insert(next, Peer { candidates, endpoint, inherited: true, ..Peer::default() });
        endpoint
    }

    /// The endpoint to send to the device for this peer, if any.
    pub(crate) fn choose(
        &mut self,
        key: PublicKey,
        candidates: &[Endpoint],
        observed: Option<&ObservedPeer>,
        now: Instant,
    ) -> Option<SocketAddr> {
        let before = self.peers.remove(&key);
        let ranked = self.rank(candidates);
        let mut next = Peer::after(before.as_ref(), candidates, observed, now);
        let mut chosen = None;
        match observed.and_then(|peer| Some((peer, peer.endpoint?))) {
            None => chosen = ranked.first().copied(),
            Some((peer, current)) => {
                next.learnt = before.as_ref().and_then(|b| b.learnt(peer, current, now));
                let withdrew = before.as_ref().is_some_and(|b| b.withdrew(current, candidates));
                let port = before.as_ref().and_then(|b| b.translated(current, candidates));
                let doubted = before.as_ref().and_then(|b| b.doubted);
                let inherited = before.as_ref().is_some_and(|b| b.inherited && !is_fresh(peer));
                let works = doubted.is_some_and(|mark| peer.rx_bytes > mark.rx);
                let fresher = next.learnt.is_some_and(|mark| mark.is_fresher(peer, now))
                    || port.is_some() && is_fresh(peer) && doubted.is_none_or(|d| d.is_recent(now));
                if withdrew && fresher {
                    // Until it is known whether it works, what was said before still holds.
                    next.candidates = before.map(|b| b.candidates).unwrap_or_default();
                    next.doubted = doubted.or(Some(Mark::new(peer, now)));
                } else if withdrew && !works || !inherited && is_lost(peer, current, candidates) {
                    chosen = port.or(ranked.first().copied());
                } else {
                    next.inherited = inherited;
                    next.unanswered = waiting(before.and_then(|b| b.unanswered), peer, now);
                    let expired = next.unanswered.take_if(|mark| mark.expired(peer, now)).is_some();
                    chosen = expired.then(|| following(&ranked, current)).flatten();
                }
            }
        }
        let current = observed.and_then(|peer| peer.endpoint);
        chosen = chosen.filter(|to| current != Some(*to));
        next.endpoint = chosen.or(current);
        self.peers.insert(key, next);
        chosen
    }

    /// Whether the endpoint in use when the device was last looked at is still a candidate: then none is
    /// to be sent. Where the device has learnt another one since, that is fresher.
    pub(crate) fn stays(&self, key: &PublicKey, candidates: &[Endpoint]) -> bool {
        let in_use = self.peers.get(key).and_then(|peer| peer.endpoint);
        in_use.is_some_and(|endpoint| has(candidates, endpoint))
    }

    /// Whether a peer's endpoint may soon have to be chosen, though nothing else changes.
    pub fn is_undecided(&self) -> bool {
        self.peers.values().any(|peer| peer.doubted.is_some())
    }

    /// Peers that are heard from behind a NAT: at an address that is a candidate's, with a port that
    /// is none's, since the control plane last said where they are.
    pub fn translated(&mut self, desired: &Desired, observed: &Observed) -> Vec<Translated> {
        let mut all = Vec::new();
        for spec in desired.peers() {
            let peer = observed.peers.get(&spec.public_key);
            let found = peer.and_then(|peer| Some((peer.endpoint?, peer.last_handshake?, peer)));
            let known = self.peers.get_mut(&spec.public_key);
            let (Some((at, handshake, peer)), Some(known)) = (found, known) else { continue };
            let hidden = has_address(&spec.endpoints, at.ip()) && !has(&spec.endpoints, at);
            let Ok(endpoint) = Endpoint::new(at) else { continue };
            if !hidden || !is_fresh(peer) || peer.rx_bytes <= known.heard {
                continue;
            }
            let number = match known.found {
                Some((before, number)) if before == at => number,
                _ => {
                    self.found += 1;
                    self.found
                }
            };
            known.found = Some((at, number));
            all.push(Translated { node: spec.node, endpoint, handshake, number });
        }
        all
    }

    /// Whether a peer that is new, or was told to be somewhere else, may speak up any moment.
    pub fn is_expecting(&self, now: Instant) -> bool {
        let soon = |since: Instant| now.saturating_duration_since(since) < EXPECTED;
        self.peers.values().any(|peer| peer.expected.is_some_and(soon))
    }

    /// Best first: a subnet that this host is in, then private addresses behind the same NAT as this
    /// host, then global addresses, then private ones of somewhere else; an address family that this
    /// host doesn't have comes last. Equals stay in the control plane's order.
    fn rank(&self, candidates: &[Endpoint]) -> Vec<SocketAddr> {
        let mut ranked: Vec<SocketAddr> = candidates.iter().map(Endpoint::socket_addr).collect();
        // Where networks see each other through a private address, a proxy's say, it says nothing.
        let same_site = self.nat.is_some_and(|nat| is_global(nat) && has_address(candidates, nat));
        ranked.sort_by_key(|candidate| {
            let ip = candidate.ip();
            let family = |net: &IpNet| net.addr().is_ipv4() == ip.is_ipv4();
            if self.attached.iter().any(|net| net.contains(&ip)) {
                0
            } else if !self.attached.is_empty() && !self.attached.iter().any(family) {
                4
            } else if is_global(ip) {
                2
            } else if same_site {
                1
            } else {
                3
            }
        });
        ranked
    }
}

impl Peer {
    /// What is remembered of a peer with these candidates, before anything is chosen.
    fn after(
        before: Option<&Self>,
        candidates: &[Endpoint],
        peer: Option<&ObservedPeer>,
        now: Instant,
    ) -> Self {
        let mut next = Self { candidates: candidates.to_vec(), ..Self::default() };
        let received = peer.map_or(0, |peer| peer.rx_bytes);
        match before {
            // Counters begin anew with the device.
            Some(before) if before.candidates == candidates => {
                next.heard = before.heard.min(received);
                next.expected = before.expected.filter(|_| received <= next.heard);
            }
            _ => (next.heard, next.expected) = (received, Some(now)),
        }
        let moved = |before: &&Self| addresses(&before.candidates).ne(addresses(candidates));
        next.found = before.filter(|before| !moved(before)).and_then(|before| before.found);
        next
    }

    /// Where the endpoint in use went, if nothing but its port changed while the peer's other
    /// candidates stayed: that is what others say of a peer behind NAT. Of one that listens on another
    /// port, all change.
    fn translated(&self, current: SocketAddr, candidates: &[Endpoint]) -> Option<SocketAddr> {
        if self.candidates.len() < 2 || self.candidates.len() != candidates.len() {
            return None;
        }
        let pairs = self.candidates.iter().zip(candidates);
        let mut changed = pairs.filter(|(before, now)| before != now);
        let (before, now) = changed.next()?;
        let only = changed.next().is_none() && before.socket_addr() == current;
        (only && now.socket_addr().ip() == current.ip()).then(|| now.socket_addr())
    }

    /// Whether the control plane moved the peer away from the endpoint in use. Behind NAT the
    /// endpoint in use is no candidate, but its address is one's: such a peer hasn't moved while
    /// that address stays.
    fn withdrew(&self, current: SocketAddr, candidates: &[Endpoint]) -> bool {
        let was_a_candidate = has(&self.candidates, current);
        let moved = if was_a_candidate {
            !has(candidates, current)
        } else {
            !has_address(candidates, current.ip())
        };
        self.candidates != candidates && moved
    }

    /// The mark of an endpoint that the device learnt by itself, if this is one.
    fn learnt(&self, peer: &ObservedPeer, current: SocketAddr, now: Instant) -> Option<Mark> {
        if self.endpoint == Some(current) {
            return self.learnt;
        }
        Some(Mark::new(peer, now))
    }
}

impl Mark {
    const fn new(peer: &ObservedPeer, since: Instant) -> Self {
        Self { since, tx: peer.tx_bytes, rx: peer.rx_bytes }
    }

    fn expired(&self, peer: &ObservedPeer, now: Instant) -> bool {
        peer.tx_bytes > self.tx && now.saturating_duration_since(self.since) >= UNANSWERED
    }

    fn is_fresher(&self, peer: &ObservedPeer, now: Instant) -> bool {
        is_fresh(peer) && self.is_recent(now)
    }

    fn is_recent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < FRESHER
    }
}

/// Whether the endpoint in use is neither the control plane's nor known to work: as found on a
/// device by a restarted agent, or left by an operation that failed.
fn is_lost(peer: &ObservedPeer, current: SocketAddr, candidates: &[Endpoint]) -> bool {
    !is_fresh(peer) && !has_address(candidates, current.ip())
}

/// Whether a key that isn't used yet is elsewhere than the one in use, and nothing has come with it.
pub(crate) fn strays(heir: &ObservedPeer, endpoint: SocketAddr) -> bool {
    heir.endpoint != Some(endpoint) && !is_fresh(heir)
}

fn is_fresh(peer: &ObservedPeer) -> bool {
    peer.last_handshake.is_some_and(|age| age < FRESH)
}

fn has(candidates: &[Endpoint], endpoint: SocketAddr) -> bool {
    candidates.iter().any(|candidate| candidate.socket_addr() == endpoint)
}

fn has_address(candidates: &[Endpoint], address: IpAddr) -> bool {
    candidates.iter().any(|candidate| candidate.socket_addr().ip() == address)
}

fn addresses(candidates: &[Endpoint]) -> impl Iterator<Item = IpAddr> {
    candidates.iter().map(|candidate| candidate.socket_addr().ip())
}

/// The mark to go on with: none while the path works, a new one while nothing is sent.
fn waiting(mark: Option<Mark>, peer: &ObservedPeer, now: Instant) -> Option<Mark> {
    if is_fresh(peer) {
        return None;
    }
    let fresh = Mark::new(peer, now);
    Some(mark.filter(|m| peer.rx_bytes == m.rx && peer.tx_bytes > m.tx).unwrap_or(fresh))
}

/// The candidate after the one that doesn't answer.
fn following(ranked: &[SocketAddr], current: SocketAddr) -> Option<SocketAddr> {
    let after = ranked.iter().position(|candidate| *candidate == current).map_or(0, |at| at + 1);
    ranked.get(after).or_else(|| ranked.first()).copied()
}

fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            !(v4.is_private() || v4.is_loopback() || v4.is_link_local() || shared)
        }
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local()),
    }
}
