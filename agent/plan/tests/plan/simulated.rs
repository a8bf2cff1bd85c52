//! Devices that exist in memory, each with the habits of a real one, and the peers to put on them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use ipnet::IpNet;
use wattle_model::{Endpoint, Generation, NetworkSecret, NodeId, PeerSpec, PublicKey, Secrets};
use wattle_plan::{DeviceSpec, Maker, Observed, ObservedPeer, Op, Prefixes, Route, SetPeer, Table};

pub(crate) type Owners = BTreeMap<IpNet, PublicKey>;

/// What both devices do alike.
pub(crate) trait Device: Default {
    fn execute(&mut self, op: &Op);
    fn observe(&self) -> Observed;
    /// Whose packets a prefix's are.
    fn owners(&self) -> Owners;
}

/// Peers without their prefixes, and the link.
#[derive(Debug, Default)]
struct Rest {
    link: Observed,
}

impl Rest {
    /// `false` where the peer to update isn't there.
    fn execute(&mut self, op: &Op) -> bool {
        let link = &mut self.link;
        match op {
            Op::SetMtu(mtu) => link.mtu = *mtu,
            Op::SetListenPort(port) => link.listen_port = *port,
            Op::AddAddress(address) => drop(link.addresses.insert(*address)),
            Op::RemoveAddress(address) => drop(link.addresses.remove(address)),
            Op::SetUp => link.up = true,
            Op::SetMark(mark) => link.mark = *mark,
            Op::AddRoute(route) => drop(link.routes.insert(*route, Maker::Us)),
            Op::RemoveRoute(route) => drop(link.routes.remove(route)),
            Op::AddRule(rule) => drop(link.rules.insert(*rule)),
            Op::RemoveRule(rule) => drop(link.rules.remove(rule)),
            Op::RemovePeer { key } => drop(link.peers.remove(key)),
            Op::SetPeer(SetPeer { key, create, endpoint, keepalive, preshared, .. }) => {
                if !create && !link.peers.contains_key(key) {
                    return false;
                }
                let peer = link.peers.entry(*key).or_default();
                peer.endpoint = endpoint.or(peer.endpoint);
                peer.keepalive = keepalive.map_or(peer.keepalive, |k| (k != 0).then_some(k));
                if let Some(preshared) = preshared {
                    peer.preshared = preshared.clone();
                }
            }
        }
        true
    }

    /// With the routes that a kernel makes by itself.
    fn observe(&self) -> Observed {
        let mut observed = self.link.clone();
        for net in observed.addresses.iter().filter(|_| observed.up) {
            let route = Route { destination: net.trunc(), table: Table::Main };
            observed.routes.entry(route).or_insert(Maker::Other);
        }
        observed
    }
}

/// One owner a prefix; giving it to another takes it away in the same moment.
#[derive(Debug, Default)]
pub(crate) struct KernelLike {
    rest: Rest,
    owners: Owners,
}

impl Device for KernelLike {
    fn execute(&mut self, op: &Op) {
        if !self.rest.execute(op) {
            return;
        }
        match op {
            Op::RemovePeer { key } => self.owners.retain(|_, owner| owner != key),
            Op::SetPeer(SetPeer { key, prefixes, .. }) => {
                if matches!(prefixes, Prefixes::Replace(_)) {
                    self.owners.retain(|_, owner| owner != key);
                }
                if let Prefixes::Add(given) | Prefixes::Replace(given) = prefixes {
                    self.owners.extend(given.iter().map(|prefix| (*prefix, *key)));
                }
            }
            _ => {}
        }
    }

    fn observe(&self) -> Observed {
        let mut observed = self.rest.observe();
        for (prefix, key) in &self.owners {
            let peer = observed.peers.get_mut(key).expect("an owner is a peer");
            peer.allowed_ips.insert(*prefix);
        }
        observed
    }

    fn owners(&self) -> Owners {
        self.owners.clone()
    }
}

/// As gotatun 0.10.2: a routing table, and a list a peer that nobody else's update prunes. Any
/// update of a peer puts its whole list into the table again.
#[derive(Debug, Default)]
pub(crate) struct GotatunLike {
    rest: Rest,
    lists: BTreeMap<PublicKey, BTreeSet<IpNet>>,
    table: Owners,
}

impl Device for GotatunLike {
    fn execute(&mut self, op: &Op) {
        if !self.rest.execute(op) {
            return;
        }
        match op {
            Op::RemovePeer { key } => {
                self.lists.remove(key);
                self.table.retain(|_, owner| owner != key);
            }
            Op::SetPeer(SetPeer { key, prefixes, .. }) => {
                let list = self.lists.entry(*key).or_default();
                if matches!(prefixes, Prefixes::Replace(_)) {
                    list.clear();
                }
                if let Prefixes::Add(given) | Prefixes::Replace(given) = prefixes {
                    list.extend(given);
                }
                self.table.retain(|_, owner| owner != key);
                self.table.extend(list.iter().map(|prefix| (*prefix, *key)));
            }
            _ => {}
        }
    }

    fn observe(&self) -> Observed {
        let mut observed = self.rest.observe();
        for (key, list) in &self.lists {
            observed.peers.insert(
                *key,
                ObservedPeer { allowed_ips: list.clone(), ..observed.peers[key].clone() },
            );
        }
        observed
    }

    fn owners(&self) -> Owners {
        self.table.clone()
    }
}

pub(crate) const OWN: NodeId = NodeId::new([0xff; 16]);

pub(crate) fn device() -> DeviceSpec {
    let addresses = vec!["10.90.0.200/16".parse().unwrap(), "fd00::c8/64".parse().unwrap()];
    DeviceSpec { listen_port: 51820, addresses, mtu: 1420, mark: 7 }
}

pub(crate) fn key(index: u8) -> PublicKey {
    PublicKey::new([index + 1; 32]).unwrap()
}

pub(crate) fn endpoint(text: &str) -> Endpoint {
    Endpoint::new(text.parse::<SocketAddr>().unwrap()).unwrap()
}

/// A peer that has IPv4 address `v4` and IPv6 address `v6` of the network, if given.
pub(crate) fn peer(node: u8, key_index: u8, v4: Option<u8>, v6: Option<u8>) -> PeerSpec {
    PeerSpec {
        node: NodeId::new([node; 16]),
        name: format!("node-{node}").parse().unwrap(),
        public_key: key(key_index),
        next_public_key: None,
        ipv4: v4.map(|host| [10, 90, 0, host].into()),
        ipv6: v6.map(|host| format!("fd00::{host:x}").parse().unwrap()),
        endpoints: vec![endpoint(&format!("198.51.100.{node}:51820"))],
        secret_generation: Generation::NONE,
    }
}

/// What a node has whose entry says `used`, and that holds two secrets.
pub(crate) fn secrets(used: u64) -> Secrets {
    let known = [1, 2].map(|n| (Generation(n), NetworkSecret::new([n as u8; 32])));
    Secrets { used: Generation(used), known: known.into() }
}

/// Who should have what.
pub(crate) fn wanted_owners(peers: &[PeerSpec]) -> Owners {
    let mut owners = Owners::new();
    for peer in peers {
        owners.extend(peer.ipv4.map(|a| (IpNet::from(std::net::IpAddr::V4(a)), peer.public_key)));
        owners.extend(peer.ipv6.map(|a| (IpNet::from(std::net::IpAddr::V6(a)), peer.public_key)));
    }
    owners
}
