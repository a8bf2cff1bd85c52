//! What belongs to one agent alone: its addresses, its network's ranges, MTU and secrets, where the control
//! plane is and whom to trust. Sent in a batch whenever it differs from what the agent has.

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
use wattle_model::{
    Endpoint, History, Mtu, NetworkName, NodeId, NodeName, Revision, address_to_bytes,
};
use wattle_proto::{
    record::{NetworkBody, decode_history},
    sync,
};

use super::encode;
use crate::{
    nodes::{NodeRecord, observed_endpoint},
    replica::Replica,
    secrets::Secrets,
    store::{StoreError, keys},
};

/// How long a network's record is taken from memory: all its agents ask for it.
const NETWORK_FRESH: Duration = Duration::from_secs(5);

/// What a network's record says to its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Network {
    /// Since when.
    since: Revision,
    ipv4: Option<IpNet>,
    ipv6: Option<IpNet>,
    mtu: Option<Mtu>,
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
    secrets: Secrets,
    /// Bounded by the networks that exist.
    networks: Mutex<HashMap<NetworkName, (Instant, Network)>>,
}

impl Configs {
    pub(super) fn new(replica: Arc<Replica>, secrets: Secrets) -> Self {
        Self { replica, secrets, networks: Mutex::default() }
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

    /// What a network's record says; from memory only where that is as the view has it, and a few
    /// seconds old at most.
    pub(super) async fn network(
        &self,
        name: &NetworkName,
        viewed: Revision,
    ) -> Result<Network, StoreError> {
        if let Some((read, network)) = self.networks.lock().get(name)
            && read.elapsed() < NETWORK_FRESH
            && network.since >= viewed
        {
            return Ok(*network);
        }
        let network = self.read_network(name).await?;
        self.networks.lock().insert(name.clone(), (Instant::now(), network));
        Ok(network)
    }

    async fn read_network(&self, network: &NetworkName) -> Result<Network, StoreError> {
        let Some(stored) = self.replica.store.get(&keys::network(network)).await? else {
            return Ok(Network::default());
        };
        let history: History<NetworkBody> = decode_history(&stored.value, stored.modified)
            .map_err(|error| StoreError::Corrupt(format!("network {network}: {error}")))?;
        let since = history.present().from;
        let Some(body) = &history.present().body else { return Ok(Network::default()) };
        let (ipv4, ipv6) = (body.ipv4_range.parse().ok(), body.ipv6_range.parse().ok());
        Ok(Network { since, ipv4, ipv6, mtu: body.mtu })
    }

    fn message(&self, config: &OwnConfig) -> sync::Config {
        let own = &config.own;
        sync::Config {
            network: own.network.to_string(),
            node_name: own.name.to_string(),
            ipv4: own.ipv4.map_or_else(Bytes::new, |ip| address_to_bytes(ip.into()).into()),
            ipv6: own.ipv6.map_or_else(Bytes::new, |ip| address_to_bytes(ip.into()).into()),
            ipv4_range: config.network.ipv4.map(prefix),
            ipv6_range: config.network.ipv6.map(prefix),
            control_planes: self.replica.roster.addresses().to_vec(),
            ca_certificates: self.replica.authority.now().told.clone(),
            observed_endpoint: config
                .observed
                .map_or_else(Bytes::new, |endpoint| endpoint.to_bytes().into()),
            mtu: config.network.mtu.map_or(0, Mtu::bytes),
            secrets: self.secrets.now(&own.network).told(),
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
    network: Network,
    observed: Option<Endpoint>,
    /// Of the config that the agent has, or will have at the next commit.
    sent: Option<[u8; 32]>,
    changed: bool,
}

impl OwnConfig {
    /// The config of an agent whose stream comes from `connection` and which has `sent`.
    pub(super) fn new(
        own: Own,
        network: Network,
        connection: IpAddr,
        sent: Option<[u8; 32]>,
    ) -> Self {
        // The port isn't known before the agent reports it; the one it had last time spares most
        // agents two configs at every reconnect.
        let observed = own.listen_port.and_then(|port| observed_endpoint(connection, port));
        Self { own, network, observed, sent, changed: true }
    }

    /// The agent was seen at another endpoint.
    pub(super) fn observe(&mut self, observed: Option<Endpoint>) {
        self.changed |= self.observed != observed;
        self.observed = observed;
    }

    /// The network's record was read again.
    pub(super) fn take_network(&mut self, network: Network) {
        self.changed |= Network { since: network.since, ..self.network } != network;
        self.network = network;
    }

    /// Whether the network's record is another one than that of which this was made.
    pub(super) fn is_older(&self, viewed: Revision) -> bool {
        self.network.since < viewed
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
