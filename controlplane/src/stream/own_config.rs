//! What belongs to one agent alone: its addresses, its network's ranges, where the control plane
//! is and whom to trust. Sent in a batch whenever it differs from what the agent has.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::time::Instant;
use wattle_model::{Endpoint, History, NetworkName, NodeId, NodeName, address_to_bytes};
use wattle_proto::{
    record::{NetworkBody, decode_history},
    sync,
};

use super::encode;
use crate::{
    nodes::{NodeRecord, observed_endpoint},
    replica::Replica,
    store::{StoreError, keys},
};

/// How long a network's ranges are taken from memory: all its agents ask for them.
const RANGES_FRESH: Duration = Duration::from_secs(5);

/// A network's address ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ranges {
    ipv4: Option<IpNet>,
    ipv6: Option<IpNet>,
}

/// What the store knows of a node and its config shows.
#[derive(Debug, Clone)]
pub(super) struct Own {
    network: NetworkName,
    name: NodeName,
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
    /// The port it listened on when it was last connected.
    listen_port: Option<u16>,
}

/// Reads what configs are made of.
pub(super) struct Configs {
    replica: Arc<Replica>,
    /// Bounded by the networks that exist.
    ranges: Mutex<HashMap<NetworkName, (Instant, Ranges)>>,
}

impl Configs {
    pub(super) fn new(replica: Arc<Replica>) -> Self {
        Self { replica, ranges: Mutex::default() }
    }

    /// A node's own; `None` if it doesn't live.
    pub(super) async fn own(
        &self,
        network: &NetworkName,
        node: NodeId,
    ) -> Result<Option<Own>, StoreError> {
        let Some(stored) = self.replica.store.get(&keys::identity(node)).await? else {
            return Ok(None);
        };
        let record = NodeRecord::decode(&stored.value)
            .map_err(|error| StoreError::Corrupt(format!("identity of {node}: {error}")))?;
        let own = Own {
            network: network.clone(),
            name: record.name,
            ipv4: record.ipv4,
            ipv6: record.ipv6,
            listen_port: record.observed_endpoint.map(|seen| seen.socket_addr().port()),
        };
        Ok(record.deleted_at.is_none().then_some(own))
    }

    /// A network's ranges, a few seconds old at most.
    pub(super) async fn ranges(&self, network: &NetworkName) -> Result<Ranges, StoreError> {
        if let Some((read, ranges)) = self.ranges.lock().get(network)
            && read.elapsed() < RANGES_FRESH
        {
            return Ok(*ranges);
        }
        let ranges = self.read_ranges(network).await?;
        self.ranges.lock().insert(network.clone(), (Instant::now(), ranges));
        Ok(ranges)
    }

    async fn read_ranges(&self, network: &NetworkName) -> Result<Ranges, StoreError> {
        let Some(stored) = self.replica.store.get(&keys::network(network)).await? else {
            return Ok(Ranges::default());
        };
        let history: History<NetworkBody> = decode_history(&stored.value, stored.modified)
            .map_err(|error| StoreError::Corrupt(format!("network {network}: {error}")))?;
        let Some(body) = &history.present().body else { return Ok(Ranges::default()) };
        Ok(Ranges { ipv4: body.ipv4_range.parse().ok(), ipv6: body.ipv6_range.parse().ok() })
    }

    fn message(&self, config: &OwnConfig) -> sync::Config {
        let own = &config.own;
        sync::Config {
            network: own.network.to_string(),
            node_name: own.name.to_string(),
            ipv4: own.ipv4.map_or_else(Bytes::new, |ip| address_to_bytes(ip.into()).into()),
            ipv6: own.ipv6.map_or_else(Bytes::new, |ip| address_to_bytes(ip.into()).into()),
            ipv4_range: config.ranges.ipv4.map(prefix),
            ipv6_range: config.ranges.ipv6.map(prefix),
            control_planes: self.replica.roster.addresses().to_vec(),
            ca_certificates: self.replica.authority.now().told.clone(),
            observed_endpoint: config
                .observed
                .map_or_else(Bytes::new, |endpoint| endpoint.to_bytes().into()),
        }
    }
}

fn prefix(range: IpNet) -> sync::Prefix {
    let address = address_to_bytes(range.network()).into();
    sync::Prefix { address, length: range.prefix_len().into() }
}

/// One agent's config, and which one it has.
#[derive(Debug)]
pub(super) struct OwnConfig {
    own: Own,
    ranges: Ranges,
    observed: Option<Endpoint>,
    /// Of the config that the agent has, or will have at the next commit.
    sent: Option<[u8; 32]>,
    changed: bool,
}

impl OwnConfig {
    /// The config of an agent whose stream comes from `connection` and which has `sent`.
    pub(super) fn new(
        own: Own,
        ranges: Ranges,
        connection: IpAddr,
        sent: Option<[u8; 32]>,
    ) -> Self {
        // The port isn't known before the agent reports it; the one it had last time spares most
        // agents two configs at every reconnect.
        let observed = own.listen_port.and_then(|port| observed_endpoint(connection, port));
        Self { own, ranges, observed, sent, changed: true }
    }

    /// The agent was seen at another endpoint.
    pub(super) fn observe(&mut self, observed: Option<Endpoint>) {
        self.changed |= self.observed != observed;
        self.observed = observed;
    }

    /// The network's ranges were read again.
    pub(super) fn range(&mut self, ranges: Ranges) {
        self.changed |= self.ranges != ranges;
        self.ranges = ranges;
    }

    /// What every config says may have changed.
    pub(super) const fn look_again(&mut self) {
        self.changed = true;
    }

    /// The config to send, if the agent has another one.
    pub(super) fn unsent(&mut self, configs: &Configs) -> Option<Bytes> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let message = configs.message(self);
        let hash = encode::config_hash(&message);
        (self.sent.replace(hash) != Some(hash)).then(|| encode::config(message))
    }
}
