//! Whether all endpoints are members of one etcd. Of two, each would show another control plane, and a
//! replica would go over from one to the other whenever it leaves a member.

use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions, Error, GetOptions};
use futures::future::join_all;
use tokio::time::timeout;

use super::{
    Etcd, connect,
    keyspace::Keyspace,
    settings::{EtcdAddress, EtcdConfig},
};
use crate::store::keys;

/// Who hasn't said by then isn't waited for: a replica starts without some of the members.
const SAID_WITHIN: Duration = Duration::from_secs(2);

/// Endpoints that lead to two etcds.
#[derive(Debug, thiserror::Error)]
#[error(
    "etcd-endpoints: {} is a member of cluster {:x}, {} of cluster {:x}: name the members of one",
    .one.0, .one.1, .other.0, .other.1
)]
pub struct TwoClusters {
    one: (EtcdAddress, u64),
    other: (EtcdAddress, u64),
}

impl Etcd {
    /// Asks all members that answer which etcd they are of.
    pub async fn same_for_all(config: &EtcdConfig) -> Result<(), TwoClusters> {
        let asked = config.endpoints.iter().map(|address| ask(address, config));
        let mut said = join_all(asked).await.into_iter().flatten();
        let Some(one) = said.next() else { return Ok(()) };
        match said.find(|other| other.1 != one.1) {
            Some(other) => Err(TwoClusters { one, other }),
            None => Ok(()),
        }
    }
}

async fn ask(address: &EtcdAddress, config: &EtcdConfig) -> Option<(EtcdAddress, u64)> {
    match timeout(SAID_WITHIN, cluster_of(address, config)).await {
        Ok(Ok(cluster)) => cluster.map(|cluster| (address.clone(), cluster)),
        // Whoever needs this member says what is wrong with it.
        Ok(Err(why)) => {
            tracing::debug!(%address, why, "a member of etcd doesn't say who it is");
            None
        }
        Err(_) => None,
    }
}

/// The cluster's id, which every answer carries. What is asked is something that our user may read.
async fn cluster_of(address: &EtcdAddress, config: &EtcdConfig) -> Result<Option<u64>, String> {
    let channel = connect::channel(address, config.tls.as_ref())?;
    let mut options = ConnectOptions::new();
    if let Some(user) = &config.user {
        options = options.with_user(user.name.clone(), user.password()?.as_str());
    }
    let key = Keyspace::new(&config.prefix).outer(&keys::epoch());
    let alone = GetOptions::new().with_serializable().with_count_only();
    let said = |error: Error| error.to_string();
    let client =
        Client::from_channel(Channel::Tonic(channel), Some(options)).await.map_err(said)?;
    let answer = client.kv_client().get(key, Some(alone)).await.map_err(said)?;
    Ok(answer.header().map(etcd_client::ResponseHeader::cluster_id))
}
