//! Operations on peers as messages for the kernel's WireGuard, in order, each within what one
//! netlink message can hold.
//!
//! A peer may be larger than a message, and an update must never make a peer that somebody removed.

use ipnet::IpNet;
use netlink_packet_utils::Emitable as _;
use netlink_packet_wireguard::{
    constants::{
        AF_INET, AF_INET6, WGPEER_F_REMOVE_ME, WGPEER_F_REPLACE_ALLOWEDIPS, WGPEER_F_UPDATE_ONLY,
    },
    nlas::{WgAllowedIp, WgAllowedIpAttrs, WgDeviceAttrs, WgPeer, WgPeerAttrs},
};
use wattle_model::PublicKey;
use wattle_plan::{Op, Prefixes, SetPeer};

/// Prefixes in one part of a peer: an IPv6 one takes 36 bytes, so a part stays under 3 KB.
const PART: usize = 64;

/// The peer operations among `ops` as messages for the device `interface`. An operation that needs
/// several parts may be spread over two messages; it is whole once the second is executed.
pub(crate) fn messages<'a>(
    interface: &str,
    ops: impl IntoIterator<Item = &'a Op>,
    max_bytes: usize,
) -> Vec<Vec<WgDeviceAttrs>> {
    let empty = message(interface, Vec::new()).as_slice().buffer_len();
    let (mut messages, mut peers, mut bytes) = (Vec::new(), Vec::new(), empty);
    for part in ops.into_iter().flat_map(parts) {
        let size = std::slice::from_ref(&part).buffer_len();
        if bytes + size > max_bytes && !peers.is_empty() {
            messages.push(message(interface, std::mem::take(&mut peers)));
            bytes = empty;
        }
        bytes += size;
        peers.push(part);
    }
    if !peers.is_empty() {
        messages.push(message(interface, peers));
    }
    messages
}

fn message(interface: &str, peers: Vec<WgPeer>) -> Vec<WgDeviceAttrs> {
    vec![WgDeviceAttrs::IfName(interface.to_owned()), WgDeviceAttrs::Peers(peers)]
}

/// One operation as one part, or more where it has many prefixes.
fn parts(op: &Op) -> Vec<WgPeer> {
    match op {
        Op::SetPeer(peer) => set(peer),
        Op::RemovePeer { key } => vec![part(key, WGPEER_F_REMOVE_ME, &[])],
        _ => Vec::new(),
    }
}

fn set(peer: &SetPeer) -> Vec<WgPeer> {
    let (replace, prefixes): (u32, &[IpNet]) = match &peer.prefixes {
        Prefixes::Keep => (0, &[]),
        Prefixes::Add(prefixes) => (0, prefixes),
        Prefixes::Replace(prefixes) => (WGPEER_F_REPLACE_ALLOWEDIPS, prefixes),
    };
    let update = if peer.create { 0 } else { WGPEER_F_UPDATE_ONLY };
    let (head, rest) = prefixes.split_at(prefixes.len().min(PART));
    let mut first = part(&peer.key, replace | update, head);
    first.0.extend(peer.endpoint.map(WgPeerAttrs::Endpoint));
    first.0.extend(peer.keepalive.map(WgPeerAttrs::PersistentKeepalive));
    // Zeros take it away.
    let preshared = peer.preshared.as_ref().map(|key| *key.expose_bytes());
    first.0.extend(preshared.map(WgPeerAttrs::PresharedKey));
    let more = rest.chunks(PART).map(|more| part(&peer.key, WGPEER_F_UPDATE_ONLY, more));
    std::iter::once(first).chain(more).collect()
}

fn part(key: &PublicKey, flags: u32, prefixes: &[IpNet]) -> WgPeer {
    let mut attributes = vec![WgPeerAttrs::PublicKey(*key.as_bytes()), WgPeerAttrs::Flags(flags)];
    if !prefixes.is_empty() {
        attributes.push(WgPeerAttrs::AllowedIps(prefixes.iter().map(allowed).collect()));
    }
    WgPeer(attributes)
}

fn allowed(prefix: &IpNet) -> WgAllowedIp {
    let family = if prefix.addr().is_ipv4() { AF_INET } else { AF_INET6 };
    WgAllowedIp(vec![
        WgAllowedIpAttrs::Family(family),
        WgAllowedIpAttrs::IpAddr(prefix.addr()),
        WgAllowedIpAttrs::Cidr(prefix.prefix_len()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 8000;

    fn set_peer(seed: u8, create: bool, prefixes: Prefixes) -> Op {
        let key = PublicKey::new([seed; 32]).unwrap();
        let endpoint = Some("[2001:db8::1]:51820".parse().unwrap());
        Op::SetPeer(SetPeer {
            key,
            create,
            prefixes,
            endpoint,
            keepalive: Some(25),
            preshared: None,
        })
    }

    fn prefixes(count: u16) -> Vec<IpNet> {
        (0..count).map(|i| format!("fd00::{i:x}/128").parse().unwrap()).collect()
    }

    fn peers(message: &[WgDeviceAttrs]) -> &[WgPeer] {
        match message {
            [WgDeviceAttrs::IfName(name), WgDeviceAttrs::Peers(peers)] if name == "wattle0" => {
                peers
            }
            other => panic!("no device attribute but the name and the peers: {other:?}"),
        }
    }

    fn flags(peer: &WgPeer) -> u32 {
        peer.0
            .iter()
            .find_map(|a| if let WgPeerAttrs::Flags(f) = a { Some(*f) } else { None })
            .unwrap()
    }

    #[test]
    fn a_thousand_peers_fit_many_messages_in_order_and_none_replaces_peers() {
        let ops: Vec<Op> = (0..1000)
            .map(|i| set_peer((i % 250) as u8 + 1, true, Prefixes::Add(prefixes(2))))
            .collect();
        let max = MAX;
        let messages = messages("wattle0", &ops, max);
        assert!(messages.len() > 10, "{}", messages.len());
        assert!(messages.iter().all(|message| message.as_slice().buffer_len() <= max));
        let keys: Vec<_> = messages
            .iter()
            .flat_map(|message| peers(message))
            .map(|peer| peer.0[0].clone())
            .collect();
        let wanted: Vec<_> =
            (0..1000).map(|i| WgPeerAttrs::PublicKey([(i % 250) as u8 + 1; 32])).collect();
        assert_eq!(keys, wanted);
    }

    #[test]
    fn a_peer_larger_than_a_message_is_split_and_replaced_once() {
        let max = MAX;
        let op = set_peer(1, true, Prefixes::Replace(prefixes(900)));
        let messages = messages("wattle0", [&op], max);
        assert!(messages.iter().all(|message| message.as_slice().buffer_len() <= max));
        let parts: Vec<&WgPeer> = messages.iter().flat_map(|message| peers(message)).collect();
        assert_eq!(flags(parts[0]), WGPEER_F_REPLACE_ALLOWEDIPS);
        assert!(parts.len() > 10);
        assert!(parts[1..].iter().all(|part| flags(part) == WGPEER_F_UPDATE_ONLY));
    }

    #[test]
    fn only_a_creation_creates() {
        let update = set_peer(1, false, Prefixes::Keep);
        let messages = messages("wattle0", [&update, &Op::SetUp], 8000);
        assert_eq!(flags(&peers(&messages[0])[0]), WGPEER_F_UPDATE_ONLY);
        assert_eq!(messages.len(), 1);
    }
}
