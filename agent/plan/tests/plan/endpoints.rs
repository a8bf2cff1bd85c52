//! When an endpoint is sent to the device, and which: never one more than needed.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use wattle_model::PeerSpec;
use wattle_plan::{
    Desired, EndpointMemory, Observed, ObservedPeer, Op, SetPeer, Translated, Update, diff,
};

use crate::simulated::*;

const LAN: &str = "192.168.1.7:51820";
const ELSEWHERE: &str = "10.8.0.7:51820";
const PUBLIC: &str = "198.51.100.7:51820";
const PUBLIC6: &str = "[2001:db8::7]:51820";

/// One peer on a device whose traffic the test plays.
struct Scene {
    desired: Desired,
    memory: EndpointMemory,
    device: KernelLike,
    seen: ObservedPeer,
    now: Instant,
}

impl Scene {
    fn new(attached: &[&str], candidates: &[&str]) -> Self {
        let mut memory = EndpointMemory::default();
        memory.set_attached(attached.iter().map(|net| net.parse().unwrap()).collect());
        let desired = Desired::new(OWN, device());
        let (device, seen) = (KernelLike::default(), ObservedPeer::default());
        let mut scene = Self { desired, memory, device, seen, now: Instant::now() };
        scene.publish(candidates);
        scene
    }

    /// The control plane says where the peer may be.
    fn publish(&mut self, candidates: &[&str]) {
        let endpoints = candidates.iter().map(|text| endpoint(text)).collect();
        let peer = PeerSpec { endpoints, ..peer(1, 1, Some(1), None) };
        self.desired.apply(Update::Reset(vec![peer]));
    }

    /// The agent looks, and does what the plan says; the endpoint it was told to send.
    fn look(&mut self) -> Option<SocketAddr> {
        let ops = diff(&self.desired, &self.observe(), &mut self.memory, self.now);
        let sent = ops.iter().find_map(|op| match op {
            Op::SetPeer(SetPeer { endpoint, .. }) => *endpoint,
            _ => None,
        });
        ops.iter().for_each(|op| self.device.execute(op));
        self.seen.endpoint = sent.or(self.seen.endpoint);
        sent
    }

    fn observe(&self) -> Observed {
        let mut observed = self.device.observe();
        if let Some(peer) = observed.peers.get_mut(&key(1)) {
            *peer = ObservedPeer { allowed_ips: peer.allowed_ips.clone(), ..self.seen.clone() };
        }
        observed
    }

    /// Time in which packets are sent and nothing comes back, looked at every five seconds.
    fn silence(&mut self, seconds: u64) -> Vec<SocketAddr> {
        let mut sent = Vec::new();
        for _ in 0..seconds / 5 {
            self.now += Duration::from_secs(5);
            self.seen.tx_bytes += 148;
            sent.extend(self.look());
        }
        sent
    }

    /// Where the peer was found behind NAT, at the last look.
    fn found(&mut self) -> Option<(SocketAddr, u64)> {
        let found = self.memory.translated(&self.desired, &self.observe());
        let [Translated { endpoint, number, .. }] = found[..] else { return None };
        Some((endpoint.socket_addr(), number))
    }

    fn handshake(&mut self) {
        self.seen.last_handshake = Some(Duration::from_secs(1));
        self.seen.rx_bytes += 92;
        self.seen.tx_bytes += 148;
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn a_shared_subnet_comes_first_then_global_then_private() {
    let all = [ELSEWHERE, PUBLIC, LAN];
    assert_eq!(Scene::new(&["192.168.1.9/24"], &all).look(), Some(at(LAN)));
    assert_eq!(Scene::new(&["172.16.0.1/24"], &all).look(), Some(at(PUBLIC)));
    assert_eq!(Scene::new(&[], &[ELSEWHERE]).look(), Some(at(ELSEWHERE)));
    assert_eq!(Scene::new(&["172.16.0.1/24"], &[PUBLIC6, PUBLIC]).look(), Some(at(PUBLIC)));
    assert_eq!(Scene::new(&["2001:db8:1::1/64"], &[PUBLIC, PUBLIC6]).look(), Some(at(PUBLIC6)));
}

#[test]
fn a_peer_without_candidates_is_made_without_an_endpoint() {
    let mut scene = Scene::new(&[], &[]);
    assert_eq!(scene.look(), None);
    scene.publish(&[PUBLIC]);
    assert_eq!(scene.look(), Some(at(PUBLIC)));
}

#[test]
fn nothing_is_sent_while_the_peer_answers_or_nobody_speaks() {
    let mut scene = Scene::new(&[], &[PUBLIC, LAN]);
    scene.look();
    scene.handshake();
    assert_eq!(scene.silence(60), [], "the handshake is fresh");
    scene.seen.last_handshake = Some(Duration::from_secs(3600));
    for _ in 0..20 {
        scene.now += Duration::from_secs(60);
        assert_eq!(scene.look(), None, "nothing is sent, so nothing is unanswered");
    }
    scene.seen.rx_bytes += 1;
    assert_eq!(scene.silence(5), []);
}

#[test]
fn what_does_not_answer_for_ten_seconds_gives_way_to_the_next_in_turn() {
    let mut scene = Scene::new(&["192.168.1.9/24"], &[ELSEWHERE, PUBLIC, LAN]);
    assert_eq!(scene.look(), Some(at(LAN)));
    assert_eq!(scene.silence(10), [], "waits from the first packet that is seen unanswered");
    assert_eq!(scene.silence(5), [at(PUBLIC)]);
    assert_eq!(scene.silence(15), [at(ELSEWHERE)]);
    assert_eq!(scene.silence(15), [at(LAN)]);
    scene.handshake();
    assert_eq!(scene.silence(60), []);
}

#[test]
fn an_only_candidate_is_never_sent_again() {
    let mut scene = Scene::new(&[], &[PUBLIC]);
    scene.look();
    assert_eq!(scene.silence(600), []);
}

#[test]
fn a_peer_that_moves_is_followed_at_once() {
    let mut scene = Scene::new(&[], &[PUBLIC]);
    scene.look();
    scene.handshake();
    scene.publish(&["203.0.113.5:51820"]);
    assert_eq!(scene.look(), Some(at("203.0.113.5:51820")));
    assert_eq!(scene.look(), None);
}

#[test]
fn a_working_endpoint_survives_a_change_of_the_others() {
    let mut scene = Scene::new(&[], &[PUBLIC, ELSEWHERE]);
    scene.look();
    scene.handshake();
    scene.publish(&[LAN, ELSEWHERE, PUBLIC]);
    assert_eq!(scene.look(), None);
}

#[test]
fn a_peer_behind_nat_keeps_the_port_it_is_seen_at() {
    let mut scene = Scene::new(&[], &[LAN, PUBLIC]);
    scene.look();
    scene.seen.endpoint = Some(at("198.51.100.7:40001"));
    scene.handshake();
    scene.publish(&[ELSEWHERE, PUBLIC]);
    assert_eq!(scene.look(), None, "its public address is the same");
    scene.now += Duration::from_secs(60);
    scene.publish(&[ELSEWHERE, "203.0.113.5:51820"]);
    assert_eq!(scene.look(), Some(at("203.0.113.5:51820")), "it moved to another one");
}

#[test]
fn a_restarted_agent_keeps_what_the_device_has() {
    let mut scene = Scene::new(&[], &[LAN, PUBLIC]);
    scene.look();
    scene.seen.endpoint = Some(at("203.0.113.99:40001"));
    scene.handshake();
    scene.memory = EndpointMemory::default();
    assert_eq!(scene.look(), None);
    scene.seen.last_handshake = Some(Duration::from_secs(200));
    assert_eq!(scene.look(), Some(at(PUBLIC)), "it neither works nor is it the control plane's");
}

#[test]
fn a_clock_that_jumps_moves_nobody_who_answers() {
    let mut scene = Scene::new(&[], &[LAN, PUBLIC]);
    scene.look();
    for age in [None, Some(Duration::from_secs(1 << 20))] {
        for _ in 0..30 {
            scene.handshake();
            scene.seen.last_handshake = age;
            scene.now += Duration::from_secs(5);
            assert_eq!(scene.look(), None);
        }
    }
}

/// The device hears from the peer before the control plane's word of it arrives.
#[test]
fn an_endpoint_just_learnt_from_the_peer_is_fresher_than_the_control_plane() {
    let roamed = at("203.0.113.5:40001");
    let scene = || {
        let mut scene = Scene::new(&[], &[PUBLIC]);
        scene.look();
        scene.handshake();
        scene.look();
        scene.seen.endpoint = Some(roamed);
        scene.handshake();
        scene.publish(&["203.0.113.99:51820"]);
        assert_eq!(scene.look(), None, "what was on its way is older");
        scene.now += Duration::from_secs(15);
        scene
    };
    let mut answers = scene();
    answers.seen.rx_bytes += 100;
    assert_eq!(answers.look(), None, "it works");
    assert_eq!(answers.silence(60), []);

    let mut silent = scene();
    assert_eq!(silent.look(), Some(at("203.0.113.99:51820")), "nothing came from there since");
}

#[test]
fn behind_the_same_nat_private_addresses_come_first() {
    let first = |attached: &str, nat: &str, candidates: &[&str]| {
        let mut scene = Scene::new(&[attached], candidates);
        scene.memory.set_nat(Some(at(nat).ip()));
        scene.look()
    };
    let (routed, seen) = ("172.16.0.1/24", "198.51.100.7:1");
    assert_eq!(first(routed, seen, &[ELSEWHERE, PUBLIC]), Some(at(ELSEWHERE)));
    assert_eq!(first("192.168.1.9/24", seen, &[ELSEWHERE, PUBLIC, LAN]), Some(at(LAN)));
    assert_eq!(first(routed, "203.0.113.9:1", &[ELSEWHERE, PUBLIC]), Some(at(PUBLIC)), "another");
    // Whoever comes to the control plane through a proxy's private address isn't at one site.
    let proxied = "10.9.9.9:51820";
    assert_eq!(first(routed, proxied, &[ELSEWHERE, PUBLIC, proxied]), Some(at(PUBLIC)));
}

const TRANSLATED: &str = "198.51.100.7:40001";

#[test]
fn a_peer_behind_nat_is_found_where_it_is_heard_from() {
    let mut scene = Scene::new(&[], &[LAN, PUBLIC]);
    scene.look();
    assert_eq!(scene.found(), None, "nothing was heard");
    scene.seen.endpoint = Some(at(TRANSLATED));
    scene.handshake();
    scene.look();
    let first = scene.found().unwrap();
    assert_eq!(first.0, at(TRANSLATED));
    scene.seen.last_handshake = Some(Duration::from_secs(180));
    assert_eq!(scene.found(), None, "too long ago");
    scene.handshake();
    assert_eq!(scene.found(), Some(first), "the same is no news");

    scene.publish(&[LAN, TRANSLATED]);
    scene.look();
    assert_eq!(scene.found(), None, "it is known");
    // Somebody else says otherwise. Only what comes from there now can contradict.
    scene.publish(&[LAN, "198.51.100.7:40002"]);
    scene.look();
    assert_eq!(scene.found(), None, "nothing was heard since");
    scene.handshake();
    assert_eq!(scene.found(), Some(first), "which was said already");

    scene.seen.endpoint = Some(at("198.51.100.7:40003"));
    assert_eq!(scene.found(), Some((at("198.51.100.7:40003"), first.1 + 1)));
    scene.seen.endpoint = Some(at("203.0.113.77:40003"));
    assert_eq!(scene.found(), None, "the control plane doesn't see it there");
    scene.publish(&[LAN, "203.0.113.77:51820"]);
    scene.look();
    scene.handshake();
    assert_eq!(scene.found().unwrap().1, first.1 + 2, "now it does");
    // Moved away and back: the control plane has forgotten the port.
    scene.publish(&[LAN, PUBLIC]);
    scene.look();
    scene.seen.endpoint = Some(at("198.51.100.7:40003"));
    scene.handshake();
    assert_eq!(scene.found().unwrap().1, first.1 + 3);
}

/// What others say of a port may be wrong, or meant for others: a path that works stays.
#[test]
fn another_port_of_a_nat_is_taken_where_the_one_in_use_is_silent() {
    let moved = "198.51.100.7:40002";
    let scene = |handshake: bool| {
        let mut scene = Scene::new(&["172.16.0.1/24"], &[LAN, TRANSLATED]);
        assert_eq!(scene.look(), Some(at(TRANSLATED)));
        if handshake {
            scene.handshake();
            scene.look();
        }
        scene.publish(&[LAN, moved]);
        scene
    };
    let mut new = scene(false);
    assert_eq!(new.look(), Some(at(moved)), "it never worked");

    let mut silent = scene(true);
    assert_eq!(silent.look(), None);
    assert!(silent.memory.is_undecided());
    silent.now += Duration::from_secs(9);
    assert_eq!(silent.look(), None);
    silent.now += Duration::from_secs(1);
    assert_eq!(silent.look(), Some(at(moved)));

    let mut answers = scene(true);
    assert_eq!(answers.look(), None);
    answers.seen.rx_bytes += 100;
    answers.now += Duration::from_secs(15);
    assert_eq!(answers.look(), None);
    assert_eq!(answers.silence(60), []);
    assert!(!answers.memory.is_undecided());
}

#[test]
fn a_peer_that_is_new_or_elsewhere_is_expected_until_it_is_heard() {
    let mut scene = Scene::new(&[], &[LAN, PUBLIC]);
    scene.look();
    assert!(scene.memory.is_expecting(scene.now));
    scene.handshake();
    scene.look();
    assert!(!scene.memory.is_expecting(scene.now));
    scene.publish(&[LAN, TRANSLATED]);
    scene.look();
    assert!(scene.memory.is_expecting(scene.now));
    scene.now += Duration::from_secs(30);
    assert!(!scene.memory.is_expecting(scene.now), "not for ever");
}
