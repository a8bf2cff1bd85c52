//! The beat: says that this replica runs, sees who else does, and keeps the addresses that agents
//! are told. One task, the only writer of the roster.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::{
    select,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use wattle_runtime::clock;

use super::{BEAT, MAX_REPLICAS, Presence, Replicas, addresses};
use crate::store::{StoreError, Transaction, keys};

/// How long a beat may take: a store that doesn't answer mustn't stop the next attempt.
const PATIENCE: Duration = Duration::from_secs(8);

impl Replicas {
    /// Beats until it is told to end, and then takes the record away: nobody need wait for the
    /// lease to run out.
    pub(super) async fn keep(self, end: CancellationToken) {
        let mut timer = interval(BEAT);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said_draining = false;
        loop {
            select! {
                () = end.cancelled() => break,
                _ = timer.tick() => {}
                // At once: the others must not send anybody here.
                () = self.0.draining.cancelled(), if !said_draining => said_draining = true,
            }
            if let Err(error) = self.beat().await {
                tracing::debug!(%error, "the other replicas weren't told of this one");
            }
        }
        let gone = Transaction::default().delete(keys::replica(self.0.replica.id));
        let leave = timeout(Duration::from_secs(1), self.0.replica.store.commit(gone)).await;
        if !matches!(leave, Ok(Ok(_))) {
            tracing::debug!("the record of this replica goes with its lease");
        }
    }

    /// One beat. The first one comes before anybody is served, so that the first agent is already
    /// told every address.
    pub(super) async fn beat(&self) -> Result<(), StoreError> {
        let beat = async {
            self.announce().await?;
            self.look().await?;
            self.join_addresses().await
        };
        let silent = |_| StoreError::Unavailable(format!("no answer within {PATIENCE:?}"));
        timeout(PATIENCE, beat).await.map_err(silent)?
    }

    async fn announce(&self) -> Result<(), StoreError> {
        self.0.beats.fetch_add(1, Ordering::Relaxed);
        let (key, value) = (keys::replica(self.0.replica.id), self.presence().encode());
        self.0.replica.store.announce(key, value).await.map(drop)
    }

    async fn look(&self) -> Result<(), StoreError> {
        // One more than others are listed: this one is among them.
        let limit = MAX_REPLICAS + 1;
        let page = self.0.replica.store.list(&keys::replicas(), None, limit).await?;
        if page.more {
            tracing::warn!("more than {MAX_REPLICAS} replicas run: the others are left out");
        }
        let mut all = Vec::with_capacity(page.items.len());
        for stored in &page.items {
            match Presence::read(stored) {
                Ok(presence) => all.push(presence),
                Err(error) => tracing::warn!(%error, "a replica's record can't be read"),
            }
        }
        self.0.caller.keep_only(|id| all.iter().any(|presence| presence.id == id));
        self.roster().listed(self.0.replica.id, all);
        Ok(())
    }

    async fn join_addresses(&self) -> Result<(), StoreError> {
        let mut present = self.0.replica.advertised.clone();
        let others = self.roster().others();
        present.extend(others.iter().flat_map(|other| other.presence.addresses.iter().cloned()));
        let store = self.0.replica.store.as_ref();
        let listed = addresses::keep(store, &present, clock::now()).await?;
        if self.roster().set_addresses(&listed) {
            tracing::info!(addresses = ?listed, "agents are told other addresses");
            self.0.sessions.reconfigure();
        }
        Ok(())
    }
}
