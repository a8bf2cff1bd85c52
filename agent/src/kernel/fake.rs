//! A device that exists in memory only, for tests of everything above the kernel. It behaves as the
//! kernel's WireGuard does: whichever prefix a peer is given leaves whoever had it, without a word.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use ipnet::IpNet;
use parking_lot::Mutex;
use wattle_model::{PrivateKey, PublicKey};
use wattle_plan::{Maker, Observed, Op, Prefixes, Route, SetPeer, Table};

use super::{DataPlaneKind, Failed, Kernel, KernelError};
use crate::wireguard_key;

/// A handle on the device, which outlives the agent that uses it: a second [`FakeDevice::open`] is
/// a restarted agent's.
#[derive(Debug, Clone, Default)]
pub struct FakeDevice(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    observed: Observed,
    log: Vec<Op>,
    refuse: VecDeque<bool>,
    looks: usize,
    greeted: Vec<PublicKey>,
    removed: bool,
}

/// What an agent holds.
#[derive(Debug)]
pub struct FakeKernel(FakeDevice);

impl FakeDevice {
    /// A device with this key and nothing else.
    pub fn new(public_key: PublicKey) -> Self {
        let observed = Observed { public_key: Some(public_key), ..Observed::default() };
        Self(Arc::new(Mutex::new(State { observed, ..State::default() })))
    }

    /// Opens the device as an agent does.
    pub fn open(&self) -> FakeKernel {
        self.0.lock().removed = false;
        FakeKernel(self.clone())
    }

    /// Opens the device as the agent that has this key.
    #[cfg(feature = "fake-kernel")]
    pub fn open_with(&self, public_key: PublicKey) -> FakeKernel {
        self.0.lock().observed.public_key = Some(public_key);
        self.open()
    }

    /// What the device is now.
    pub fn observed(&self) -> Observed {
        self.0.lock().observed.clone()
    }

    /// Changes the device behind the agent's back.
    pub fn tamper(&self, change: impl FnOnce(&mut Observed)) {
        change(&mut self.0.lock().observed);
    }

    /// For each of the next operations: whether it is refused.
    pub fn refuse(&self, pattern: impl IntoIterator<Item = bool>) {
        self.0.lock().refuse = pattern.into_iter().collect();
    }

    /// The operations executed since the last call.
    pub fn take_log(&self) -> Vec<Op> {
        std::mem::take(&mut self.0.lock().log)
    }

    /// How often an agent has looked at it.
    pub fn looks(&self) -> usize {
        self.0.lock().looks
    }

    /// The peers that were greeted since the last call.
    pub fn take_greeted(&self) -> Vec<PublicKey> {
        std::mem::take(&mut self.0.lock().greeted)
    }

    /// Whether the agent took the device away.
    pub fn is_removed(&self) -> bool {
        self.0.lock().removed
    }
}

#[async_trait]
impl Kernel for FakeKernel {
    async fn observe(&mut self) -> Result<Observed, KernelError> {
        let mut observed = self.0.observed();
        // The kernel makes the routes to the link's own networks.
        for net in observed.addresses.iter().filter(|_| observed.up) {
            let route = Route { destination: net.trunc(), table: Table::Main };
            observed.routes.entry(route).or_insert(Maker::Other);
        }
        let mut state = self.0.0.lock();
        state.observed.repaired.clear();
        state.looks += 1;
        Ok(observed)
    }

    async fn apply(&mut self, ops: &[Op]) -> Result<Vec<Failed>, KernelError> {
        let mut state = self.0.0.lock();
        let mut failed = Vec::new();
        for (op, what) in ops.iter().enumerate() {
            match state.execute(what) {
                Ok(()) => state.log.push(what.clone()),
                Err(reason) => failed.push(Failed { op, reason: reason.to_owned() }),
            }
        }
        Ok(failed)
    }

    async fn rekey(&mut self, key: PrivateKey, fresh: Duration) -> Result<usize, KernelError> {
        let mut state = self.0.0.lock();
        state.observed.public_key = wireguard_key::public(&key).ok();
        let peers = state.observed.peers.iter();
        let spoken = peers.filter(|(_, peer)| peer.last_handshake.is_some_and(|age| age < fresh));
        let spoken: Vec<_> = spoken.map(|(key, _)| *key).collect();
        state.greeted.extend(&spoken);
        Ok(spoken.len())
    }

    async fn remove(&mut self) -> Result<(), KernelError> {
        let mut state = self.0.0.lock();
        let public_key = state.observed.public_key;
        state.observed = Observed { public_key, ..Observed::default() };
        state.removed = true;
        Ok(())
    }

    fn kind(&self) -> DataPlaneKind {
        DataPlaneKind::Kernel
    }
}

impl State {
    fn execute(&mut self, op: &Op) -> Result<(), &'static str> {
        if self.refuse.pop_front().unwrap_or(false) {
            return Err("refused, as the test asked");
        }
        let observed = &mut self.observed;
        match op {
            Op::SetMtu(mtu) => observed.mtu = *mtu,
            Op::SetListenPort(port) => observed.listen_port = *port,
            Op::AddAddress(address) => drop(observed.addresses.insert(*address)),
            Op::RemoveAddress(address) => drop(observed.addresses.remove(address)),
            Op::SetUp => observed.up = true,
            Op::SetMark(mark) => observed.mark = *mark,
            Op::AddRoute(route) => drop(observed.routes.insert(*route, Maker::Us)),
            Op::RemoveRoute(route) => drop(observed.routes.remove(route)),
            Op::AddRule(rule) => drop(observed.rules.insert(*rule)),
            Op::RemoveRule(rule) => drop(observed.rules.remove(rule)),
            Op::RemovePeer { key } => drop(observed.peers.remove(key)),
            Op::SetPeer(peer) => return self.set_peer(peer),
        }
        Ok(())
    }

    fn set_peer(&mut self, set: &SetPeer) -> Result<(), &'static str> {
        if !set.create && !self.observed.peers.contains_key(&set.key) {
            return Err("no such peer");
        }
        let mut prefixes = match &set.prefixes {
            Prefixes::Replace(_) => BTreeSet::new(),
            Prefixes::Keep | Prefixes::Add(_) => self.prefixes_of(&set.key),
        };
        if let Prefixes::Add(given) | Prefixes::Replace(given) = &set.prefixes {
            for peer in self.observed.peers.values_mut() {
                peer.allowed_ips.retain(|prefix| !given.contains(prefix));
            }
            prefixes.extend(given);
        }
        let peer = self.observed.peers.entry(set.key).or_default();
        peer.allowed_ips = prefixes;
        peer.endpoint = set.endpoint.or(peer.endpoint);
        if let Some(seconds) = set.keepalive {
            peer.keepalive = (seconds != 0).then_some(seconds);
        }
        if let Some(preshared) = &set.preshared {
            peer.preshared = preshared.clone();
        }
        Ok(())
    }

    fn prefixes_of(&self, key: &PublicKey) -> BTreeSet<IpNet> {
        self.observed.peers.get(key).map(|peer| peer.allowed_ips.clone()).unwrap_or_default()
    }
}
