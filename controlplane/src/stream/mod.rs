//! Hop 3: the stream. One `Sync` call for each agent brings it from what it has to its sight at
//! head and keeps it there.
//!
//! The flow: `service` takes the call and `opening` its Hello; `agent_loop` wakes on a new head,
//! asks the view for the page after the agent's `cursor`, takes its bytes from `frames` and passes
//! them through `body` when the agent has room. Acks go through `ledger` to `sessions`, which the
//! admin API reads. Nothing here is queued per agent, and nothing here writes the store but what
//! `reports` and `observations` pass on.

mod admission;
mod agent_loop;
mod arrivals;
mod body;
mod budget;
mod claim;
mod convert;
mod counts;
mod cursor;
mod encode;
mod farewell;
mod frames;
mod hello;
mod inspections;
mod ledger;
mod observations;
mod opening;
mod orders;
mod own_config;
mod own_key;
mod record;
mod reports;
mod requests;
mod service;
mod sessions;
mod stalls;
mod survey;
mod wait;

#[cfg(test)]
mod tests;

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use wattle_model::{NetworkName, NodeId};
use wattle_runtime::shutdown::Shutdown;

use self::{admission::Admission, frames::Frames, own_config::Configs, stalls::Stalls};
pub use self::{
    arrivals::{Arrivals, MAX_ARRIVALS},
    claim::Claim,
    convert::DataPlane,
    counts::Counts,
    inspections::Tunnel,
    record::{Rejected, SessionInfo},
    service::SyncService,
    sessions::Sessions,
    wait::{AppliedAfter, Following, Lagging, Progress, Report, Standing, Summary},
};
use crate::{listener::Cut, nodes::Nodes, replica::Replica, secrets::Secrets};

/// How fast things go.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Between heartbeats, before jitter.
    pub heartbeat: Duration,
    /// How long a stream may refuse to be written to.
    pub stall: Duration,
    /// How long agents have to go elsewhere when the replica stops.
    pub grace: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(15),
            stall: Duration::from_secs(60),
            grace: Duration::from_secs(10),
        }
    }
}

/// What all streams of a replica share.
struct Shared {
    replica: Arc<Replica>,
    nodes: Nodes,
    sessions: Sessions,
    configs: Configs,
    secrets: Secrets,
    frames: Frames,
    admission: Admission,
    stalls: Stalls,
    pace: Pace,
    shutdown: Shutdown,
}

/// One agent's call: who it is, by its certificate, and where it comes from.
#[derive(Debug, Clone)]
struct Call {
    network: NetworkName,
    node: NodeId,
    /// Where its connection comes from.
    address: IpAddr,
    connection: Cut,
}

/// Makes the service, and keeps an eye on its streams until the replica stops. Then every agent is
/// told to go elsewhere, at a moment of its own within the grace period.
pub fn start(
    replica: Arc<Replica>,
    nodes: Nodes,
    shutdown: &Shutdown,
    pace: Pace,
) -> (SyncService, Sessions) {
    let sessions = Sessions::new(replica.live.clone());
    let (stalls, admission) = (Stalls::default(), Admission::new());
    let secrets = Secrets::new(Arc::clone(&replica.store));
    let keep = secrets.clone().keep(sessions.clone(), replica.live.clone(), shutdown.token());
    shutdown.spawn("secrets", keep);
    let shared = Arc::new(Shared {
        configs: Configs::new(Arc::clone(&replica), secrets.clone()),
        secrets,
        replica,
        nodes,
        sessions: sessions.clone(),
        frames: Frames::new(),
        admission: admission.clone(),
        stalls: stalls.clone(),
        pace,
        shutdown: shutdown.clone(),
    });
    shutdown.spawn("streams", watch_over(sessions.clone(), stalls, shutdown.clone(), pace));
    shutdown.spawn("full sets", pass_slow(admission, shutdown.clone()));
    (SyncService::new(shared), sessions)
}

async fn pass_slow(admission: Admission, shutdown: Shutdown) {
    let sweep = async {
        loop {
            sleep(Duration::from_millis(500)).await;
            admission.pass_slow();
        }
    };
    shutdown.token().run_until_cancelled(sweep).await;
}

async fn watch_over(sessions: Sessions, stalls: Stalls, shutdown: Shutdown, pace: Pace) {
    let sweep = async {
        loop {
            sleep(pace.stall / 12).await;
            let stalled = stalls.cut(pace.stall);
            if stalled > 0 {
                tracing::info!(stalled, "cut streams that can't be written to");
                sessions.counts().count_stalled(stalled as u64);
            }
            sessions.forget_dead();
        }
    };
    shutdown.token().run_until_cancelled(sweep).await;
    let deadline = Instant::now() + pace.grace;
    sessions.drain(pace.grace);
    // The last agent's going ends the drain early.
    while sessions.online() > 0 && Instant::now() < deadline {
        sleep(Duration::from_millis(50)).await;
    }
}
