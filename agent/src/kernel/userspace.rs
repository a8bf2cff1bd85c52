//! A WireGuard device inside the agent, for kernels that have none: gotatun on a TUN link. It lives
//! as long as the agent; its link goes with it.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use async_trait::async_trait;
use futures::FutureExt as _;
use gotatun::{
    device::{DefaultDeviceTransports, Device, DeviceBuilder, Error, Peer},
    tun::tun_async_device::{Error as TunError, TunDevice},
    x25519,
};
use ipnet::IpNet;
use tokio::time::Instant;
use wattle_model::{PresharedKey, PrivateKey, PublicKey};
use wattle_plan::{Observed, ObservedPeer, Op, Prefixes, Repaired, SetPeer};

use super::{
    DataPlaneKind, Failed, Kernel, KernelError, Place, handshakes::Handshakes, link::Link,
};

/// How often, and after what pause, a port in use is tried again: a second in all.
const BIND_RETRIES: u32 = 20;
const BIND_PAUSE: Duration = Duration::from_millis(50);

type Wireguard = Device<DefaultDeviceTransports>;

/// A TUN link and the device that moves its packets.
pub(crate) struct Userspace {
    link: Link,
    private_key: PrivateKey,
    /// The port asked for, then the one in use.
    listen_port: u16,
    /// The mark in use; a device that is made anew has none.
    mark: u32,
    /// `None` once removed.
    device: Option<Wireguard>,
    handshakes: Handshakes,
    /// The device's socket is closed and couldn't be opened.
    deaf: bool,
}

impl Userspace {
    /// Makes the link and the device; a link of that name mustn't be there.
    pub(crate) async fn open(place: &Place) -> Result<Self, KernelError> {
        let Place { interface, private_key, listen_port, mark, .. } = place.clone();
        let link = Link::new(&interface, mark)?;
        if let Some(found) = link.find().await? {
            let kind = if found.kind.is_empty() { "hardware" } else { &found.kind };
            let why = format!("a link of kind {kind} has the name; is another agent running?");
            return Err(KernelError::NotOurs { interface, why });
        }
        let (device, handshakes, deaf) = (None, Handshakes::default(), false);
        let mut userspace =
            Self { link, private_key, listen_port, mark: 0, device, handshakes, deaf };
        userspace.start().await?;
        Ok(userspace)
    }

    async fn start(&mut self) -> Result<(), KernelError> {
        let tun = TunDevice::from_name(self.link.name()).map_err(|error| self.tun_error(error))?;
        let device = DeviceBuilder::new()
            .with_default_udp()
            .with_ip(tun)
            .with_listen_port(self.listen_port)
            .build()
            .await
            .map_err(|error| self.device_error(error))?;
        self.bind(&device).await.map_err(|error| self.device_error(error))?;
        self.listen_port = device.read(async |device| device.listen_port()).await;
        self.device = Some(device);
        (self.deaf, self.mark) = (false, 0);
        Ok(())
    }

    /// A device built without peers opens no socket; setting its key does. One that was stopped
    /// closes its own a moment later, so a port in use is tried again.
    async fn bind(&self, device: &Wireguard) -> Result<(), Error> {
        let key = x25519::StaticSecret::from(*self.private_key.expose_bytes());
        let mut bound = device.set_private_key(key).await;
        for _ in 0..BIND_RETRIES {
            if !matches!(&bound, Err(Error::Bind(error, _)) if error.kind() == io::ErrorKind::AddrInUse)
            {
                break;
            }
            tokio::time::sleep(BIND_PAUSE).await;
            // Of what makes the device open its socket, this alone changes nothing else: there are
            // no peers yet.
            bound = device.clear_peers().await.map(drop);
        }
        bound
    }

    /// The device stops for good when its link is taken away or down: then both are made anew, and
    /// the next difference fills them.
    async fn revive(&mut self) -> Result<Vec<Repaired>, KernelError> {
        let Some(device) = &mut self.device else { return Err(self.gone()) };
        let stopped = device.wait().now_or_never().is_some();
        if !stopped && !self.deaf && self.link.find().await?.is_some() {
            return Ok(Vec::new());
        }
        tracing::warn!(
            interface = self.link.name(),
            "the userspace device stopped; starting it again"
        );
        self.stop().await?;
        self.start().await?;
        Ok(vec![Repaired::Link])
    }

    async fn stop(&mut self) -> Result<(), KernelError> {
        if let Some(device) = self.device.take() {
            device.stop().await;
        }
        // The device lets go of its link in its own time; the name is needed now.
        self.link.delete().await
    }

    async fn execute(&mut self, op: &Op) -> Result<(), String> {
        if let Some(result) = self.link.execute(op).await {
            return result.map_err(|error| error.to_string());
        }
        let Some(device) = &self.device else { return Err(self.gone().to_string()) };
        match op {
            Op::SetListenPort(port) => return self.listen(*port).await,
            Op::SetMark(mark) => {
                device.set_fwmark(*mark).await.map_err(|error| error.to_string())?;
                self.mark = *mark;
            }
            Op::SetPeer(set) => return set_peer(device, set).await,
            Op::RemovePeer { key } => {
                let key = x25519::PublicKey::from(*key.as_bytes());
                device.remove_peer(&key).await.map_err(|error| error.to_string())?;
            }
            // The link's.
            _ => {}
        }
        Ok(())
    }

    /// The device closes its socket before it opens the next, so a port that is taken is found out
    /// first. If it can't be opened all the same, the device is made anew on the old one.
    async fn listen(&mut self, port: u16) -> Result<(), String> {
        let Some(device) = &self.device else { return Err(self.gone().to_string()) };
        let free = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port));
        if let Err(source) = free.map(drop)
            && source.kind() == io::ErrorKind::AddrInUse
        {
            return Err(KernelError::Port { port, source }.to_string());
        }
        if let Err(error) = device.set_listen_port(port).await {
            self.deaf = true;
            return Err(error.to_string());
        }
        self.listen_port = device.read(async |device| device.listen_port()).await;
        Ok(())
    }

    fn gone(&self) -> KernelError {
        KernelError::Gone { interface: self.link.name().to_owned() }
    }

    fn tun_error(&self, error: TunError) -> KernelError {
        let source = match error {
            TunError::OpenTun(error) => io::Error::from(error),
            other => io::Error::other(other),
        };
        match source.kind() {
            io::ErrorKind::NotFound => KernelError::NoTun(source),
            _ => self.link.error("making a TUN link", source),
        }
    }

    fn device_error(&self, error: Error) -> KernelError {
        match error {
            Error::Bind(source, _) => KernelError::Port { port: self.listen_port, source },
            other => self.link.error("starting the userspace device", io::Error::other(other)),
        }
    }
}

#[async_trait]
impl Kernel for Userspace {
    async fn observe(&mut self) -> Result<Observed, KernelError> {
        let repaired = self.revive().await?;
        let (Some(found), Some(device)) = (self.link.find().await?, &self.device) else {
            return Err(self.gone());
        };
        let secret = x25519::StaticSecret::from(*self.private_key.expose_bytes());
        let public = x25519::PublicKey::from(&secret).to_bytes();
        let (listen_port, peers) =
            device.read(async |device| (device.listen_port(), device.peers().await)).await;
        let mut peers = peers.into_iter().filter_map(observed).collect();
        self.handshakes.recall(&mut peers, Instant::now());
        Ok(Observed {
            public_key: PublicKey::new(public).ok(),
            listen_port,
            addresses: self.link.addresses(found.index).await?,
            mtu: found.mtu,
            up: found.up,
            mark: self.mark,
            routes: self.link.routes(found.index).await?,
            rules: self.link.rules().await?,
            repaired,
            peers,
        })
    }

    async fn apply(&mut self, ops: &[Op]) -> Result<Vec<Failed>, KernelError> {
        let mut failed = Vec::new();
        for (op, what) in ops.iter().enumerate() {
            if let Err(reason) = self.execute(what).await {
                failed.push(Failed { op, reason });
            }
        }
        Ok(failed)
    }

    /// On a device that goes on, gotatun 0.10 opens its socket before the old one is closed, and gives up:
    /// it is made anew, without peers.
    async fn rekey(&mut self, key: PrivateKey, _: Duration) -> Result<usize, KernelError> {
        self.private_key = key;
        self.stop().await?;
        self.start().await?;
        Ok(0)
    }

    async fn remove(&mut self) -> Result<(), KernelError> {
        self.link.remove_rules().await?;
        self.stop().await
    }

    fn kind(&self) -> DataPlaneKind {
        DataPlaneKind::Userspace
    }
}

async fn set_peer(device: &Wireguard, set: &SetPeer) -> Result<(), String> {
    let key = x25519::PublicKey::from(*set.key.as_bytes());
    let known = device
        .write(async |device| {
            if set.create {
                device.add_peer(Peer::new(key));
            }
            device
                .modify_peer(&key, |peer| {
                    if let Some(endpoint) = set.endpoint {
                        peer.set_endpoint(Some(endpoint));
                    }
                    if let Some(seconds) = set.keepalive {
                        peer.set_keepalive((seconds != 0).then_some(seconds));
                    }
                    if let Some(key) = &set.preshared {
                        peer.set_preshared_key((!key.is_none()).then(|| *key.expose_bytes()));
                    }
                    if matches!(set.prefixes, Prefixes::Replace(_)) {
                        peer.clear_allowed_ips();
                    }
                    if let Prefixes::Add(prefixes) | Prefixes::Replace(prefixes) = &set.prefixes {
                        prefixes.iter().for_each(|prefix| peer.add_allowed_ip(network(*prefix)));
                    }
                })
                .await
        })
        .await
        .map_err(|error| error.to_string())?;
    if known { Ok(()) } else { Err("no such peer".to_owned()) }
}

fn observed(peer: gotatun::device::configure::PeerStats) -> Option<(PublicKey, ObservedPeer)> {
    let (peer, stats) = (peer.peer, peer.stats);
    let prefix = |net: &ipnetwork::IpNetwork| IpNet::new(net.ip(), net.prefix()).ok();
    let observed = ObservedPeer {
        endpoint: peer.endpoint.map(|at| SocketAddr::new(at.ip().to_canonical(), at.port())),
        allowed_ips: peer.allowed_ips.iter().filter_map(prefix).collect(),
        last_handshake: stats.last_handshake,
        keepalive: peer.keepalive.filter(|seconds| *seconds != 0),
        preshared: peer.preshared_key.map(PresharedKey::new).unwrap_or_default(),
        rx_bytes: stats.rx_bytes as u64,
        tx_bytes: stats.tx_bytes as u64,
    };
    Some((PublicKey::new(peer.public_key.to_bytes()).ok()?, observed))
}

fn network(prefix: IpNet) -> ipnetwork::IpNetwork {
    ipnetwork::IpNetwork::new(prefix.addr(), prefix.prefix_len())
        .expect("an IpNet's length fits its family")
}
