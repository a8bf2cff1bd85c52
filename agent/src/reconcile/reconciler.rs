//! The loop itself, and how often it looks.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use ipnet::IpNet;
use tokio::{
    select,
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use wattle_model::{NodeId, NodeName, PrivateKey, PublicKey, Revision, Secrets};
use wattle_plan::{
    DEFAULT_MTU, Desired, DeviceSpec, EndpointMemory, Observed, Op, Repaired, SetPeer, Touched,
    Update, diff, diff_touched,
};

use super::{
    Applied, Change, Description, Mesh, MeshStatus, MtuFrom, REQUESTS, Request, Sighting,
    drift::{Drift, faults},
};
use crate::{
    kernel::{Failed, Host, Kernel, KernelError},
    session::Rejection,
    settings::Settings,
    wireguard_key,
};

/// After a change: soon enough to say that it holds, late enough that a burst is looked at once.
const VERIFY: Duration = Duration::from_millis(100);
/// How often in a row.
const HURRIED: u32 = 3;
/// While a peer doesn't answer or an operation failed.
const RESTLESS: Duration = Duration::from_secs(5);
/// While a peer that is new, or elsewhere, may speak up: where it is behind NAT, others wait to be
/// told from where it did.
const WATCHFUL: Duration = Duration::from_secs(2);
/// While all is well: only somebody else's meddling with the peers would be found, of which the
/// kernel says nothing. Found and undone within 30 s.
const QUIET: Duration = Duration::from_secs(25);
/// While somebody keeps changing the link.
const CONTESTED: Duration = Duration::from_secs(1);
/// Looks at a large device take at most this share of the time, however often it changes.
const LOOKING: u32 = 4;
/// WireGuard refuses a session of this age: until then its peer answered.
const FRESH: Duration = Duration::from_secs(180);
/// Keeps a mapping in any common NAT open (RFC 4787 asks for 120 s, home routers give 30).
const KEEPALIVE: u16 = 25;

/// Opens the device, adopting what is there; again when somebody took it away.
pub(crate) type Open =
    Box<dyn Fn(Keys) -> BoxFuture<'static, Result<Box<dyn Kernel>, KernelError>> + Send + Sync>;

/// The device's private key, and others that a link of ours may still have.
pub(crate) type Keys = (PrivateKey, Vec<PrivateKey>);

/// What this machine's administrator wishes of the device.
#[derive(Debug, Clone)]
pub(crate) struct Wishes {
    /// The link's name.
    pub(crate) interface: String,
    /// The UDP port; 0 for any.
    pub(crate) listen_port: u16,
    /// The tunnel's mark.
    pub(crate) mark: u32,
    /// The link's MTU; the path's where unset.
    pub(crate) mtu: Option<u32>,
    /// Prefixes that go through a node.
    pub(crate) via: BTreeMap<IpNet, NodeName>,
}

/// What somebody wishes the MTU to be, the first one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wished {
    /// This machine's administrator.
    here: Option<u32>,
    /// Operators, for the whole network.
    network: Option<u32>,
}

impl Wished {
    /// Who decides, and on what; the path, which may not be known, where nobody wishes anything.
    fn choose(self, path: impl FnOnce() -> Option<u32>) -> (MtuFrom, Option<u32>) {
        match (self.here, self.network) {
            (Some(bytes), _) => (MtuFrom::Here, Some(bytes)),
            (None, Some(bytes)) => (MtuFrom::Network, Some(bytes)),
            (None, None) => (MtuFrom::Path, path()),
        }
    }
}

/// What goes on around the device.
pub(crate) struct Surroundings {
    /// This machine's addresses.
    pub(crate) host: watch::Receiver<Arc<Host>>,
    /// The kernel said that the link isn't as it was.
    pub(crate) noticed: Arc<Notify>,
}

/// The device's owner.
pub(crate) struct Reconciler {
    open: Open,
    kernel: Box<dyn Kernel>,
    private_key: PrivateKey,
    public_key: PublicKey,
    desired: Desired,
    memory: EndpointMemory,
    observed_at: Option<SocketAddr>,
    surroundings: Surroundings,
    interface: String,
    mtu: Wished,
    /// This machine, when it was last followed.
    host: Arc<Host>,
    /// The device is known to be as desired: a look found nothing to do, and since then only
    /// changes were made that the device took. Anything else found is somebody else's doing.
    in_step: bool,
    drift: Drift,
    /// What was made anew when somebody asked how the device stands.
    repaired: Vec<Repaired>,
    /// How long the last look took.
    look: Duration,
    refused: Vec<wattle_plan::Rejected>,
    next_look: Instant,
    /// How many looks at the device in a row found something to do.
    unsettled: u32,
    requests: mpsc::Receiver<Request>,
    status: watch::Sender<MeshStatus>,
    sightings: watch::Sender<Vec<Sighting>>,
}

impl Reconciler {
    /// Opens the device. It is as it was until the first change or look.
    pub(crate) async fn open(
        open: Open,
        own: NodeId,
        keys: Keys,
        wishes: Wishes,
        settings: &Settings,
        surroundings: Surroundings,
    ) -> Result<(Self, Mesh), KernelError> {
        let private_key = keys.0.clone();
        let public_key = wireguard_key::public(&private_key).map_err(KernelError::Key)?;
        let kernel = open(keys).await?;
        let (sender, requests) = mpsc::channel(REQUESTS);
        let Wishes { interface, listen_port, mark, mtu, via } = wishes;
        let (status, statuses) = watch::channel(MeshStatus {
            kind: kernel.kind(),
            public_key,
            listen_port,
            applied: Revision::ZERO,
            verified: Revision::ZERO,
            mtu: 0,
            mtu_from: MtuFrom::Path,
            repairs: BTreeMap::new(),
            errors: Vec::new(),
        });
        let (sightings, seen) = watch::channel(Vec::new());
        let addresses = settings.addresses.on_interface();
        let mtu = Wished { here: mtu, network: settings.mtu };
        let (_, first) = mtu.choose(|| None);
        let first = first.unwrap_or(DEFAULT_MTU);
        let device = DeviceSpec { listen_port, addresses, mtu: first, mark };
        let mut desired = Desired::new(own, device);
        desired.via = via;
        let host = surroundings.host.borrow().clone();
        let reconciler = Self {
            open,
            kernel,
            private_key,
            public_key,
            desired,
            memory: EndpointMemory::default(),
            observed_at: settings.observed,
            host,
            surroundings,
            interface,
            mtu,
            in_step: false,
            drift: Drift::default(),
            repaired: Vec::new(),
            look: Duration::ZERO,
            refused: Vec::new(),
            next_look: Instant::now(),
            unsettled: 0,
            requests,
            status,
            sightings,
        };
        let mesh = Mesh { requests: sender, status: statuses, sightings: seen };
        Ok((reconciler, mesh))
    }

    /// Brings the mesh back from what was committed before, with nobody's help.
    pub(crate) async fn restore(
        &mut self,
        committed: Option<(Update, Revision)>,
        secrets: Secrets,
    ) {
        self.desired.secrets = secrets;
        if let Some((update, revision)) = committed {
            self.desired.apply(update);
            self.status.send_modify(|status| status.applied = revision);
        }
        self.reconcile(VERIFY).await;
    }

    /// Runs until the device is removed or the program ends. The device stays as it is then: a
    /// mesh outlives its agent.
    pub(crate) async fn run(mut self, ended: CancellationToken) {
        loop {
            let request = select! {
                biased;
                () = ended.cancelled() => return,
                // Before requests: changes without end don't put a look off.
                () = tokio::time::sleep_until(self.next_look) => {
                    self.look().await;
                    continue;
                }
                request = self.requests.recv() => request,
                Ok(()) = self.surroundings.host.changed() => {
                    self.reconcile(VERIFY).await;
                    continue;
                }
                () = self.surroundings.noticed.notified() => {
                    let contested = self.drift.is_contested();
                    self.look_within(if contested { CONTESTED } else { VERIFY });
                    continue;
                }
            };
            match request {
                None => return,
                Some(Request::Apply(change, answer)) => {
                    // Whoever asked may be gone: the change holds all the same.
                    let _ = answer.send(self.apply(*change).await);
                }
                Some(Request::Moved(revision)) => self.moved(revision),
                Some(Request::Describe(answer)) => {
                    let _ = answer.send(self.describe().await);
                }
                Some(Request::Remove(answer)) => {
                    let _ = answer.send(self.kernel.remove().await);
                    return;
                }
            }
        }
    }

    async fn apply(&mut self, change: Change) -> Applied {
        // Peers learn of it in the same moment: before anything that can wait.
        if let Some(key) = change.key {
            self.rekey(key).await;
        }
        let resettled = change.settings.is_some() || change.secrets.is_some();
        if let Some(secrets) = change.secrets {
            self.desired.secrets = secrets;
        }
        if let Some(settings) = change.settings {
            self.desired.readdress(settings.addresses.on_interface());
            self.observed_at = settings.observed;
            self.mtu.network = settings.mtu;
        }
        let reset = matches!(change.update, Update::Reset(_));
        let touched = self.desired.apply(change.update).filter(|_| !resettled);
        self.status.send_modify(|status| {
            status.applied = change.revision;
            if reset {
                // It may be another store's, whose revisions say nothing of this one's.
                status.verified = Revision::ZERO;
            }
        });
        if let Some(rejected) = self.follow(touched).await {
            return Applied { at: Instant::now(), rejected };
        }
        self.in_step = false;
        let mut rejected = self.newly_refused();
        rejected.extend(self.reconcile(VERIFY).await);
        Applied { at: Instant::now(), rejected }
    }

    /// Gives the device its next key. Where that fails, the next look gives it.
    async fn rekey(&mut self, key: PrivateKey) {
        let Ok(public_key) = wireguard_key::public(&key) else { return };
        self.in_step = false;
        (self.private_key, self.public_key) = (key.clone(), public_key);
        self.status.send_modify(|status| status.public_key = public_key);
        match self.kernel.rekey(key, FRESH).await {
            Ok(greeted) => tracing::info!(%public_key, greeted, "the device has its next key"),
            Err(error) => self.failed(error).await,
        }
    }

    /// Changes a device that is as desired by what a change touches, without looking at the rest:
    /// that comes later, as after every change. `None` where it has to be looked at now.
    async fn follow(&mut self, touched: Option<Touched>) -> Option<Vec<Rejection>> {
        let touched = touched.filter(|_| self.in_step && self.refused.is_empty())?;
        let (own, now) = (self.public_key, Instant::now().into_std());
        let ops = diff_touched(&self.desired, &touched, own, &mut self.memory, now)?;
        tracing::debug!(?ops, "changing the device");
        self.look_within(VERIFY);
        match self.kernel.apply(&ops).await {
            Ok(failed) if failed.is_empty() => Some(Vec::new()),
            Ok(failed) => {
                self.in_step = false;
                self.unsettled = self.unsettled.saturating_add(1);
                self.publish_failed(&ops, &failed);
                Some(self.blame(&ops, failed))
            }
            // Looking at it tells what is wrong with it.
            Err(_) => None,
        }
    }

    /// What is desired stayed the same, so a device that was right still is: but only a fresh dump
    /// may say so.
    fn moved(&mut self, revision: Revision) {
        self.status.send_modify(|status| status.applied = revision);
        self.look_within(VERIFY);
    }

    async fn describe(&mut self) -> Result<Description, KernelError> {
        let observed = self.kernel.observe().await?;
        if !observed.repaired.is_empty() {
            self.repaired.extend(&observed.repaired);
            self.look_within(VERIFY);
        }
        Ok(Description { observed, peers: self.desired.peers().cloned().collect() })
    }

    /// A look on the timer. What failed is repeated at once, but where that doesn't settle it,
    /// hurrying doesn't help.
    async fn look(&mut self) {
        self.next_look = Instant::now() + QUIET;
        self.reconcile(if self.unsettled < HURRIED { VERIFY } else { RESTLESS }).await;
    }

    /// Observe, plan, apply; look again after `wait` where there was something to do. Returns the
    /// peers whose operations the device refused.
    async fn reconcile(&mut self, wait: Duration) -> Vec<Rejection> {
        let host = self.surroundings.host.borrow_and_update().clone();
        let nat = nat(self.observed_at, &host);
        let before = std::mem::replace(&mut self.desired.keepalive, nat.map(|_| KEEPALIVE));
        self.in_step &= self.desired.keepalive == before;
        self.memory.set_attached(host.attached());
        self.memory.set_nat(nat);
        let left = std::mem::replace(&mut self.host, host.clone());
        let moved = host.has_moved_since(&left);
        if moved && before.is_some() && nat.is_some() {
            self.in_step = false;
            if let Err(error) = self.stop_keepalives().await {
                tracing::debug!(%error, "keepalives don't begin anew");
            }
        }
        match self.observe_and_apply(&host, wait).await {
            Ok(failed) => failed,
            Err(error) => {
                self.failed(error).await;
                Vec::new()
            }
        }
    }

    /// This machine goes out another way than before. Behind a NAT its peers find it by what it sends
    /// alone, and a device sends at once where keepalives begin: so they are to begin anew with those it
    /// has spoken with lately.
    async fn stop_keepalives(&mut self) -> Result<(), KernelError> {
        let observed = self.kernel.observe().await?;
        self.repaired.extend(observed.repaired);
        let peers = observed.peers.into_iter();
        let spoken = peers.filter(|(_, peer)| peer.last_handshake.is_some_and(|age| age < FRESH));
        let ops: Vec<_> = spoken.map(|(key, _)| Op::SetPeer(SetPeer::keepalive(key, 0))).collect();
        self.kernel.apply(&ops).await.map(drop)
    }

    async fn observe_and_apply(
        &mut self,
        host: &Host,
        wait: Duration,
    ) -> Result<Vec<Rejection>, KernelError> {
        let begun = Instant::now();
        let mut observed = self.kernel.observe().await?;
        observed.repaired.splice(..0, std::mem::take(&mut self.repaired));
        self.size(host, &observed);
        let ops = diff(&self.desired, &observed, &mut self.memory, Instant::now().into_std());
        self.publish_sightings(&observed);
        self.look = begun.elapsed();
        let drifted = std::mem::take(&mut self.in_step);
        if drifted {
            self.drifted(&observed, &ops);
        }
        if ops.is_empty() {
            self.settled(&observed);
            return Ok(Vec::new());
        }
        tracing::debug!(?ops, "changing the device");
        let failed = self.kernel.apply(&ops).await?;
        self.look_within(wait);
        self.unsettled = self.unsettled.saturating_add(1);
        self.in_step = drifted && failed.is_empty();
        self.publish_failed(&ops, &failed);
        Ok(self.blame(&ops, failed))
    }

    /// The MTU is the path's, unless somebody wishes another. It is changed on the link as it is:
    /// sessions don't notice.
    fn size(&mut self, host: &Host, observed: &Observed) {
        let endpoints = observed.peers.values().filter_map(|peer| peer.endpoint);
        let path = || host.tunnel_mtu(endpoints.map(|endpoint| endpoint.ip()));
        let (from, bytes) = self.mtu.choose(path);
        let mtu = bytes.unwrap_or(self.desired.device.mtu);
        let before = std::mem::replace(&mut self.desired.device.mtu, mtu);
        self.in_step &= before == mtu;
        self.status
            .send_if_modified(|status| std::mem::replace(&mut status.mtu_from, from) != from);
    }

    /// It had been right, and nobody wished it changed.
    fn drifted(&mut self, observed: &Observed, ops: &[Op]) {
        if let Some(repairs) = self.drift.note(&self.interface, &faults(observed, ops)) {
            self.status.send_modify(|status| status.repairs = repairs);
        }
    }

    /// A fresh dump differed in nothing.
    fn settled(&mut self, observed: &Observed) {
        (self.unsettled, self.in_step) = (0, true);
        let restless = observed
            .peers
            .values()
            .any(|peer| peer.tx_bytes > 0 && peer.last_handshake.is_none_or(|age| age >= FRESH));
        let restless = restless || self.memory.is_undecided();
        // Who is behind NAT itself is rarely spoken to by whom it hasn't spoken to.
        let watchful =
            self.desired.keepalive.is_none() && self.memory.is_expecting(Instant::now().into_std());
        self.look_within(match (watchful, restless) {
            (true, _) => WATCHFUL,
            (false, true) => RESTLESS,
            (false, false) => QUIET,
        });
        let (port, mtu) = (observed.listen_port, observed.mtu);
        self.status.send_if_modified(|status| {
            let before = status.clone();
            (status.verified, status.listen_port) = (status.applied, port);
            status.mtu = mtu;
            status.errors.clear();
            *status != before
        });
    }

    /// The device can't be read or written. Where somebody took it away, it is made again.
    async fn failed(&mut self, error: KernelError) {
        tracing::warn!(%error, "the data plane refused");
        self.in_step = false;
        self.look_within(RESTLESS);
        let gone = matches!(error, KernelError::Gone { .. });
        self.publish(vec![error.to_string()]);
        if gone {
            match (self.open)((self.private_key.clone(), Vec::new())).await {
                Ok(kernel) => {
                    self.kernel = kernel;
                    self.next_look = Instant::now();
                }
                Err(error) => self.publish(vec![error.to_string()]),
            }
        }
    }

    fn publish_failed(&self, ops: &[Op], failed: &[Failed]) {
        self.publish(failed.iter().map(|f| format!("{:?}: {}", ops[f.op], f.reason)).collect());
    }

    /// Says where peers behind NAT are. Only another endpoint is news; how long ago they spoke is kept
    /// up to date for whoever looks later.
    fn publish_sightings(&mut self, observed: &Observed) {
        let found = self.memory.translated(&self.desired, observed);
        let found: Vec<_> = found.into_iter().map(Sighting::now).collect();
        self.sightings.send_if_modified(|before| {
            let news = found.iter().any(|new| before.iter().all(|old| old.number != new.number));
            *before = found;
            news
        });
    }

    fn publish(&self, errors: Vec<String>) {
        self.status.send_if_modified(|status| {
            let changed = status.errors != errors;
            status.errors = errors;
            changed
        });
    }

    /// Peers that can't be on one device with the others, and weren't known to before.
    fn newly_refused(&mut self) -> Vec<Rejection> {
        let refused = self.desired.rejected(Some(self.public_key));
        let new = refused.iter().filter(|rejected| !self.refused.contains(rejected));
        let new = new.map(|rejected| Rejection {
            node: Some(rejected.node),
            reason: rejected.reason.to_string(),
        });
        let new = new.collect();
        self.refused = refused;
        new
    }

    /// Whose operations failed.
    fn blame(&self, ops: &[Op], failed: Vec<Failed>) -> Vec<Rejection> {
        if failed.is_empty() {
            return Vec::new();
        }
        let nodes: HashMap<_, _> = self.desired.peers().map(|p| (p.public_key, p.node)).collect();
        let blamed = failed.into_iter().filter_map(|failed| match &ops[failed.op] {
            Op::SetPeer(peer) => {
                Some(Rejection { node: nodes.get(&peer.key).copied(), reason: failed.reason })
            }
            _ => None,
        });
        blamed.collect()
    }

    /// Moves the next look forward, never back: changes without end don't put it off.
    fn look_within(&mut self, wait: Duration) {
        let wait = wait.max(self.look * LOOKING);
        self.next_look = self.next_look.min(Instant::now() + wait);
    }
}

/// The address of the NAT that this node is behind: where the control plane sees an address that is
/// none of this machine's own. Peers reach this node only as long as it keeps the mapping open.
fn nat(observed: Option<SocketAddr>, host: &Host) -> Option<IpAddr> {
    observed.map(|at| at.ip()).filter(|address| !host.has(*address))
}
