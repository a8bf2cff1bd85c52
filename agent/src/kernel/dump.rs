//! A device's dump as it comes: in pieces, of which one may end in the middle of a peer.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use netlink_packet_wireguard::nlas::{
    WgAllowedIp, WgAllowedIpAttrs, WgDeviceAttrs, WgPeer, WgPeerAttrs,
};
use wattle_model::{PresharedKey, PublicKey};
use wattle_plan::ObservedPeer;
use zeroize::Zeroize as _;

/// A device's own settings and its peers.
#[derive(Debug, Default)]
pub(crate) struct Dump {
    pub(crate) public_key: Option<PublicKey>,
    pub(crate) listen_port: u16,
    pub(crate) mark: u32,
    pub(crate) peers: BTreeMap<PublicKey, ObservedPeer>,
}

impl Dump {
    /// Takes in one piece.
    pub(crate) fn absorb(&mut self, piece: Vec<WgDeviceAttrs>) {
        let now = SystemTime::now();
        for attribute in piece {
            match attribute {
                WgDeviceAttrs::PublicKey(key) => self.public_key = PublicKey::new(key).ok(),
                WgDeviceAttrs::ListenPort(port) => self.listen_port = port,
                WgDeviceAttrs::Fwmark(mark) => self.mark = mark,
                WgDeviceAttrs::Peers(peers) => {
                    peers.into_iter().for_each(|part| self.absorb_peer(part, now));
                }
                WgDeviceAttrs::PrivateKey(mut key) => key.zeroize(),
                _ => {}
            }
        }
    }

    /// A peer with many prefixes comes as several parts, of which only the first has its counters.
    fn absorb_peer(&mut self, part: WgPeer, now: SystemTime) {
        let key = part.0.iter().find_map(|attribute| match attribute {
            WgPeerAttrs::PublicKey(key) => PublicKey::new(*key).ok(),
            _ => None,
        });
        let Some(key) = key else { return };
        let peer = self.peers.entry(key).or_default();
        for attribute in part.0 {
            match attribute {
                WgPeerAttrs::Endpoint(endpoint) => peer.endpoint = Some(endpoint),
                WgPeerAttrs::PersistentKeepalive(seconds) => {
                    peer.keepalive = Some(seconds).filter(|seconds| *seconds != 0);
                }
                WgPeerAttrs::LastHandshake(at) => peer.last_handshake = age(at, now),
                WgPeerAttrs::RxBytes(bytes) => peer.rx_bytes = bytes,
                WgPeerAttrs::TxBytes(bytes) => peer.tx_bytes = bytes,
                WgPeerAttrs::PresharedKey(mut key) => {
                    peer.preshared = PresharedKey::new(key);
                    key.zeroize();
                }
                WgPeerAttrs::AllowedIps(allowed) => {
                    peer.allowed_ips.extend(allowed.iter().filter_map(prefix));
                }
                _ => {}
            }
        }
    }
}

fn prefix(allowed: &WgAllowedIp) -> Option<IpNet> {
    let (mut address, mut length) = (None, None);
    for attribute in &allowed.0 {
        match attribute {
            WgAllowedIpAttrs::IpAddr(ip) => address = Some(*ip),
            WgAllowedIpAttrs::Cidr(cidr) => length = Some(*cidr),
            _ => {}
        }
    }
    IpNet::new(address?, length?).ok()
}

/// `None`: there was none, or the clock jumped behind it.
fn age(at: SystemTime, now: SystemTime) -> Option<Duration> {
    (at != SystemTime::UNIX_EPOCH).then(|| now.duration_since(at).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(index: u8, more: Vec<WgPeerAttrs>) -> WgDeviceAttrs {
        let allowed = WgAllowedIp(vec![
            WgAllowedIpAttrs::IpAddr([10, 0, 0, index].into()),
            WgAllowedIpAttrs::Cidr(32),
        ]);
        let head = vec![WgPeerAttrs::PublicKey([7; 32]), WgPeerAttrs::AllowedIps(vec![allowed])];
        WgDeviceAttrs::Peers(vec![WgPeer(head.into_iter().chain(more).collect())])
    }

    #[test]
    fn a_peer_in_several_parts_is_one_peer() {
        let nine = SystemTime::now() - Duration::from_secs(9);
        let counters = vec![
            WgPeerAttrs::Endpoint("192.0.2.1:1".parse().unwrap()),
            WgPeerAttrs::PersistentKeepalive(25),
            WgPeerAttrs::LastHandshake(nine),
            WgPeerAttrs::PresharedKey([0; 32]),
            WgPeerAttrs::RxBytes(5),
        ];
        let mut dump = Dump::default();
        dump.absorb(vec![part(1, counters)]);
        dump.absorb(vec![part(2, vec![])]);
        let [peer] = &dump.peers.into_values().collect::<Vec<_>>()[..] else { panic!("one peer") };
        assert_eq!(peer.allowed_ips.len(), 2);
        assert_eq!(peer.endpoint, Some("192.0.2.1:1".parse().unwrap()));
        assert_eq!((peer.keepalive, peer.rx_bytes), (Some(25), 5));
        assert!(peer.preshared.is_none());
        assert!(peer.last_handshake.is_some_and(|age| age.as_secs() == 9), "{peer:?}");
    }

    #[test]
    fn a_handshake_in_the_future_and_none_have_no_age() {
        let now = SystemTime::now();
        assert_eq!(age(now + Duration::from_secs(60), now), None);
        assert_eq!(age(SystemTime::UNIX_EPOCH, now), None);
    }
}
