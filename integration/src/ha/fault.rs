//! What breaks, and how it is mended.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use wattle_proxy::Fault as Order;

use super::{HaCluster, etcd};

/// Each way: a question and its answer take longer than a replica waits for a member (2 s), and a
/// connection that is probed lives (3 s).
const SLOW: Duration = Duration::from_millis(1200);

/// Something that breaks. Replicas, members and agents are counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: what is done meanwhile must not be noticed.
    None,
    /// kill -9 of a replica; it comes back.
    KillReplica(usize),
    /// A replica stops in order, as when it is replaced; it comes back.
    StopReplica(usize),
    /// A replica is frozen: its connections are open and it does nothing.
    FreezeReplica(usize),
    /// What is said to a replica and what it says is lost, without anybody being told.
    SwallowReplica(usize),
    /// A replica can't reach etcd any more, and agents reach it as ever.
    CutFromEtcd(usize),
    /// What a replica says to etcd and hears of it takes so long that nobody waits for an answer, and
    /// comes: what it gave up is done all the same.
    SlowEtcd(usize),
    /// Nothing passes between a replica and etcd for a while, and then all of it.
    StallEtcd(usize),
    /// An agent can't reach a replica any more, and everybody else can.
    CutAgent {
        /// Which agent.
        agent: usize,
        /// From which replica.
        replica: usize,
        /// Its connections are reset; otherwise what is said is lost.
        reset: bool,
    },
    /// Every watch that a replica holds is cut after so many bytes more.
    CutWatches {
        /// Whose.
        replica: usize,
        /// So many.
        after: u64,
    },
    /// kill -9 of the member that leads; it comes back.
    KillLeader,
    /// The member that leads is frozen.
    FreezeLeader,
    /// Two of three members are killed: nothing can be written. They come back.
    LoseQuorum,
    /// kill -9 of all replicas; they come back.
    KillReplicas,
    /// etcd forgets all but the last revisions.
    Compact,
}

/// What was broken, to be mended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Broken {
    fault: Fault,
    leader: Option<usize>,
}

impl Fault {
    /// In a word, for tables and files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::KillReplica(_) => "replica-killed",
            Self::StopReplica(_) => "replica-restarted",
            Self::FreezeReplica(_) => "replica-frozen",
            Self::SwallowReplica(_) => "replica-black-holed",
            Self::CutFromEtcd(_) => "replica-cut-from-etcd",
            Self::SlowEtcd(_) => "replica-slow-to-etcd",
            Self::StallEtcd(_) => "replica-stalled-before-etcd",
            Self::CutAgent { reset: true, .. } => "agent-reset-from-replica",
            Self::CutAgent { .. } => "agent-cut-from-replica",
            Self::CutWatches { .. } => "watches-cut",
            Self::KillLeader => "etcd-leader-killed",
            Self::FreezeLeader => "etcd-leader-frozen",
            Self::LoseQuorum => "etcd-quorum-lost",
            Self::KillReplicas => "all-replicas-killed",
            Self::Compact => "etcd-compacted",
        }
    }

    /// Whether the agents that were connected there have to go elsewhere.
    pub(crate) const fn moves_agents_of(self) -> Option<usize> {
        match self {
            Self::KillReplica(replica)
            | Self::StopReplica(replica)
            | Self::FreezeReplica(replica)
            | Self::SwallowReplica(replica)
            | Self::CutAgent { replica, .. } => Some(replica),
            _ => None,
        }
    }

    /// Breaks it.
    pub(crate) fn inject(self, cluster: &mut HaCluster) -> Result<Broken> {
        let mut leader = None;
        match self {
            Self::None => {}
            Self::KillReplica(replica) => cluster.replicas[replica].kill()?,
            Self::StopReplica(replica) => {
                cluster.replicas[replica].terminate(Duration::from_secs(30))?;
            }
            Self::FreezeReplica(replica) => cluster.signal(replica, Signal::SIGSTOP)?,
            Self::SwallowReplica(replica) => cluster.door(replica).set(Order::Swallow),
            Self::CutFromEtcd(replica) => cluster.order_to_etcd(replica, Order::Swallow),
            Self::SlowEtcd(replica) => cluster.order_to_etcd(replica, Order::Delay(SLOW)),
            Self::StallEtcd(replica) => cluster.order_to_etcd(replica, Order::Stall),
            Self::CutAgent { agent, replica, reset } => {
                let order = if reset { Order::Cut } else { Order::Swallow };
                let address = IpAddr::from(cluster.agents[agent].host().ipv4);
                cluster.door(replica).set_for(address, Some(order));
            }
            Self::CutWatches { replica, after } => {
                cluster.order_to_etcd(replica, Order::CutAfter(after));
            }
            Self::KillLeader => {
                leader = Some(cluster.leader()?);
                cluster.members[leader.context("just set")?].kill()?;
            }
            Self::FreezeLeader => {
                leader = Some(cluster.leader()?);
                cluster.members[leader.context("just set")?].signal(Signal::SIGSTOP)?;
            }
            Self::LoseQuorum => cluster.members[..2].iter_mut().try_for_each(etcd::Member::kill)?,
            Self::KillReplicas => {
                cluster.replicas.iter_mut().try_for_each(crate::ControlPlane::kill)?;
            }
            Self::Compact => cluster.compact()?,
        }
        Ok(Broken { fault: self, leader })
    }
}

impl Broken {
    /// Mends it.
    pub(crate) fn mend(self, cluster: &mut HaCluster) -> Result<()> {
        match self.fault {
            Fault::KillReplica(replica) | Fault::StopReplica(replica) => {
                cluster.replicas[replica].restart()?;
            }
            Fault::FreezeReplica(replica) => cluster.signal(replica, Signal::SIGCONT)?,
            Fault::SwallowReplica(replica) => cluster.door(replica).set(Order::Pass),
            Fault::CutFromEtcd(replica)
            | Fault::SlowEtcd(replica)
            | Fault::StallEtcd(replica)
            | Fault::CutWatches { replica, .. } => {
                cluster.order_to_etcd(replica, Order::Pass);
            }
            Fault::CutAgent { agent, replica, .. } => {
                let address = IpAddr::from(cluster.agents[agent].host().ipv4);
                cluster.door(replica).set_for(address, None);
            }
            Fault::KillLeader | Fault::LoseQuorum => {
                for member in cluster.members.iter_mut().filter(|member| !member.runs()) {
                    member.start()?;
                }
            }
            Fault::FreezeLeader => {
                let leader = self.leader.context("a leader was frozen")?;
                cluster.members[leader].signal(Signal::SIGCONT)?;
            }
            Fault::KillReplicas => {
                cluster.replicas.iter_mut().try_for_each(crate::ControlPlane::spawn)?;
                cluster.replicas.iter_mut().try_for_each(crate::ControlPlane::wait_ready)?;
            }
            Fault::Compact | Fault::None => {}
        }
        Ok(())
    }
}
