//! What makes several control-plane processes one: each tells the others that it runs, where it is
//! reached and how it is ([`presence`], written by [`heart`], read into [`roster`]), asks them what
//! their agents have, and keeps its share of the agents.
//!
//! Nothing here is needed to serve an agent: a replica that can't reach the others serves its own.

mod addresses;
mod applied;
mod ask;
mod balance;
mod caller;
mod convert;
mod entering;
mod gathered;
mod heart;
mod merge;
mod presence;
mod roster;
mod service;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use wattle_model::Revision;
use wattle_runtime::shutdown::Shutdown;

use self::caller::Caller;
pub use self::{
    ask::Silent,
    merge::{AllKnown, Known},
    presence::{Presence, Unreadable},
    roster::{Other, Roster},
    service::Service,
};
use crate::{
    replica::Replica,
    store::StoreError,
    stream::{Sessions, Summary},
};

/// How often a replica says that it runs, and looks who else does.
pub const BEAT: Duration = Duration::from_secs(2);
/// Replicas that are listed. More are left out: a control plane of that size is a mistake.
pub const MAX_REPLICAS: usize = 64;

/// This replica among the others. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Replicas(Arc<Inner>);

struct Inner {
    replica: Arc<Replica>,
    sessions: Sessions,
    /// Where other replicas reach this one.
    address: String,
    caller: Caller,
    beats: AtomicU64,
    /// The last summary, and how many agents were connected.
    summary: Mutex<(Summary, usize)>,
    /// Cancelled when the replica stops.
    draining: CancellationToken,
}

impl Replicas {
    /// A replica that others reach at `address`. It is alone until [`Replicas::begin`].
    pub fn new(
        replica: Arc<Replica>,
        sessions: Sessions,
        address: String,
        draining: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            caller: Caller::new(replica.clone()),
            replica,
            sessions,
            address,
            beats: AtomicU64::new(0),
            summary: Mutex::default(),
            draining,
        }))
    }

    /// This one.
    pub fn own(&self) -> &Arc<Replica> {
        &self.0.replica
    }

    /// The agents that are connected to this one.
    pub fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// What others may ask of this one.
    pub fn service(&self) -> Service {
        Service::new(self.clone())
    }

    /// Begins to be one of several, once the first beat is done: whoever is served after this is
    /// told of all.
    pub async fn begin(&self, background: &Shutdown) -> Result<(), StoreError> {
        self.beat().await?;
        background.spawn("replicas", self.clone().keep(background.token()));
        background.spawn("arrivals", self.clone().tell_arrivals(background.token()));
        background.spawn("streams of others", self.clone().compare_streams(background.token()));
        background.spawn("share", self.clone().keep_share(background.token()));
        Ok(())
    }

    /// The others, as they were last seen.
    pub fn roster(&self) -> &Roster {
        &self.0.replica.roster
    }

    /// What this replica would say of itself now.
    pub fn presence(&self) -> Presence {
        let Inner { replica, sessions, .. } = &*self.0;
        let (indexed, last_change) = {
            let index = replica.live.read();
            (index.head(), index.last_change())
        };
        Presence {
            id: replica.id,
            addresses: replica.advertised.clone(),
            replica_address: self.0.address.clone(),
            started: replica.started,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            sessions: u32::try_from(sessions.online()).unwrap_or(u32::MAX),
            indexed,
            stale: replica.live.is_stale(),
            draining: self.0.draining.is_cancelled(),
            fingerprint: self.0.caller.fingerprint(),
            root: replica.authority.now().ca.pin(),
            beat: self.0.beats.load(Ordering::Relaxed),
            last_change: self.summary(last_change),
        }
    }

    /// Nodes that the change concerns and that are connected to no replica, as far as the others'
    /// last beats tell.
    pub fn offline(&self, here: &Summary) -> u32 {
        let concerned = self.own().live.read().concerned(here.revision).len();
        let others = self.roster().others();
        let theirs = others.iter().map(|other| &other.presence.last_change);
        let same = theirs.filter(|theirs| theirs.revision == here.revision);
        let connected: u64 = same
            .chain([here])
            .map(|one| u64::from(one.applied) + u64::from(one.pending) + u64::from(one.rejected))
            .sum();
        u32::try_from((concerned as u64).saturating_sub(connected)).unwrap_or(u32::MAX)
    }

    /// How far the last change has come here. It is worked out anew only while that may change: it
    /// looks at every agent that the change concerns.
    fn summary(&self, last_change: Revision) -> Summary {
        let mut last = self.0.summary.lock();
        let online = self.0.sessions.online();
        let (known, then) = *last;
        if known.revision != last_change || known.pending > 0 || then != online {
            *last = (self.0.sessions.summary(last_change), online);
        }
        last.0
    }
}
