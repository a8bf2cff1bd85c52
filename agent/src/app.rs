//! Wiring: what each subcommand does, and the agent as a whole. Everything is built here; the parts
//! know only what they are handed.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use tokio::{
    select,
    sync::{Notify, mpsc, watch},
};
use wattle_model::{Endpoint, NodeId, NodeName, PublicKey};
use wattle_proto::entry;
use wattle_runtime::shutdown::{self, Shutdown};

use crate::{
    config::{self, Command, Config, DeviceArgs, JoinArgs, RunArgs},
    join::{self, Wishes as JoinWishes},
    kernel::{self, Host},
    leave,
    reconcile::{Keys, Mesh, Open, Reconciler, Surroundings, Wishes},
    renew, report,
    session::{self, Outcome, Parts, Session, SessionState, SessionStatus},
    state::{
        StateDir,
        committed_set::CommittedSet,
        held::Held,
        identity::{Identity, SharedIdentity},
    },
    status::{
        self, Sources,
        socket::{self, Leave},
    },
};

/// How long tasks get to finish what they are at: a commit, an answer.
const GRACE: Duration = Duration::from_secs(5);

/// How the program ended, when it ended as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// What was asked for is done; here is what to tell the user.
    Done(String),
    /// The agent was stopped. The mesh stays as it is.
    Stopped,
    /// The node was deleted; the agent took its link down.
    Removed,
}

impl Exit {
    /// The process's exit status. Units don't restart an agent that ends with 3.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Done(_) | Self::Stopped => 0,
            Self::Removed => 3,
        }
    }
}

/// Does what the command line asks for.
pub async fn run(config: Config) -> anyhow::Result<Exit> {
    match config.command {
        Command::Join(args) => join(args).await.map(Exit::Done),
        Command::Run(args) => daemon(args).await,
        Command::Status(args) => status::print(&args).await.map(Exit::Done),
        Command::Leave(args) => {
            leave::leave(args).await?;
            Ok(Exit::Done("left: node, interface and identity are gone".into()))
        }
        Command::Down(args) => {
            leave::down(args).await?;
            Ok(Exit::Done(
                "down: interface, routes and rules are gone, the identity is kept".into(),
            ))
        }
    }
}

async fn join(args: JoinArgs) -> anyhow::Result<String> {
    let Some(token) = config::token(args.token, args.token_file.as_deref())? else {
        bail!("no join token: give it with --token-file FILE, or --token-file - for stdin");
    };
    let state = StateDir::open(&args.state.state_dir)?;
    if let Some(identity) = state.identity()?.filter(|identity| !identity.deleted) {
        let settings = &identity.settings;
        bail!(
            "this machine is already node {} of network {}: run `wattle-agent leave` first",
            settings.name,
            settings.network
        );
    }
    let identity = join::join(&state, &token, &wishes(args.name.name, &args.device)).await?;
    Ok(joined(&identity))
}

fn joined(identity: &Identity) -> String {
    let settings = &identity.settings;
    let addresses = settings.addresses.on_interface();
    let addresses: Vec<String> = addresses.iter().map(|net| net.addr().to_string()).collect();
    format!("joined network {} as {} ({})", settings.network, settings.name, addresses.join(", "))
}

fn wishes(name: Option<NodeName>, device: &DeviceArgs) -> JoinWishes {
    JoinWishes {
        name,
        interface: device.interface.clone(),
        listen_port: device.listen_port,
        declared: device.endpoints.clone(),
    }
}

async fn daemon(args: RunArgs) -> anyhow::Result<Exit> {
    let device = args.device.clone();
    let open: Open = Box::new(move |(key, others)| {
        let (dataplane, place) = (device.dataplane, device.place(&key, &others));
        Box::pin(async move { kernel::open(dataplane, &place).await })
    });
    run_with(args, open, async { shutdown::signals().await.map(drop) }).await
}

/// `run`, on a device in memory and until `stop`: a machine of a test.
#[cfg(feature = "fake-kernel")]
pub async fn run_on(
    device: kernel::fake::FakeDevice,
    args: RunArgs,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<Exit> {
    let open: Open = Box::new(move |(key, _)| {
        let device = device.clone();
        Box::pin(async move {
            let key = crate::wireguard_key::public(&key).map_err(kernel::KernelError::Key)?;
            Ok(Box::new(device.open_with(key)) as _)
        })
    });
    let stop = async {
        stop.await;
        Ok(())
    };
    run_with(args, open, stop).await
}

async fn run_with(
    args: RunArgs,
    open: Open,
    stop: impl Future<Output = std::io::Result<()>>,
) -> anyhow::Result<Exit> {
    let state = Arc::new(StateDir::open(&args.state.state_dir)?);
    let identity = match state.identity()? {
        Some(identity) => identity,
        None => enrol(&state, &args).await?,
    };
    if identity.deleted {
        tracing::error!("this node was deleted: `wattle-agent join` enrols the machine anew");
        return Ok(Exit::Removed);
    }
    let place = args.device.place(&identity.wireguard_key, &[]);
    let link_key = match identity.next_wireguard_key {
        Some(_) => kernel::present_key(&place).await,
        None => None,
    };
    let build = Build {
        state,
        identity,
        link_key,
        open,
        socket: args.state.socket(),
        host: Host::read(&args.device.interface).await?,
        wishes: args.device.wishes()?,
        declared: args.device.endpoints,
    };
    let agent = Agent::build(build).await?;
    agent.run(stop).await
}

async fn enrol(state: &StateDir, args: &RunArgs) -> anyhow::Result<Identity> {
    let Some(token) = config::token(args.token.clone(), args.token_file.as_deref())? else {
        bail!(
            "this machine hasn't joined a network: run `wattle-agent join`, or give a join token \
             with --token-file"
        );
    };
    let identity = join::join(state, &token, &wishes(args.name.name.clone(), &args.device)).await?;
    tracing::info!("{}", joined(&identity));
    Ok(identity)
}

/// What an agent is built from.
pub(crate) struct Build {
    pub(crate) state: Arc<StateDir>,
    pub(crate) identity: Identity,
    /// The key of the link that is there already.
    pub(crate) link_key: Option<PublicKey>,
    pub(crate) open: Open,
    pub(crate) socket: PathBuf,
    pub(crate) wishes: Wishes,
    pub(crate) declared: Vec<Endpoint>,
    /// This machine's addresses.
    pub(crate) host: Host,
}

/// A whole agent. Its mesh is up already; it follows nobody yet.
pub(crate) struct Agent {
    state: Arc<StateDir>,
    identity: SharedIdentity,
    session: watch::Receiver<SessionStatus>,
    mesh: Mesh,
    /// Everything that changes state or device.
    work: Shutdown,
    /// The local socket, which ends last: it tells of the end.
    front: Shutdown,
    removed: mpsc::Receiver<()>,
    leaves: mpsc::Receiver<Leave>,
}

impl Agent {
    /// Brings the mesh back from the last committed set, before anything else and with no control
    /// plane; then starts what follows it.
    pub(crate) async fn build(build: Build) -> anyhow::Result<Self> {
        let (log, held) = build.state.committed()?;
        let host = watch::Sender::new(Arc::new(build.host));
        let noticed = Arc::new(Notify::new());
        let surroundings = Surroundings { host: host.subscribe(), noticed: noticed.clone() };
        let interface = build.wishes.interface.clone();
        let own = own_key(&held, build.identity.node_id);
        let keys = build.identity.device_keys(&[build.link_key, own]);
        let (reconciler, mesh) =
            restore(build.open, keys.clone(), &build.identity, build.wishes, &held, surroundings)
                .await?;

        let (work, front) = (Shutdown::new(), Shutdown::new());
        let (tell_removed, removed) = mpsc::channel(2);
        let (ask_leave, leaves) = mpsc::channel(1);
        let identity = SharedIdentity::new(build.state.clone(), build.identity);
        // An agent before this one may have been killed before it could.
        identity.keep_key(&keys.0)?;
        let doubt = Arc::new(Notify::new());
        let parts = Parts {
            doubt: doubt.clone(),
            identity: identity.clone(),
            set: CommittedSet::new(log, held),
            mesh: mesh.clone(),
            host: host.subscribe(),
            declared: build.declared,
        };
        let session_status = watch::Sender::new(SessionStatus::default());
        let status = session_status.subscribe();
        let sources = Sources {
            identity: identity.clone(),
            session: status.clone(),
            mesh: mesh.clone(),
            interface: interface.clone(),
        };
        let session = Session::new(parts, session_status, work.token());
        let listener = socket::listen(&build.socket)
            .with_context(|| format!("listening on {}", build.socket.display()))?;

        work.spawn("reconcile", reconciler.run(work.token()));
        work.spawn("session", ends(session.run(), tell_removed.clone()));
        work.spawn("renew", ends(renew::run(identity.clone(), doubt, work.token()), tell_removed));
        work.spawn("host", report::watch_host(interface, host, noticed, work.token()));
        front.spawn("status", socket::serve(listener, sources, ask_leave, front.token()));
        let (state, session) = (build.state, status);
        Ok(Self { state, identity, session, mesh, work, front, removed, leaves })
    }

    /// Runs until `stop`, until the node is deleted, or until somebody has it leave.
    pub(crate) async fn run(
        mut self,
        stop: impl Future<Output = std::io::Result<()>>,
    ) -> anyhow::Result<Exit> {
        let mut stop = std::pin::pin!(stop);
        let exit = loop {
            select! {
                stopped = &mut stop => break stopped.map(|()| Exit::Stopped)?,
                () = self.work.requested() => bail!("a part of the agent failed: see the log"),
                Some(()) = self.removed.recv() => break self.take_down().await?,
                Some(leave) = self.leaves.recv() => {
                    if let Some(exit) = self.leave(leave).await {
                        break exit;
                    }
                }
            }
        };
        self.work.drain(GRACE).await;
        self.front.drain(GRACE).await;
        Ok(exit)
    }

    /// The node was deleted. The marker is kept first: whatever happens next, this machine doesn't
    /// enrol again by itself.
    async fn take_down(&self) -> anyhow::Result<Exit> {
        self.identity.update(|identity| identity.deleted = true)?;
        self.mesh.remove().await??;
        tracing::error!(
            "this node was deleted: its link is down, and `wattle-agent join` enrols the machine \
             anew"
        );
        Ok(Exit::Removed)
    }

    /// Leaves, where the control plane agrees; otherwise the agent goes on.
    async fn leave(&self, leave: Leave) -> Option<Exit> {
        let left = self.left(leave.force).await;
        let exit = left.is_ok().then(|| Exit::Done("left".into()));
        // Whoever asked may have gone.
        let _ = leave.answer.send(left.map_err(|error| format!("{error:#}")));
        exit
    }

    async fn left(&self, force: bool) -> anyhow::Result<()> {
        let displaced = self.session.borrow().state == SessionState::Displaced;
        if displaced {
            ensure!(
                force,
                "another machine uses this node's identity, and leaving would delete the node for \
                 both: --force makes this machine alone forget it"
            );
        } else {
            leave::delete_node(&self.identity.get(), force).await?;
        }
        self.mesh.remove().await??;
        // Nobody writes state any more when it is cleared.
        self.work.drain(GRACE).await;
        self.state.clear()?;
        tracing::info!("left the network");
        Ok(())
    }
}

/// Opens the device and makes it what it was when the last set was committed.
async fn restore(
    open: Open,
    keys: Keys,
    identity: &Identity,
    wishes: Wishes,
    held: &Held,
    surroundings: Surroundings,
) -> anyhow::Result<(Reconciler, Mesh)> {
    let (settings, node) = (&identity.settings, identity.node_id);
    let (mut reconciler, mesh) =
        Reconciler::open(open, node, keys, wishes, settings, surroundings).await?;
    reconciler.restore(session::restored(held), identity.secrets.in_use()).await;
    tracing::info!(
        node = %settings.name,
        network = %settings.network,
        peers = held.entries().filter(|(other, _)| *other != node).count(),
        revision = held.revision().0,
        "the mesh is up as last known"
    );
    Ok((reconciler, mesh))
}

/// The key by which peers know this node, as far as its own entry was seen.
fn own_key(held: &Held, node: NodeId) -> Option<PublicKey> {
    let (_, entry) = held.entries().find(|(id, _)| *id == node)?;
    entry::decode(entry).ok().map(|own| own.public_key)
}

/// Tells the agent when a part of it learns that the node was deleted.
async fn ends(part: impl Future<Output = Outcome>, removed: mpsc::Sender<()>) {
    if part.await == Outcome::Removed {
        // The agent ends at the first word; it may have ended already.
        let _ = removed.send(()).await;
    }
}
