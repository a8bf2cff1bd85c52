//! The kernel's WireGuard. Dumps and the device's own settings go through `wireguard-control`;
//! peers are written as `peer_message` says.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST};
use netlink_packet_generic::GenlMessage;
use netlink_packet_wireguard::Wireguard;
use netlink_request::{max_genl_payload_length, netlink_request_genl};
use wattle_model::{PrivateKey, PublicKey};
use wattle_plan::{Observed, ObservedPeer, Op};
use wireguard_control::{AllowedIp, Backend, Device, DeviceUpdate, InterfaceName, Key, PeerInfo};

use super::{
    DataPlaneKind, Failed, Kernel, KernelError,
    link::{Found, Link},
    peer_message,
};

/// What Linux calls the kind of link.
const KIND: &str = "wireguard";

/// A WireGuard link of the kernel.
pub(crate) struct KernelWireguard {
    link: Link,
    name: InterfaceName,
    private_key: PrivateKey,
    listen_port: u16,
    removed: bool,
}

impl KernelWireguard {
    /// Adopts the link if it is ours, makes it if there is none.
    pub(crate) async fn open(
        interface: &str,
        private_key: &PrivateKey,
        listen_port: u16,
    ) -> Result<Self, KernelError> {
        let link = Link::new(interface)?;
        let name = interface.parse().map_err(|_| KernelError::InvalidName(interface.to_owned()))?;
        let private_key = private_key.clone();
        let kernel = Self { link, name, private_key, listen_port, removed: false };
        kernel.ensure().await?;
        Ok(kernel)
    }

    /// The link and its WireGuard side, made if somebody took it away; refused if it isn't ours.
    async fn ensure(&self) -> Result<(Found, Device), KernelError> {
        if let Some(found) = self.link.find().await? {
            return self.adopt(found).await;
        }
        self.link.create_wireguard().await?;
        let Some(found) = self.link.find().await? else { return Err(self.gone()) };
        match self.adopt(found).await {
            Ok(adopted) => Ok(adopted),
            Err(error) => {
                // A link without a key would look like somebody else's half-made one.
                self.link.delete().await?;
                Err(error)
            }
        }
    }

    /// A link is ours if it has our key; one without any key is one whose making was cut short.
    async fn adopt(&self, found: Found) -> Result<(Found, Device), KernelError> {
        if found.kind != KIND {
            let kind = if found.kind.is_empty() { "hardware" } else { &found.kind };
            return Err(self.not_ours(format!("it is a link of kind {kind}")));
        }
        let mut device = self.dump().await?;
        if device.public_key.is_none() {
            self.set_device(
                DeviceUpdate::new()
                    .set_private_key(Key(*self.private_key.expose_bytes()))
                    .set_listen_port(self.listen_port),
            )
            .await?;
            device = self.dump().await?;
        }
        if device.public_key.as_ref().map(|key| key.0) != Some(self.public_key()) {
            return Err(self.not_ours("it has another private key".to_owned()));
        }
        Ok((found, device))
    }

    fn public_key(&self) -> [u8; 32] {
        let secret = x25519_dalek::StaticSecret::from(*self.private_key.expose_bytes());
        x25519_dalek::PublicKey::from(&secret).to_bytes()
    }

    async fn dump(&self) -> Result<Device, KernelError> {
        let name = self.name;
        let result = blocking(move || Device::get(&name, Backend::Kernel)).await;
        result.map_err(|error| self.link.error("reading peers", error))
    }

    /// Only for a link that is there: `wireguard-control` makes one where there is none.
    async fn set_device(&self, update: DeviceUpdate) -> Result<(), KernelError> {
        let name = self.name;
        let result = blocking(move || update.apply(&name, Backend::Kernel)).await;
        result.map_err(|error| self.link.error("setting the key and the port", error))
    }

    /// Peer operations that follow each other, in as few messages as they fit. The kernel stops at
    /// the first it refuses and doesn't say which, so then they are repeated one by one: each may
    /// be done twice.
    async fn apply_peers(&self, first: usize, ops: &[Op], failed: &mut Vec<Failed>) {
        if self.send(ops).await.is_ok() {
            return;
        }
        for (at, op) in ops.iter().enumerate() {
            if let Err(error) = self.send(std::slice::from_ref(op)).await {
                failed.push(Failed { op: first + at, reason: error.to_string() });
            }
        }
    }

    async fn send(&self, ops: &[Op]) -> io::Result<()> {
        let messages = peer_message::messages(self.link.name(), ops, max_genl_payload_length());
        blocking(move || {
            messages.into_iter().try_for_each(|message: Wireguard| {
                let message = GenlMessage::from_payload(message);
                netlink_request_genl(message, Some(NLM_F_REQUEST | NLM_F_ACK)).map(drop)
            })
        })
        .await
    }

    async fn apply_one(&self, op: &Op) -> Result<(), String> {
        if let Some(result) = self.link.execute(op).await {
            return result.map_err(|error| self.explain(op, &error));
        }
        let Op::SetListenPort(port) = op else { return Ok(()) };
        if self.link.find().await.map_err(|error| error.to_string())?.is_none() {
            return Err(self.gone().to_string());
        }
        self.set_device(DeviceUpdate::new().set_listen_port(*port))
            .await
            .map_err(|error| error.to_string())
    }

    /// A WireGuard link takes its port when it goes up.
    fn explain(&self, op: &Op, error: &io::Error) -> String {
        if matches!(op, Op::SetUp) && error.kind() == io::ErrorKind::AddrInUse {
            format!(
                "UDP port {} is in use: free it or choose another with --listen-port",
                self.listen_port
            )
        } else {
            error.to_string()
        }
    }

    fn not_ours(&self, why: String) -> KernelError {
        KernelError::NotOurs { interface: self.link.name().to_owned(), why }
    }

    fn gone(&self) -> KernelError {
        KernelError::Gone { interface: self.link.name().to_owned() }
    }
}

#[async_trait]
impl Kernel for KernelWireguard {
    async fn observe(&mut self) -> Result<Observed, KernelError> {
        if self.removed {
            return Err(self.gone());
        }
        let (found, device) = self.ensure().await?;
        Ok(Observed {
            public_key: device.public_key.as_ref().and_then(|key| PublicKey::new(key.0).ok()),
            listen_port: device.listen_port.unwrap_or(0),
            addresses: self.link.addresses(found.index).await?,
            mtu: found.mtu,
            up: found.up,
            peers: merged(&device.peers, SystemTime::now()),
        })
    }

    async fn apply(&mut self, ops: &[Op]) -> Result<Vec<Failed>, KernelError> {
        if self.removed {
            return Err(self.gone());
        }
        let mut failed = Vec::new();
        let mut at = 0;
        while let Some(op) = ops.get(at) {
            let peers = ops[at..].iter().take_while(|op| is_peer(op)).count();
            if peers > 0 {
                self.apply_peers(at, &ops[at..at + peers], &mut failed).await;
            } else if let Err(reason) = self.apply_one(op).await {
                failed.push(Failed { op: at, reason });
            }
            at += peers.max(1);
        }
        Ok(failed)
    }

    async fn remove(&mut self) -> Result<(), KernelError> {
        self.removed = true;
        if let Some(found) = self.link.find().await? {
            self.adopt(found).await?;
            self.link.delete().await?;
        }
        Ok(())
    }

    fn kind(&self) -> DataPlaneKind {
        DataPlaneKind::Kernel
    }
}

const fn is_peer(op: &Op) -> bool {
    matches!(op, Op::SetPeer(_) | Op::RemovePeer { .. })
}

/// Netlink answers within microseconds, or after a dump of many peers: off the async threads.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(call).await.map_err(io::Error::other)?
}

/// A peer with many prefixes comes as several parts, of which only the first has its counters.
fn merged(parts: &[PeerInfo], now: SystemTime) -> BTreeMap<PublicKey, ObservedPeer> {
    let mut peers: BTreeMap<PublicKey, ObservedPeer> = BTreeMap::new();
    for part in parts {
        let Ok(key) = PublicKey::new(part.config.public_key.0) else { continue };
        let peer = peers.entry(key).or_default();
        peer.allowed_ips.extend(part.config.allowed_ips.iter().filter_map(prefix));
        peer.endpoint = peer.endpoint.or(part.config.endpoint);
        peer.keepalive =
            peer.keepalive.or(part.config.persistent_keepalive_interval).filter(|s| *s != 0);
        peer.last_handshake = peer.last_handshake.or_else(|| age(part, now));
        peer.rx_bytes += part.stats.rx_bytes;
        peer.tx_bytes += part.stats.tx_bytes;
    }
    peers
}

fn prefix(allowed: &AllowedIp) -> Option<IpNet> {
    IpNet::new(allowed.address, allowed.cidr).ok()
}

fn age(part: &PeerInfo, now: SystemTime) -> Option<Duration> {
    now.duration_since(part.stats.last_handshake_time?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_in_several_parts_is_one_peer() {
        let now = SystemTime::now();
        let part = |index: u8| {
            let mut part = PeerInfo::from_public_key(Key([7; 32]));
            part.config.allowed_ips =
                vec![AllowedIp { address: [10, 0, 0, index].into(), cidr: 32 }];
            part
        };
        let (mut first, second) = (part(1), part(2));
        first.config.endpoint = Some("192.0.2.1:1".parse().unwrap());
        first.config.persistent_keepalive_interval = Some(25);
        first.stats.rx_bytes = 5;
        first.stats.last_handshake_time = Some(now - Duration::from_secs(9));
        let peers = merged(&[first, second], now);
        let [peer] = &peers.into_values().collect::<Vec<_>>()[..] else { panic!("one peer") };
        assert_eq!(peer.allowed_ips.len(), 2);
        assert_eq!(peer.endpoint, Some("192.0.2.1:1".parse().unwrap()));
        assert_eq!((peer.keepalive, peer.rx_bytes), (Some(25), 5));
        assert_eq!(peer.last_handshake, Some(Duration::from_secs(9)));
    }

    #[test]
    fn a_handshake_in_the_future_has_no_age() {
        let now = SystemTime::now();
        let mut part = PeerInfo::from_public_key(Key([7; 32]));
        part.stats.last_handshake_time = Some(now + Duration::from_secs(60));
        assert_eq!(age(&part, now), None);
    }
}
