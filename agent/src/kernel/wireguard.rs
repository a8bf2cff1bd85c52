//! The kernel's WireGuard: a link whose peers are dumped and written over generic netlink.

use std::{io, time::Duration};

use async_trait::async_trait;
use netlink_packet_wireguard::nlas::WgDeviceAttrs;
use wattle_model::{PrivateKey, PublicKey};
use wattle_plan::{Observed, ObservedPeer, Op, Prefixes, Repaired, SetPeer};

use super::{
    DataPlaneKind, Failed, Kernel, KernelError, Place,
    dump::Dump,
    genl::{Genl, MESSAGE},
    link::{Found, Link},
    peer_message,
};
use crate::wireguard_key;

/// What Linux calls the kind of link.
const KIND: &str = "wireguard";

/// A WireGuard link of the kernel.
pub(crate) struct KernelWireguard {
    link: Link,
    /// `None` while a call has it, and until the kernel has loaded its WireGuard.
    genl: Option<Genl>,
    private_key: PrivateKey,
    public_key: PublicKey,
    /// Keys of ours that the link may still have.
    other_keys: Vec<PublicKey>,
    listen_port: u16,
    /// The link that is known to be ours.
    index: Option<u32>,
    removed: bool,
}

impl KernelWireguard {
    /// Adopts the link if it is ours, makes it if there is none.
    pub(crate) async fn open(place: &Place) -> Result<Self, KernelError> {
        let Place { interface, private_key, other_keys, listen_port, mark } = place.clone();
        let link = Link::new(&interface, mark)?;
        let public = |key: &PrivateKey| {
            let half = wireguard_key::public(key);
            half.map_err(|error| link.error("its private key", io::Error::other(error)))
        };
        let public_key = public(&private_key)?;
        let other_keys = other_keys.iter().map(public).collect::<Result<_, _>>()?;
        let mut kernel = Self {
            link,
            genl: None,
            private_key,
            public_key,
            other_keys,
            listen_port,
            index: None,
            removed: false,
        };
        kernel.ensure().await?;
        Ok(kernel)
    }

    /// The key of the link as it is now; `None` where there is none, or it has none.
    pub(crate) async fn present_key(place: &Place) -> Option<PublicKey> {
        let link = Link::new(&place.interface, place.mark).ok()?;
        let found = link.find().await.ok()??;
        if found.kind != KIND {
            return None;
        }
        let name = link.name().to_owned();
        let dump = move || Genl::connect()?.dump(&name, Dump::absorb);
        tokio::task::spawn_blocking(dump).await.ok()?.ok()?.public_key
    }

    /// The link and its WireGuard side, made if somebody took it away; refused if it isn't ours.
    async fn ensure(&mut self) -> Result<(Found, Dump, Vec<Repaired>), KernelError> {
        let was_there = self.index.is_some();
        if let Some(found) = self.link.find().await? {
            return self.adopt(found).await;
        }
        self.link.create_wireguard().await?;
        let Some(found) = self.link.find().await? else { return Err(self.gone()) };
        match self.adopt(found).await {
            Ok((found, dump, _)) => {
                Ok((found, dump, was_there.then_some(Repaired::Link).into_iter().collect()))
            }
            Err(error) => {
                // A link without a key would look like somebody else's half-made one.
                self.link.delete().await?;
                Err(error)
            }
        }
    }

    /// A link is ours if it has our key, or the one before or after it; one without any key is one whose making was cut short. The
    /// very link that was ours before stays ours, whatever key somebody gave it.
    async fn adopt(&mut self, found: Found) -> Result<(Found, Dump, Vec<Repaired>), KernelError> {
        if found.kind != KIND {
            let kind = if found.kind.is_empty() { "hardware" } else { &found.kind };
            return Err(self.not_ours(format!("it is a link of kind {kind}")));
        }
        let mut dump = self.dump().await?;
        let mut repaired = Vec::new();
        if dump.public_key.is_none() {
            let port = WgDeviceAttrs::ListenPort(self.listen_port);
            self.set_device("setting the key and the port", vec![self.key(), port]).await?;
            dump = self.dump().await?;
        } else if dump.public_key != Some(self.public_key) {
            let before = dump.public_key.is_some_and(|key| self.other_keys.contains(&key));
            let meddled = self.index == Some(found.index);
            if before || meddled {
                self.set_device("setting the key", vec![self.key()]).await?;
                dump = self.dump().await?;
            }
            repaired.extend((meddled && !before).then_some(Repaired::PrivateKey));
        }
        if dump.public_key != Some(self.public_key) {
            return Err(self.not_ours("it has another private key".to_owned()));
        }
        self.index = Some(found.index);
        Ok((found, dump, repaired))
    }

    fn key(&self) -> WgDeviceAttrs {
        WgDeviceAttrs::PrivateKey(*self.private_key.expose_bytes())
    }

    async fn dump(&mut self) -> Result<Dump, KernelError> {
        let name = self.link.name().to_owned();
        let result = self.blocking(move |genl| genl.dump(&name, Dump::absorb)).await;
        result.map_err(|error| self.link.error("reading peers", error))
    }

    async fn set_device(
        &mut self,
        doing: &'static str,
        mut attributes: Vec<WgDeviceAttrs>,
    ) -> Result<(), KernelError> {
        attributes.insert(0, WgDeviceAttrs::IfName(self.link.name().to_owned()));
        let result = self.blocking(move |genl| genl.set(attributes)).await;
        result.map_err(|error| self.link.error(doing, error))
    }

    /// Peer operations that follow each other, in as few messages as they fit. The kernel stops at
    /// the first it refuses and doesn't say which, so then they are repeated one by one: each may
    /// be done twice.
    async fn apply_peers(&mut self, first: usize, ops: &[Op], failed: &mut Vec<Failed>) {
        if self.send(ops).await.is_ok() {
            return;
        }
        for (at, op) in ops.iter().enumerate() {
            if let Err(error) = self.send(std::slice::from_ref(op)).await {
                failed.push(Failed { op: first + at, reason: error.to_string() });
            }
        }
    }

    async fn send(&mut self, ops: &[Op]) -> io::Result<()> {
        let messages = peer_message::messages(self.link.name(), ops, MESSAGE);
        self.blocking(move |genl| messages.into_iter().try_for_each(|message| genl.set(message)))
            .await
    }

    async fn apply_one(&mut self, op: &Op) -> Result<(), String> {
        if let Some(result) = self.link.execute(op).await {
            return result.map_err(|error| self.explain(op, &error));
        }
        let attribute = match op {
            Op::SetListenPort(port) => WgDeviceAttrs::ListenPort(*port),
            Op::SetMark(mark) => WgDeviceAttrs::Fwmark(*mark),
            _ => return Ok(()),
        };
        let set = self.set_device("setting the port or the mark", vec![attribute]).await;
        set.map_err(|error| error.to_string())
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

    /// Netlink answers within microseconds, or after a dump of many peers: off the async threads.
    async fn blocking<T: Send + 'static>(
        &mut self,
        call: impl FnOnce(&mut Genl) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let genl = self.genl.take();
        let work = move || {
            let mut genl = genl.map_or_else(Genl::connect, Ok)?;
            let result = call(&mut genl);
            Ok::<_, io::Error>((genl, result))
        };
        let (genl, result) =
            tokio::task::spawn_blocking(work).await.map_err(io::Error::other)??;
        self.genl = Some(genl);
        result
    }
}

#[async_trait]
impl Kernel for KernelWireguard {
    async fn observe(&mut self) -> Result<Observed, KernelError> {
        if self.removed {
            return Err(self.gone());
        }
        let (found, dump, repaired) = self.ensure().await?;
        Ok(Observed {
            public_key: dump.public_key,
            listen_port: dump.listen_port,
            addresses: self.link.addresses(found.index).await?,
            mtu: found.mtu,
            up: found.up,
            mark: dump.mark,
            routes: self.link.routes(found.index).await?,
            rules: self.link.rules().await?,
            repaired,
            peers: dump.peers,
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

    async fn rekey(&mut self, key: PrivateKey, fresh: Duration) -> Result<usize, KernelError> {
        let public_key = wireguard_key::public(&key)
            .map_err(|error| self.link.error("its next private key", io::Error::other(error)))?;
        // First, so that a link that can't be reached now is given the new key when it can.
        self.other_keys = vec![self.public_key];
        (self.private_key, self.public_key) = (key, public_key);
        let (name, key) = (self.link.name().to_owned(), self.key());
        // In one go: meanwhile peers speak to a key that nobody has.
        let result = self.blocking(move |genl| {
            genl.set(vec![WgDeviceAttrs::IfName(name.clone()), key])?;
            let dump = genl.dump(&name, Dump::absorb)?;
            let is_fresh = |peer: &ObservedPeer| peer.last_handshake.is_some_and(|age| age < fresh);
            let greeted: Vec<_> = dump.peers.iter().filter(|(_, peer)| is_fresh(peer)).collect();
            let ops: Vec<Op> =
                greeted.iter().flat_map(|(key, peer)| greeting(**key, peer)).collect();
            let messages = peer_message::messages(&name, &ops, MESSAGE);
            messages.into_iter().try_for_each(|message| genl.set(message))?;
            Ok(greeted.len())
        });
        result.await.map_err(|error| self.link.error("setting the next key", error))
    }

    async fn remove(&mut self) -> Result<(), KernelError> {
        self.removed = true;
        self.link.remove_rules().await?;
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

/// The kernel sends a keepalive as soon as an interval is set where there was none, and without a session
/// that begins a handshake.
fn greeting(key: PublicKey, peer: &ObservedPeer) -> [Op; 3] {
    let has = peer.keepalive.unwrap_or(0);
    [0, has.max(1), has].map(|seconds| {
        Op::SetPeer(SetPeer {
            key,
            create: false,
            prefixes: Prefixes::Keep,
            endpoint: None,
            keepalive: Some(seconds),
            preshared: None,
        })
    })
}

const fn is_peer(op: &Op) -> bool {
    matches!(op, Op::SetPeer(_) | Op::RemovePeer { .. })
}
