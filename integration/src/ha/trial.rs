//! One fault under load: pings on every pair and changes all the while; before, during and after it
//! is seen what became of packets, streams, changes and revisions.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use serde::Serialize;
use wattle_checker::{Guarantee, Violation, World, check};
use wattle_model::{Digest, NodeId};

use super::{
    Churn, Fault, HaCluster, Rate,
    homes::{cut_after, home, moves, rehomed_after},
    operators::NETWORK,
};
use crate::{Agent, Flow, Lost, wait_until};

/// Between two pings of a pair.
const PING_EVERY: Duration = Duration::from_millis(50);
/// Once it is mended, everything is right again within this.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// How long each part lasts.
#[derive(Debug, Clone, Copy)]
pub struct Pause {
    /// Before it breaks.
    pub before: Duration,
    /// Until it is mended.
    pub broken: Duration,
    /// From then until changes stop.
    pub after: Duration,
}

/// A trial.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    /// What breaks.
    pub fault: Fault,
    /// For how long.
    pub pause: Pause,
    /// What the changes are drawn from.
    pub seed: u64,
    /// How many there are.
    pub rate: Rate,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Found {
    /// What broke.
    pub fault: String,
    /// Packets sent from agent to agent meanwhile.
    pub packets: u64,
    /// Packets that weren't answered.
    pub packets_lost: u64,
    /// Agents that had to go to another replica. Of all others, whoever loses its stream is a violation.
    pub rehomed: usize,
    /// From the fault until they were connected again: the slowest of a hundred. None where nobody
    /// had to move.
    pub rehome_p99_ms: Option<f64>,
    /// Whole sets that agents were sent.
    pub full_sets: u64,
    /// Calls that were answered, refused, and of which nobody knows.
    pub calls: [usize; 3],
    /// Changes that were answered and aren't in the store, or that an agent never got.
    pub changes_lost: usize,
    /// Every agent holds what the store says.
    pub digests_equal: bool,
    /// The store's revision in the end.
    pub revision: u64,
    /// What else the recording shows to be wrong.
    pub violations: Vec<String>,
}

impl Found {
    /// Whether nothing was lost.
    pub const fn is_good(&self) -> bool {
        self.packets_lost == 0
            && self.full_sets == 0
            && self.changes_lost == 0
            && self.digests_equal
            && self.violations.is_empty()
    }
}

impl Trial {
    /// Runs it.
    pub fn run(&self, cluster: &mut HaCluster) -> Result<Found> {
        self.run_with(cluster, |_| Ok(()))
    }

    /// Runs it; `meanwhile` while it is broken, before the pause.
    pub fn run_with(
        &self,
        cluster: &mut HaCluster,
        meanwhile: impl FnOnce(&mut HaCluster) -> Result<()>,
    ) -> Result<Found> {
        let before = Before::of(cluster)?;
        let flows = start_flows(cluster)?;
        let churn = self.churn(cluster)?;
        sleep(self.pause.before);
        let homes = Homes::of(cluster)?;
        let at = Timestamp::now();
        let broken = self.fault.inject(cluster)?;
        let meant = meanwhile(cluster);
        sleep(self.pause.broken);
        broken.mend(cluster)?;
        meant.with_context(|| format!("while {}", self.fault.name()))?;
        sleep(self.pause.after);
        churn.stop();
        wait_until("the end of all changes", SETTLED_WITHIN, || {
            Ok(churn.has_ended().then_some(()))
        })?;
        let settled = settle(cluster);
        let packets = stop_flows(flows)?;
        let mut found = before.compare(self.fault, packets, cluster)?;
        if let Err(why) = settled {
            found.digests_equal = false;
            found.violations.push(format!("{why:#}"));
        }
        homes.compare(self.fault, at, cluster, &mut found)?;
        keep(&found, self.seed, cluster)?;
        Ok(found)
    }

    fn churn(&self, cluster: &mut HaCluster) -> Result<Churn> {
        cluster.trials += 1;
        let witnesses = cluster.witnesses.clone();
        let mut residents = cluster.nodes()?;
        residents.extend(witnesses.iter().map(|witness| witness.node));
        Ok(Churn::start(
            &cluster.operator,
            cluster.operators.clone(),
            witnesses,
            residents,
            self.seed,
            self.rate,
            cluster.trials,
        ))
    }
}

/// What there was before.
struct Before {
    full_sets: u64,
    calls: [usize; 3],
}

impl Before {
    fn of(cluster: &HaCluster) -> Result<Self> {
        Ok(Self { full_sets: cluster.full_sets()?, calls: cluster.recorder.calls() })
    }

    fn compare(self, fault: Fault, packets: Lost, cluster: &HaCluster) -> Result<Found> {
        let violations = check(&cluster.recorder.recording());
        let lost = |violation: &&Violation| {
            matches!(violation.guarantee, Guarantee::Durable | Guarantee::Reliable)
        };
        let calls = cluster.recorder.calls();
        Ok(Found {
            fault: fault.name().to_owned(),
            packets: packets.sent.into(),
            packets_lost: packets.lost.into(),
            rehomed: 0,
            rehome_p99_ms: None,
            full_sets: cluster.full_sets()? - self.full_sets,
            calls: std::array::from_fn(|place| calls[place] - self.calls[place]),
            changes_lost: violations.iter().filter(lost).count(),
            digests_equal: true,
            revision: cluster.recorder.revision(),
            violations: violations.iter().map(ToString::to_string).collect(),
        })
    }
}

/// Where agents were when it broke.
struct Homes(BTreeMap<String, String>);

impl Homes {
    fn of(cluster: &HaCluster) -> Result<Self> {
        let now = Timestamp::now();
        let mut homes = BTreeMap::new();
        for agent in &cluster.agents {
            let moves = moves(&agent.log()?)?;
            if let Some(home) = home(&moves, now) {
                homes.insert(agent.name().to_owned(), home.to_owned());
            }
        }
        if homes.len() < cluster.agents.len() {
            let log = cluster.agents[0].log()?;
            anyhow::bail!("not all agents are connected: {homes:?}\n{log}");
        }
        Ok(Self(homes))
    }

    fn compare(
        &self,
        fault: Fault,
        at: Timestamp,
        cluster: &HaCluster,
        found: &mut Found,
    ) -> Result<()> {
        let mut took = Vec::new();
        for agent in cluster.agents.iter().enumerate() {
            let (moves, name) = (moves(&agent.1.log()?)?, agent.1.name());
            if self.moved(fault, agent, cluster) {
                let after = rehomed_after(&moves, at);
                let after = after.with_context(|| format!("{name} never came back"))?;
                took.push(after.as_secs_f64() * 1000.0);
            } else if cut_after(&moves, at) {
                let why = format!("{name} lost its stream, and nothing of its own broke");
                found.violations.push(why);
            }
        }
        took.sort_by(f64::total_cmp);
        found.rehomed = took.len();
        let place = (took.len() as f64 * 0.99).ceil() as usize;
        found.rehome_p99_ms = place.checked_sub(1).and_then(|place| took.get(place).copied());
        Ok(())
    }

    fn moved(&self, fault: Fault, (number, agent): (usize, &Agent), cluster: &HaCluster) -> bool {
        let home = self.0.get(agent.name());
        let from = |replica: usize| cluster.addresses().get(replica) == home;
        match fault {
            Fault::KillReplicas => true,
            Fault::CutAgent { agent, replica, .. } => agent == number && from(replica),
            other => other.moves_agents_of().is_some_and(from),
        }
    }
}

/// Waits until every agent holds what the store says, and stays connected.
fn settle(cluster: &HaCluster) -> Result<()> {
    let (nodes, mut wrong) = (cluster.nodes()?, String::new());
    wait_until("every agent to hold what the store says", SETTLED_WITHIN, || {
        let world = world(cluster);
        wrong.clear();
        for (agent, node) in cluster.agents.iter().zip(&nodes) {
            let status = agent.status()?;
            let right = status["session"]["state"] == "connected"
                && status["set"]["digest"] == digest(&world, *node).to_string()
                && status["session"]["resyncs"] == 0;
            if !right {
                wrong = format!("{}: {status}", agent.name());
            }
        }
        for witness in &cluster.witnesses {
            if witness.digest() != digest(&world, witness.node) {
                wrong = format!("witness {}", witness.node);
            }
        }
        sleep(Duration::from_millis(100));
        Ok(wrong.is_empty().then_some(()))
    })
    .context(wrong)
}

fn world(cluster: &HaCluster) -> World {
    let mut world = World::default();
    let recording = cluster.recorder.recording();
    if let Some(log) = recording.stores.values().next_back() {
        std::iter::once(&log.first).chain(&log.transactions).for_each(|t| world.apply(t));
    }
    world
}

fn digest(world: &World, node: NodeId) -> Digest {
    let mut digest = Digest::EMPTY;
    let sight = world.sight(NETWORK, node);
    sight.iter().for_each(|(node, entry)| digest += Digest::of(*node, entry));
    digest
}

/// A ping on every pair, one direction each, alternating the family.
fn start_flows(cluster: &HaCluster) -> Result<Vec<Flow>> {
    let mut flows = Vec::new();
    for (i, from) in cluster.agents.iter().enumerate() {
        for (j, to) in cluster.agents.iter().enumerate().skip(i + 1) {
            let address = to.addresses()?[(i + j) % 2];
            wait_until("a first packet", SETTLED_WITHIN, || {
                Ok(crate::ping(from.host(), address, Duration::from_secs(1))?.then_some(()))
            })?;
            flows.push(Flow::start(from.host(), address, PING_EVERY)?);
        }
    }
    Ok(flows)
}

fn stop_flows(flows: Vec<Flow>) -> Result<Lost> {
    let mut all = Lost { sent: 0, lost: 0, silence: Duration::ZERO };
    for flow in flows {
        let seen = flow.stop()?;
        ensure!(seen.sent > 0, "a ping that sent nothing");
        all.sent += seen.sent;
        all.lost += seen.lost;
        all.silence = all.silence.max(seen.silence);
    }
    Ok(all)
}

/// What a trial that isn't good has recorded, and its seed.
fn keep(found: &Found, seed: u64, cluster: &HaCluster) -> Result<()> {
    if found.is_good() {
        return Ok(());
    }
    let path = kept(&found.fault, seed)?;
    let text = format!("{found:#?}\n{:#?}", cluster.recorder.recording());
    std::fs::write(&path, text).with_context(|| path.display().to_string())
}

/// Where the recording of a failed trial goes.
fn kept(fault: &str, seed: u64) -> Result<PathBuf> {
    let binary = crate::binary("wattle")?;
    let target = binary.ancestors().nth(2).unwrap_or_else(|| Path::new("target"));
    let folder = target.join("ha");
    std::fs::create_dir_all(&folder)?;
    Ok(folder.join(format!("{fault}-{seed}.txt")))
}
