//! A node: a data plane opened in a namespace, on a thread that lives there, as an agent would use
//! it. The thread is inside for good, so its device's sockets and netlink are too.

use std::{
    collections::BTreeMap,
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use tokio::sync::mpsc as work;
use wattle_agent::kernel::{self, DataPlaneChoice, Failed, Kernel, KernelError, Place};
use wattle_model::{
    Endpoint, Generation, NodeId, NodeName, PeerSpec, PrivateKey, PublicKey, Secrets,
};
use wattle_plan::{
    DEFAULT_MTU, Desired, DeviceSpec, EndpointMemory, Observed, Op, Update, diff, diff_touched,
};

use super::netns::Netns;

pub(crate) const INTERFACE: &str = "wattle0";
pub(crate) const PORT: u16 = 51820;
pub(crate) const MARK: u32 = 0x5747;

/// A bound for everything that a device is asked to do, generous for an emulated machine.
const PATIENCE: Duration = Duration::from_secs(60);

enum Work {
    Observe(mpsc::Sender<Result<Observed, KernelError>>),
    Apply(Vec<Op>, mpsc::Sender<Result<Vec<Failed>, KernelError>>),
    Remove(mpsc::Sender<Result<(), KernelError>>),
}

/// An open data plane.
pub(crate) struct Plane {
    work: Option<work::UnboundedSender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl Plane {
    pub(crate) fn open(
        host: &Netns,
        choice: DataPlaneChoice,
        key: &PrivateKey,
    ) -> Result<Self, KernelError> {
        let (host, key) = (host.handle(), key.clone());
        let (work, todo) = work::unbounded_channel();
        let (opened, result) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            host.enter();
            host.forget();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime starts").block_on(serve(choice, key, todo, opened));
        });
        result.recv_timeout(PATIENCE).expect("a data plane opens or says why it doesn't")?;
        Ok(Self { work: Some(work), thread: Some(thread) })
    }

    pub(crate) fn observe(&self) -> Observed {
        self.ask(Work::Observe).expect("the device is observed")
    }

    pub(crate) fn apply(&self, ops: &[Op]) -> Vec<Failed> {
        let ops = ops.to_vec();
        self.ask(|reply| Work::Apply(ops, reply)).expect("the device is open")
    }

    pub(crate) fn remove(&self) {
        self.ask(Work::Remove).expect("the device is removed");
    }

    fn ask<T>(&self, work: impl FnOnce(mpsc::Sender<T>) -> Work) -> T {
        let (reply, answer) = mpsc::channel();
        let thread = self.work.as_ref().expect("it is open until dropped");
        assert!(thread.send(work(reply)).is_ok(), "the node's thread is there");
        answer.recv_timeout(PATIENCE).expect("the data plane answers")
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.work = None;
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "a node's thread died");
    }
}

async fn serve(
    choice: DataPlaneChoice,
    key: PrivateKey,
    mut todo: work::UnboundedReceiver<Work>,
    opened: mpsc::Sender<Result<(), KernelError>>,
) {
    let interface = INTERFACE.to_owned();
    let place =
        Place { interface, private_key: key, other_keys: vec![], listen_port: PORT, mark: MARK };
    let mut plane: Box<dyn Kernel> = match kernel::open(choice, &place).await {
        Ok(plane) => plane,
        Err(error) => return drop(opened.send(Err(error))),
    };
    drop(opened.send(Ok(())));
    while let Some(work) = todo.recv().await {
        match work {
            Work::Observe(reply) => drop(reply.send(plane.observe().await)),
            Work::Apply(ops, reply) => drop(reply.send(plane.apply(&ops).await)),
            Work::Remove(reply) => drop(reply.send(plane.remove().await)),
        }
    }
}

/// A data plane with what it should be.
pub(crate) struct Node {
    pub(crate) plane: Plane,
    pub(crate) spec: PeerSpec,
    desired: Desired,
    memory: EndpointMemory,
}

impl Node {
    /// Number `index` of the switch, with addresses `.index` and `::index` of the overlay.
    pub(crate) fn open(host: &Netns, choice: DataPlaneChoice, index: u8) -> Self {
        let plane = Plane::open(host, choice, &private_key(index)).expect("the data plane opens");
        let spec = spec(index, index);
        let desired = Desired::new(spec.node, device(&spec));
        Self { plane, spec, desired, memory: EndpointMemory::default() }
    }

    /// Does what the plan says until it says nothing; what was done first.
    pub(crate) fn reach(&mut self, all: &[PeerSpec]) -> Vec<Op> {
        if let Some(own) = all.iter().find(|peer| peer.node == self.spec.node) {
            self.spec = own.clone();
            self.desired.device = device(own);
        }
        self.desired.apply(Update::Reset(all.to_vec()));
        let ops = self.plan();
        assert_eq!(self.plane.apply(&ops), [], "of {ops:?}");
        assert_eq!(self.plan(), [], "the second difference is empty");
        ops
    }

    /// Takes a change as an agent does, on a device that is as it should be: from what it touches
    /// where that is enough.
    #[allow(dead_code, reason = "used by the kernel's tests alone")]
    pub(crate) fn change(&mut self, upserts: Vec<PeerSpec>, removed: Vec<NodeId>) {
        let touched = self.desired.apply(Update::Delta { upserts, removed });
        let (own, now) = (self.spec.public_key, Instant::now());
        let ops = touched
            .and_then(|t| diff_touched(&self.desired, &t, own, &mut self.memory, now))
            .unwrap_or_else(|| self.plan());
        assert_eq!(self.plane.apply(&ops), [], "of {ops:?}");
    }

    /// Sends prefixes through nodes.
    #[allow(dead_code, reason = "used by the kernel's tests alone")]
    pub(crate) fn send_through(&mut self, via: BTreeMap<IpNet, NodeName>) {
        self.desired.via = via;
    }

    /// Gives it what preshared keys are derived of.
    pub(crate) fn share(&mut self, secrets: Secrets) {
        self.desired.secrets = secrets;
    }

    /// What the plan says now.
    pub(crate) fn plan(&mut self) -> Vec<Op> {
        diff(&self.desired, &self.plane.observe(), &mut self.memory, Instant::now())
    }
}

pub(crate) fn private_key(index: u8) -> PrivateKey {
    PrivateKey::new([index + 100; 32])
}

pub(crate) fn public_key(index: u8) -> PublicKey {
    let secret = x25519_dalek::StaticSecret::from(*private_key(index).expose_bytes());
    PublicKey::new(x25519_dalek::PublicKey::from(&secret).to_bytes()).expect("no key is zero")
}

/// Node `index` with the overlay addresses that end in `host`.
pub(crate) fn spec(index: u8, host: u8) -> PeerSpec {
    let endpoint = format!("192.168.77.{index}:{PORT}").parse().expect("an address and a port");
    PeerSpec {
        node: NodeId::new([index; 16]),
        name: format!("node-{index}").parse().expect("a name"),
        public_key: public_key(index),
        next_public_key: None,
        ipv4: Some([10, 90, 0, host].into()),
        ipv6: Some(format!("fd5a:90::{host}").parse().expect("an address")),
        endpoints: vec![Endpoint::new(endpoint).expect("an endpoint")],
        secret_generation: Generation::NONE,
    }
}

fn device(spec: &PeerSpec) -> DeviceSpec {
    let v4 = spec.ipv4.map(|address| format!("{address}/16"));
    let v6 = spec.ipv6.map(|address| format!("{address}/64"));
    let addresses = v4.into_iter().chain(v6).map(|net| net.parse().expect("a prefix")).collect();
    DeviceSpec { listen_port: PORT, addresses, mtu: DEFAULT_MTU, mark: MARK }
}
