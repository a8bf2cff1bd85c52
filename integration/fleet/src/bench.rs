//! What every scenario begins and ends with: a control plane, a network, tokens, a fleet.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use wattle_model::Endpoint;
use wattle_proto::admin::Mode;

use crate::{
    admin::{Admin, Seen, Watcher},
    args::Common,
    fleet::{Fleet, unexpected},
    limits,
    order::{Answer, Awaited, Census, Enrol, Order, Who},
    outcome::Outcome,
    progress::Progress,
    server::{self, Server, Usage},
    worker::now,
};

/// Nothing here takes longer unless something is wrong.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
/// Machines of one process that enrol at the same time.
const AT_ONCE: usize = 64;

/// A control plane and a fleet, ready for a scenario.
pub(crate) struct Bench {
    pub(crate) agents: usize,
    pub(crate) groups: usize,
    pub(crate) server: Server,
    pub(crate) admin: Admin,
    pub(crate) fleet: Fleet,
    pub(crate) progress: Progress,
    /// The control plane before there was a fleet.
    pub(crate) before: Option<Usage>,
    /// Agents in the order in which they change.
    turns: Vec<usize>,
    turn: usize,
    /// In the order in which they enrol.
    order: Vec<usize>,
}

/// A change under way.
pub(crate) struct Moved {
    /// Where the agent says that it is.
    pub(crate) endpoint: Bytes,
    /// When it was told to say so.
    pub(crate) told_at: u64,
}

impl Bench {
    /// Starts a control plane, unless there is one, and makes the network.
    pub(crate) async fn start(common: &Common, mode: Mode) -> Result<Self> {
        common.check()?;
        let progress = Progress::new();
        let workers = limits::workers(common.agents, common.workers, common.context.is_none())?;
        progress.begin("starting the control plane");
        let server = match &common.context {
            Some(file) => Server::Other(Box::new(common.credential(file)?)),
            None => {
                let program = server::program(common.server.clone())?;
                match common.replicas.unwrap_or(1) {
                    1 => Server::start(&program).await?,
                    replicas => Server::start_several(&program, replicas).await?,
                }
            }
        };
        let name = format!("fleet-{:08x}", rand::random::<u32>());
        let mut admin = Admin::connect(server.credential(), name).await?;
        admin.create_network(mode).await?;
        let before = server.usage()?;
        let mut rng = StdRng::seed_from_u64(common.seed);
        let mut turns: Vec<usize> = (0..common.agents).collect();
        let mut order = turns.clone();
        turns.shuffle(&mut rng);
        order.shuffle(&mut rng);
        Ok(Self {
            agents: common.agents,
            groups: common.groups,
            server,
            admin,
            fleet: Fleet::start(workers)?,
            progress,
            before,
            turns,
            turn: 0,
            order,
        })
    }

    /// The group of an agent.
    pub(crate) const fn group(&self, agent: usize) -> usize {
        agent % self.groups
    }

    /// Enrols all machines; when that began and ended. With `connect`, each opens its stream as
    /// soon as it is a node.
    pub(crate) async fn enrol(&mut self, connect: bool) -> Result<(u64, u64)> {
        let mut tokens = Vec::new();
        for group in 0..self.groups {
            tokens.push(self.admin.token(group).await?);
        }
        let workers = self.fleet.workers();
        let orders: Vec<_> = (0..workers)
            .map(|worker| {
                let own = self.order.iter().filter(|agent| **agent % workers == worker);
                Order::Enrol(Enrol {
                    agents: own.map(|agent| (*agent, self.group(*agent))).collect(),
                    tokens: tokens.clone(),
                    at_once: AT_ONCE,
                    connect,
                })
            })
            .collect();
        self.progress.count("enrolling", self.agents);
        let begin = now();
        let progress = &self.progress;
        let answers = self.fleet.each(orders.into_iter(), &|more| progress.advance(more)).await?;
        let ends = answers.iter().map(|answer| match answer {
            Answer::At(at) => Ok(*at),
            other => Err(unexpected(other)),
        });
        let end = ends.collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(begin);
        Ok((begin, end))
    }

    /// Opens streams; when that began.
    pub(crate) async fn connect(&mut self, who: Who, forget: bool, frozen: bool) -> Result<u64> {
        self.progress.begin("connecting");
        let begin = now();
        self.fleet.all(&Order::Connect { who, forget, frozen }).await?;
        Ok(begin)
    }

    /// Waits until agents hold all that the control plane knows now.
    pub(crate) async fn converge(&mut self, who: Who) -> Result<Awaited> {
        self.progress.begin("converging");
        let revision = self.admin.status().await?.revision;
        self.hold(who, revision).await
    }

    /// Waits until agents hold a revision.
    pub(crate) async fn hold(&mut self, who: Who, revision: u64) -> Result<Awaited> {
        let millis = u64::try_from(PATIENCE.as_millis())?;
        let awaited = self.fleet.wait(&Order::Await { who, revision, millis }).await?;
        if awaited.done < awaited.of {
            let census = self.fleet.census().await?;
            bail!(
                "only {} of {} agents hold revision {revision} after {PATIENCE:?}; {} are online; \
                 streams that broke off: {:?}",
                awaited.done,
                awaited.of,
                census.online,
                census.lost
            );
        }
        Ok(awaited)
    }

    /// All machines enrol, then all open their streams and get what they may see.
    pub(crate) async fn assemble(&mut self) -> Result<()> {
        self.enrol(false).await?;
        self.connect(Who::All, true, false).await?;
        self.converge(Who::All).await?;
        Ok(())
    }

    /// The next agent in turn moves: it reports an endpoint that nobody had.
    pub(crate) async fn change(&mut self, who: Who) -> Result<Moved> {
        let agent = loop {
            let agent = self.turns[self.turn % self.turns.len()];
            self.turn += 1;
            if who.includes(agent) {
                break agent;
            }
        };
        // The upper half of the range for benchmarks, RFC 2544.
        let (low, high) = (self.turn & 0xffff, self.turn >> 16);
        let ip = u32::from(Ipv4Addr::new(198, 19, 0, 0)) + u32::try_from(low)?;
        let port = u16::try_from(20_000 + high).context("too many changes")?;
        let endpoint = SocketAddr::new(Ipv4Addr::from(ip).into(), port);
        let told_at = self.fleet.report(agent, endpoint).await?;
        Ok(Moved { endpoint: Endpoint::new(endpoint)?.to_bytes().into(), told_at })
    }

    /// The change by which the agent came to be there, and when it was committed: by the control
    /// plane's word, else when the agent was told, which is before that.
    pub(crate) async fn seen(watcher: &mut Watcher, moved: &Moved) -> Result<(Seen, u64)> {
        let seen = tokio::time::timeout(PATIENCE, watcher.moved_to(&moved.endpoint)).await;
        let seen = seen.context("a change that an agent reported isn't in the store")??;
        let at = seen.committed_at.unwrap_or(moved.told_at);
        Ok((seen, at))
    }

    /// Whether every commit and heartbeat ever had the agent's digest, and all agents of a group
    /// hold the same, as many entries as `expected` says of the group.
    pub(crate) async fn check(&mut self, expected: impl Fn(usize) -> usize) -> Result<bool> {
        let census = self.fleet.census().await?;
        Ok(agree(&census, self.groups, self.agents, expected))
    }

    /// An outcome with what every scenario can say.
    pub(crate) fn outcome(&self, scenario: &'static str) -> Outcome {
        Outcome::of(scenario, self.agents, self.groups)
    }

    /// Ends the run: nothing of it is left.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.fleet.all(&Order::Disconnect { who: Who::All }).await?;
        if !self.server.is_own() {
            self.progress.count("deleting the nodes", self.agents);
            let progress = &self.progress;
            self.admin.clean_up(&|more| progress.advance(more)).await?;
        }
        self.server.end().await
    }
}

fn agree(census: &Census, groups: usize, agents: usize, expected: impl Fn(usize) -> usize) -> bool {
    let one_each = census.states.len() == groups.min(agents);
    let all = census.states.iter().map(|held| held.agents).sum::<usize>() == agents;
    let right = census.states.iter().all(|held| held.entries == expected(held.group));
    census.mismatches == 0 && one_each && all && right
}

/// Fails a run whose agents hold something else than they should.
pub(crate) fn sound(outcome: &Outcome) -> Result<()> {
    ensure!(
        outcome.digests_equal != Some(false),
        "{}: the agents don't hold what the control plane says: this is a bug",
        outcome.scenario
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Held;

    #[test]
    fn any_difference_is_seen() {
        let held = |group, digest: &str, entries, agents| Held {
            group,
            digest: digest.into(),
            entries,
            agents,
        };
        let census = |states| Census { states, ..Census::default() };
        let fine = census(vec![held(0, "a", 10, 5), held(1, "b", 10, 5)]);
        assert!(agree(&fine, 2, 10, |_| 10));
        assert!(!agree(&fine, 2, 10, |group| 10 + group), "too few entries");
        assert!(!agree(&fine, 2, 11, |_| 10), "somebody is missing");
        assert!(!agree(&Census { mismatches: 1, ..fine }, 2, 10, |_| 10));
        let split = census(vec![held(0, "a", 10, 5), held(0, "c", 10, 5)]);
        assert!(!agree(&split, 1, 10, |_| 10), "two states in one group");
    }
}
