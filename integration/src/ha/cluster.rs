//! The cluster: hosts, processes, proxies between them, and who acts in it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use wattle_model::NodeId;
use wattle_proxy::{Fault as Order, Proxy};

use super::{
    etcd::{self, Member},
    operators::Operators,
    recorder::Recorder,
    tap::Tap,
    witness::Witness,
};
use crate::{Agent, ControlPlane, Host, Inside, Settings, Underlay, wait_until};

/// How many replicas, and how many members of etcd.
pub const REPLICAS: usize = 3;
const PREFIX: &str = "/wattle/";
/// Longer than it takes until replicas know of each other what has changed.
const QUIET: Duration = Duration::from_secs(4);
const LIMIT: Duration = Duration::from_secs(60);
/// Where a replica listens on its own host: who comes from outside comes through the door.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7443);
const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
const DOOR: u16 = 7443;
const TO_ETCD: u16 = 23790;

/// Three replicas over three members, agents, and what plays operators and agents beside them.
pub struct HaCluster {
    // In the order in which they may be dropped: guards of threads and processes before hosts.
    /// Agents that record.
    pub witnesses: Vec<Arc<Witness>>,
    /// Operators that record.
    pub operators: Operators,
    /// What has happened.
    pub recorder: Recorder,
    pub(crate) operator: Inside,
    doors: Vec<Doors>,
    /// Agents with devices.
    pub agents: Vec<Agent>,
    /// The replicas.
    pub replicas: Vec<ControlPlane>,
    /// The members of etcd.
    pub members: Vec<Member>,
    _operators_host: Host,
    underlay: Underlay,
    /// Numbers the trials.
    pub(crate) trials: usize,
    settings: Settings,
    /// Numbers the hosts of agents.
    hosts: u8,
    folder: TempDir,
}

/// The proxies on a replica's host.
struct Doors {
    /// To the replica.
    agents: Arc<Proxy>,
    /// From the replica to each member.
    etcd: Vec<Arc<Proxy>>,
    inside: Inside,
}

impl HaCluster {
    /// Starts all of it: agents with these names, and witnesses.
    pub fn start(settings: &Settings, agents: &[&str]) -> Result<Self> {
        let mut cluster = Self::without_agents(settings)?;
        cluster.operator.run(policies(cluster.operators.clone()))??;
        cluster.join(agents)?;
        Ok(cluster)
    }

    /// Members and replicas.
    fn without_agents(settings: &Settings) -> Result<Self> {
        let (underlay, folder) = (Underlay::new()?, tempfile::tempdir()?);
        let operators_host = underlay.host("ops", 2)?;
        let operator = Inside::new(&operators_host)?;
        let hosts = (1..).zip(["etcd1", "etcd2", "etcd3"]);
        let hosts = hosts.map(|(n, name)| underlay.host(name, 20 + n)).collect::<Result<_>>()?;
        let members = Member::start_all(hosts, folder.path(), &operator)?;
        let addresses: Vec<String> = members.iter().map(Member::address).collect();
        let (mut replicas, mut doors) = (Vec::new(), Vec::new());
        for number in 1..=REPLICAS {
            let name = format!("replica{number}");
            let host = underlay.host(&name, 10 + u8::try_from(number)?)?;
            let door = Doors::open(&host, &addresses)?;
            let settings = Settings {
                control_plane: arguments(&host, &door, &settings.control_plane),
                ..settings.clone()
            };
            replicas.push(ControlPlane::new(&name, host, folder.path(), &settings));
            doors.push(door);
        }
        start_replicas(&mut replicas, folder.path())?;
        let recorder = Recorder::default();
        tap(&operator, addresses, &recorder)?;
        let doors_of: Vec<_> = replicas.iter().map(address).collect();
        let credential = folder.path().join("operator.json");
        let operators = Operators::new(&credential, doors_of, recorder.clone())?;
        Ok(Self {
            witnesses: Vec::new(),
            operators,
            recorder,
            operator,
            doors,
            agents: Vec::new(),
            replicas,
            members,
            _operators_host: operators_host,
            underlay,
            trials: 0,
            settings: settings.clone(),
            hosts: 31,
            folder,
        })
    }

    fn join(&mut self, names: &[&str]) -> Result<()> {
        let mesh = self.token("mesh")?;
        for name in names {
            self.agent(name, &mesh)?;
        }
        for role in ["watcher", "web", "db"] {
            let (operators, recorder) = (self.operators.clone(), self.recorder.clone());
            let token = self.token(role)?.parse()?;
            let name = format!("witness-{role}");
            let witness = self
                .operator
                .run(async move { Witness::enrol(&operators, recorder, &token, &name).await })??;
            self.operator.spawn(witness.follow());
            self.witnesses.push(Arc::new(witness));
        }
        for agent in &self.agents {
            let others = names.iter().filter(|name| **name != agent.name()).copied();
            let mut others: Vec<_> = others.chain(["witness-watcher"]).collect();
            others.sort_unstable();
            agent.wait_peers(&others, LIMIT)?;
        }
        Ok(())
    }

    /// A token for any number of agents of this role; those of the mesh see each other.
    pub fn token(&self, role: &'static str) -> Result<String> {
        let operators = self.operators.clone();
        self.operator.run(async move { operators.token(&[("role", role)], 0).await })?
    }

    /// One more agent with a device, the last of [`HaCluster::agents`].
    pub fn agent(&mut self, name: &str, token: &str) -> Result<()> {
        let host = self.underlay.host(name, self.hosts)?;
        self.hosts += 1;
        self.agents.push(Agent::start(host, self.folder.path(), token, &self.settings)?);
        Ok(())
    }

    /// The replica that an agent is connected to, by its own word.
    pub fn home(&self, agent: &Agent) -> Option<usize> {
        let status = agent.status().ok()?;
        let session = &status["session"];
        let address = session["control_plane"].as_str()?;
        let connected = session["state"] == "connected";
        connected
            .then(|| self.replicas.iter().position(|replica| self::address(replica) == address))?
    }

    /// Waits until all replicas are well, none has more than its share, and no agent has moved for a
    /// while: then none will.
    pub fn wait_balanced(&self) -> Result<()> {
        let homes = || self.agents.iter().map(|agent| self.home(agent)).collect::<Vec<_>>();
        let (mut last, mut since) = (homes(), Instant::now());
        wait_until("agents that stay where they are", LIMIT, || {
            sleep(Duration::from_millis(200));
            let now = homes();
            if now != last || now.contains(&None) || !self.is_shared()? {
                (last, since) = (now, Instant::now());
            }
            Ok((since.elapsed() >= QUIET).then_some(()))
        })
    }

    /// Nobody is to move, by the rule of `replicas/balance.rs`.
    fn is_shared(&self) -> Result<bool> {
        let list = self.replicas[0].json(&["replica", "list"])?;
        let list = list.as_array().context("replica list is no list")?;
        let sessions = list.iter().filter_map(|replica| replica["sessions"].as_u64());
        let (total, most) = sessions.fold((0, 0), |(total, most), n| (total + n, n.max(most)));
        let well = list.iter().filter(|replica| replica["state"] == "serving").count();
        Ok(well == REPLICAS && most <= (total * 11).div_ceil(10 * REPLICAS as u64))
    }

    /// Where replicas are reached.
    pub fn addresses(&self) -> Vec<String> {
        self.replicas.iter().map(address).collect()
    }

    /// The member that leads.
    pub fn leader(&self) -> Result<usize> {
        wait_until("a leader of etcd", LIMIT, || Ok(etcd::leader(&self.members, &self.operator)))
    }

    /// The proxy before a replica.
    pub fn door(&self, replica: usize) -> &Proxy {
        &self.doors[replica].agents
    }

    /// Does this to every path from a replica to etcd.
    pub fn order_to_etcd(&self, replica: usize, order: Order) {
        self.doors[replica].etcd.iter().for_each(|proxy| proxy.set(order));
    }

    /// The proxies between a replica and etcd.
    pub fn to_etcd(&self, replica: usize) -> &[Arc<Proxy>] {
        &self.doors[replica].etcd
    }

    /// Has etcd forget all revisions up to what has been recorded: what compares the product with
    /// etcd is to miss nothing.
    pub fn compact(&self) -> Result<()> {
        let revision = i64::try_from(self.recorder.revision())?;
        let member = |member: &Member| format!("http://{}", member.address());
        let members: Vec<String> = self.members.iter().map(member).collect();
        self.run(async move {
            let mut client = etcd_client::Client::connect(members, None).await?;
            match client.compact(revision, None).await {
                // It has done so before.
                Err(etcd_client::Error::GRpcStatus(status))
                    if status.code() == tonic::Code::OutOfRange =>
                {
                    Ok(())
                }
                other => Ok(other.map(drop)?),
            }
        })?
    }

    /// Freezes a replica's process, or wakes it.
    pub fn signal(&self, replica: usize, signal: Signal) -> Result<()> {
        let process = self.replicas[replica].process().context("the replica doesn't run")?;
        process.signal(signal)
    }

    /// Whole sets that agents have ever been sent, those with devices and those that record.
    pub fn full_sets(&self) -> Result<u64> {
        let mut count = 0;
        for agent in &self.agents {
            count += agent.status()?["session"]["full_sets"].as_u64().unwrap_or(0);
        }
        let recorded = self.recorder.recording().agents;
        let heard = recorded.iter().flat_map(|agent| &agent.heard);
        let full = heard
            .filter(|heard| matches!(heard, wattle_checker::Heard::Batch { full_set: true, .. }));
        Ok(count + full.count() as u64)
    }

    /// The nodes of the agents with devices.
    pub fn nodes(&self) -> Result<Vec<NodeId>> {
        let node = |agent: &Agent| {
            let status = agent.status()?;
            Ok(status["node"]["id"].as_str().context("no id")?.parse()?)
        };
        self.agents.iter().map(node).collect()
    }

    /// What a replica's metric says, asked on its own host: also while nobody else reaches it.
    pub fn metric(&self, replica: usize, name: &str) -> Result<f64> {
        let page = self.doors[replica].inside.run(scrape())??;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("no metric {name}"))?.trim().parse()?)
    }

    /// The folder of states and logs; gone with the cluster.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs something where operators are.
    pub fn run<T: Send + 'static>(
        &self,
        what: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        self.operator.run(what)
    }
}

impl Doors {
    fn open(host: &Host, members: &[String]) -> Result<Self> {
        let inside = Inside::new(host)?;
        let open = |listen: SocketAddr, to: SocketAddr| {
            let proxy = inside.run(Proxy::start(listen, to))?;
            Ok::<_, anyhow::Error>(Arc::new(proxy?))
        };
        let agents = open((host.ipv4, DOOR).into(), LISTEN)?;
        let etcd = (TO_ETCD..).zip(members);
        let etcd = etcd.map(|(port, member)| open(([127, 0, 0, 1], port).into(), member.parse()?));
        Ok(Self { agents, etcd: etcd.collect::<Result<_>>()?, inside })
    }
}

async fn scrape() -> Result<String> {
    let mut stream = TcpStream::connect(METRICS).await?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}

fn address(replica: &ControlPlane) -> String {
    format!("{}:{DOOR}", replica.host().ipv4)
}

fn arguments(host: &Host, doors: &Doors, more: &[String]) -> Vec<String> {
    let url = |proxy: &Arc<Proxy>| format!("http://{}", proxy.address());
    let endpoints: Vec<_> = doors.etcd.iter().map(url).collect();
    let door = format!("{}:{DOOR}", host.ipv4);
    let own = [
        "--store",
        "etcd",
        "--etcd-endpoints",
        &endpoints.join(","),
        "--etcd-prefix",
        PREFIX,
        "--listen",
        &LISTEN.to_string(),
        "--metrics-listen",
        &METRICS.to_string(),
        "--advertise",
        &door,
        "--replica-address",
        &door,
    ];
    own.into_iter().map(str::to_owned).chain(more.iter().cloned()).collect()
}

/// The first one makes the control plane: its CA and its operator are those of all.
fn start_replicas(replicas: &mut [ControlPlane], folder: &Path) -> Result<()> {
    let [first, others @ ..] = replicas else { anyhow::bail!("no replicas") };
    first.restart()?;
    let credential = fs::read_to_string(first.data().join("operator.json"))?;
    let credential: Value = serde_json::from_str(&credential)?;
    let addresses: Vec<_> = std::iter::once(&*first).chain(others.iter()).map(address).collect();
    write_credential(&credential, &addresses, &folder.join("operator.json"))?;
    for replica in others.iter_mut() {
        fs::create_dir_all(replica.data())?;
        for file in ["ca.crt", "ca.key"] {
            // With its mode: a key that others can read isn't taken.
            fs::copy(first.data().join(file), replica.data().join(file))?;
        }
    }
    for replica in std::iter::once(first).chain(others.iter_mut()) {
        let own: PathBuf = replica.data().join("own.json");
        write_credential(&credential, &[address(replica)], &own)?;
        replica.operate_with(own);
        if replica.process().is_none() {
            replica.spawn()?;
        }
    }
    for replica in replicas {
        replica.wait_ready()?;
    }
    Ok(())
}

fn write_credential(credential: &Value, addresses: &[String], path: &Path) -> Result<()> {
    let mut credential = credential.clone();
    credential["control_planes"] = json!(addresses);
    fs::write(path, credential.to_string())?;
    Ok(())
}

fn tap(operator: &Inside, members: Vec<String>, recorder: &Recorder) -> Result<()> {
    let tap = Tap { members, prefix: PREFIX.to_owned(), recorder: recorder.clone() };
    let (tap, next) = operator.run(async move {
        let next = tap.begin().await;
        (tap, next)
    })?;
    operator.spawn(tap.follow(next?));
    Ok(())
}

/// Agents see each other, whoever watches sees all, and the rest is for the churn to change.
async fn policies(operators: Operators) -> Result<()> {
    operators.policy("mesh", Some(("role=mesh", "role=mesh"))).await;
    operators.policy("watch", Some(("role=watcher", ""))).await;
    operators.close_network().await
}
