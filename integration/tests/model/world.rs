//! The world that a script happens to: one control plane, its hosts, the wire between them, and
//! what its operator was promised.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};
use wattle_controlplane::horizon;
use wattle_model::{NodeId, PublicKey};
use wattle_plan::Observed;
use wattle_runtime::clock::TestClock;

use crate::{
    PATIENCE, check,
    control_plane::ControlPlane,
    host::Host,
    script::{Act, Jump, Tamper, What, Which},
    wire::Wire,
};

/// Longer than an agent takes to notice: three heartbeats.
const SILENCE: Duration = Duration::from_millis(3500);
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) wire: Wire,
    pub(crate) control_plane: Mutex<ControlPlane>,
    pub(crate) hosts: RefCell<Vec<Rc<Mutex<Host>>>>,
    pub(crate) promises: RefCell<Promises>,
    /// Everybody's; the control plane's is the first.
    clocks: RefCell<Vec<TestClock>>,
    /// How far the right time is ahead of this machine's.
    ahead: Cell<Duration>,
    pub(crate) requests: Cell<u64>,
    names: Cell<u16>,
}

/// What was answered, and so must hold.
#[derive(Default)]
pub(crate) struct Promises {
    /// Nodes that joined and that nobody tried to delete.
    pub(crate) live: BTreeSet<NodeId>,
    /// Nodes whose deletion was accepted.
    pub(crate) deleted: BTreeSet<NodeId>,
    /// The role that a node was given last, and at which revision.
    pub(crate) roles: BTreeMap<NodeId, (u64, Option<String>)>,
    /// The roles that a policy was given last, and at which revision.
    pub(crate) policies: BTreeMap<String, (u64, Option<(String, String)>)>,
}

impl World {
    pub(crate) async fn new(seed: u64) -> Self {
        let wire = Wire::new().await;
        let control_plane = ControlPlane::new(wire.address);
        let clocks = RefCell::new(vec![control_plane.clock.clone()]);
        let control_plane = Mutex::new(control_plane);
        let world = Self {
            seed,
            wire,
            control_plane,
            hosts: RefCell::default(),
            promises: RefCell::default(),
            clocks,
            ahead: Cell::default(),
            requests: Cell::default(),
            names: Cell::default(),
        };
        world.start_control_plane().await;
        world
    }

    /// Everything of a round, at its time; then all is mended, and has to become right.
    pub(crate) async fn round(&mut self, round: usize, acts: &[Act], last: bool) {
        let began = Instant::now();
        let acting = join_all(acts.iter().map(|act| self.act(act)));
        if timeout(2 * PATIENCE, acting).await.is_err() {
            panic!("seed {}, round {round}: it doesn't come to an end: {acts:#?}", self.seed);
        }
        let acted = began.elapsed();
        self.mend(last).await;
        if let Err(wrong) = check::quiet(self).await {
            panic!("seed {}, round {round}: {wrong}\nafter {acts:#?}", self.seed);
        }
        if std::env::var_os("WATTLE_SEED").is_some() {
            let settled = began.elapsed() - acted;
            eprintln!("round {round}: {acted:.1?} to act, {settled:.1?} to settle");
        }
    }

    async fn act(&self, act: &Act) {
        sleep(act.at).await;
        match act.what.clone() {
            What::Join { role } => self.join(role).await,
            What::Leave(which) => self.leave(which).await,
            What::Delete(which) => self.delete(which).await,
            What::Label(which, role) => self.label(which, role).await,
            What::Policy { name, sides } => self.policy(name, sides).await,
            What::Mode(mode) => self.mode(mode).await,
            What::Restart { host, kill, away, port } => {
                self.restart(host, kill, away, port).await;
            }
            What::Away(which) => {
                if let Some(host) = self.host(which) {
                    host.lock().await.go_away().await;
                }
            }
            What::ControlPlane { kill, away } => self.restart_control_plane(kill, away).await,
            What::Cut { which, after } => self.wire.cut(which, after),
            What::Silence(which) => {
                self.wire.silence(which);
                sleep(SILENCE).await;
                self.wire.end_silence();
            }
            What::Down(long) => {
                self.wire.set_down(true);
                self.wire.cut_all();
                sleep(long).await;
                self.wire.set_down(false);
            }
            What::Tamper(which, how) => {
                if let Some(host) = self.host(which) {
                    tamper(&mut *host.lock().await, how);
                }
            }
            What::Refuse(which, pattern) => {
                if let Some(host) = self.host(which) {
                    host.lock().await.device.refuse(pattern);
                }
            }
            What::Clock(jump) => self.jump(jump).await,
            What::Days(days) => self.days(days).await,
        }
    }

    fn host(&self, which: Which) -> Option<Rc<Mutex<Host>>> {
        let hosts = self.hosts.borrow();
        let count = hosts.len() as u64;
        (count > 0).then(|| hosts[usize::try_from(which % count).unwrap()].clone())
    }

    /// A new machine, enrolled: with the same token while that may work, and else with another.
    async fn join(&self, role: &'static str) {
        let number = self.next_name();
        let host = Rc::new(Mutex::new(Host::new(number)));
        let mut new = host.lock().await;
        new.clock.set_ahead(self.ahead.get());
        self.clocks.borrow_mut().push(new.clock.clone());
        'tokens: loop {
            let name = format!("n{}", self.next_name());
            let token = self.token(role).await;
            for _ in 0..5 {
                new.start(Some((token.clone(), name.clone())));
                match new.joined().await {
                    Ok(()) => break 'tokens,
                    Err(_) => sleep(Duration::from_millis(100)).await,
                }
            }
        }
        let mut promises = self.promises.borrow_mut();
        promises.live.extend(new.node);
        promises.roles.extend(new.node.map(|node| (node, (0, Some(role.to_owned())))));
        drop((promises, new));
        self.hosts.borrow_mut().push(host);
    }

    async fn leave(&self, which: Which) {
        let Some(host) = self.host(which) else { return };
        let host = host.lock().await;
        let (Some(node), true) = (host.node, host.is_running()) else { return };
        self.promises.borrow_mut().live.remove(&node);
        if host.leave().await {
            self.promises.borrow_mut().deleted.insert(node);
        }
    }

    async fn restart(&self, which: Which, kill: bool, away: Duration, port: Option<u16>) {
        let Some(host) = self.host(which) else { return };
        let mut host = host.lock().await;
        if !host.is_running() {
            return;
        }
        match kill {
            true => host.kill().await,
            false => host.stop().await,
        }
        sleep(away).await;
        host.port = port.unwrap_or(host.port);
        if host.exit.is_none() {
            host.start(None);
        }
    }

    async fn restart_control_plane(&self, kill: bool, away: Duration) {
        {
            let mut control_plane = self.control_plane.lock().await;
            match kill {
                true => control_plane.kill().await,
                false => control_plane.stop().await,
            }
        }
        sleep(away).await;
        self.start_control_plane().await;
    }

    async fn start_control_plane(&self) {
        let mut control_plane = self.control_plane.lock().await;
        if !control_plane.is_running() {
            self.wire.lead_to(control_plane.start().await);
        }
    }

    async fn jump(&self, jump: Jump) {
        let right = self.ahead.get();
        let wrong = if jump.ahead { right + jump.by } else { right.saturating_sub(jump.by) };
        let whose = match jump.host {
            None => Some(self.clocks.borrow()[0].clone()),
            Some(which) => match self.host(which) {
                Some(host) => Some(host.lock().await.clock.clone()),
                None => None,
            },
        };
        if let Some(clock) = whose {
            clock.set_ahead(wrong);
            // Meanwhile nobody of another time can join.
            sleep(jump.long).await;
            clock.set_ahead(self.ahead.get());
        }
    }

    /// Days in which nobody did anything: everything is marked hour by hour, and the horizon passes it.
    async fn days(&self, days: u64) {
        self.advance_horizon().await;
        for _ in 0..=24 * days {
            self.ahead.set(self.ahead.get() + DAY / 24);
            self.set_clocks();
            self.advance_horizon().await;
        }
    }

    async fn advance_horizon(&self) {
        let control_plane = self.control_plane.lock().await;
        if let Some(store) = control_plane.store() {
            horizon::advance(&*store, control_plane.now()).await.unwrap();
        }
    }

    fn set_clocks(&self) {
        for clock in self.clocks.borrow().iter() {
            clock.set_ahead(self.ahead.get());
        }
    }

    /// Clocks are right, everybody reaches everybody, and everything runs that isn't away.
    async fn mend(&self, for_good: bool) {
        self.set_clocks();
        self.wire.mend();
        self.start_control_plane().await;
        let hosts = self.hosts.borrow().clone();
        for host in hosts {
            host.lock().await.come_back(for_good).await;
        }
    }

    pub(crate) async fn node(&self, which: Which) -> Option<NodeId> {
        self.host(which)?.lock().await.node
    }

    fn next_name(&self) -> u16 {
        self.names.set(self.names.get() + 1);
        self.names.get()
    }
}

fn tamper(host: &mut Host, how: Tamper) {
    // Nobody looks after the device of a node that is gone.
    if host.device.is_removed() {
        return;
    }
    host.device.tamper(|device: &mut Observed| {
        let keys: Vec<PublicKey> = device.peers.keys().copied().collect();
        match how {
            Tamper::RemovePeer => drop(keys.first().and_then(|key| device.peers.remove(key))),
            Tamper::AddStranger => {
                let stranger = PublicKey::new([0xee; 32]).unwrap();
                device.peers.entry(stranger).or_default();
            }
            Tamper::StealPrefix => {
                if let [thief, .., victim] = keys[..] {
                    let stolen =
                        std::mem::take(&mut device.peers.get_mut(&victim).unwrap().allowed_ips);
                    device.peers.get_mut(&thief).unwrap().allowed_ips.extend(stolen);
                }
            }
            Tamper::RemoveAddresses => device.addresses.clear(),
        }
    });
    host.tampered = true;
}
