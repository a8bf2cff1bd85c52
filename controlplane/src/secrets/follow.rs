//! What this replica tells its agents of their networks' secrets: as the store had them a moment ago. It
//! also ends what nobody goes by any more.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use wattle_model::NetworkName;

use super::{NetworkSecrets, ReadSecrets, Standing, read};
use crate::{
    store::{Outcome, Store, StoreError, feed::Live, keys},
    stream::Sessions,
};

/// How often they are looked at.
const EVERY: Duration = Duration::from_secs(2);
/// Records read at once.
const PAGE: usize = 500;

type All = BTreeMap<NetworkName, NetworkSecrets>;

/// The secrets of all networks that have any. Clones are one.
#[derive(Clone)]
pub struct Secrets {
    store: Arc<dyn Store>,
    /// `None` before they were read: nobody is told then that there are none.
    present: Arc<Mutex<Option<All>>>,
}

impl Secrets {
    /// Nothing is read yet.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, present: Arc::default() }
    }

    /// Reads them, where they never were.
    pub async fn load(&self) -> Result<(), StoreError> {
        let loaded = self.present.lock().is_some();
        if !loaded {
            self.look().await?;
        }
        Ok(())
    }

    /// A network's, some seconds old at most while the store can be seen.
    pub fn now(&self, network: &NetworkName) -> NetworkSecrets {
        let present = self.present.lock();
        present.as_ref().and_then(|all| all.get(network)).cloned().unwrap_or_default()
    }

    /// Keeps them up to date, and has agents told of each change, until told to end.
    pub async fn keep(self, sessions: Sessions, live: Live, end: CancellationToken) {
        let mut timer = interval(EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while end.run_until_cancelled(timer.tick()).await.is_some() {
            match self.look().await {
                Ok(true) => sessions.reconfigure(),
                Ok(false) => {}
                // The feed says that the store can't be seen.
                Err(error) => tracing::debug!(%error, "networks' secrets can't be read"),
            }
            if let Err(error) = self.settle(&live).await {
                tracing::debug!(%error, "a network's former secret isn't ended yet");
            }
        }
    }

    /// Reads them; says whether they are other ones.
    async fn look(&self) -> Result<bool, StoreError> {
        let (mut all, mut after) = (All::new(), None);
        loop {
            let page = self.store.list(&keys::secrets(), after.as_ref(), PAGE).await?;
            for stored in &page.items {
                let name = stored.key.as_str().rsplit('/').next().unwrap_or_default();
                let Ok(name) = name.parse::<NetworkName>() else { continue };
                let secrets = read(stored).unwrap_or_else(|error| {
                    tracing::warn!(%error, "a network's secret stays what it was");
                    self.now(&name)
                });
                all.insert(name, secrets);
            }
            after = page.items.last().map(|stored| stored.key.clone());
            if !page.more || after.is_none() {
                break;
            }
        }
        let mut present = self.present.lock();
        let changed = present.as_ref() != Some(&all);
        // The first look changes nothing that anybody was told.
        let news = changed && present.is_some();
        *present = Some(all);
        Ok(news)
    }

    /// Ends former secrets that no live node goes by any more.
    async fn settle(&self, live: &Live) -> Result<(), StoreError> {
        let former: Vec<_> = {
            let present = self.present.lock();
            let all = present.iter().flatten().filter(|(_, secrets)| secrets.has_former());
            all.filter_map(|(name, secrets)| Some((name.clone(), secrets.present()?))).collect()
        };
        for (network, present) in former {
            if live.is_stale() || Standing::of(&live.read(), &network, present).behind > 0 {
                continue;
            }
            let read = ReadSecrets::of(&*self.store, &network).await?;
            if read.secrets.present() != Some(present) {
                continue;
            }
            let settled = self.store.commit(read.write(&read.secrets.settled())).await?;
            if let Outcome::Committed(_) = settled {
                tracing::info!(%network, generation = %present, "all go by the network's new secret");
            }
        }
        Ok(())
    }
}
