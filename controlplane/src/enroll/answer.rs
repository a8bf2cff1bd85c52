//! What a machine is told once it may join: the config that its first stream would send.

use std::net::IpAddr;

use bytes::Bytes;
use ipnet::IpNet;
use wattle_model::{Mtu, address_to_bytes};
use wattle_proto::sync::{Config, Prefix};

use crate::{
    nodes::{Enrolled, Ranges, Validated},
    replica::Replica,
};

/// A new node's config.
pub(super) fn config(replica: &Replica, enrolled: &Enrolled) -> Config {
    let record = &enrolled.record;
    let ip = |ip: Option<IpAddr>| ip.map_or_else(Bytes::new, |ip| address_to_bytes(ip).into());
    Config {
        network: record.network.to_string(),
        node_name: record.name.to_string(),
        ipv4: ip(record.ipv4.map(IpAddr::V4)),
        ipv6: ip(record.ipv6.map(IpAddr::V6)),
        observed_endpoint: record
            .observed_endpoint
            .map_or_else(Bytes::new, |endpoint| endpoint.to_bytes().into()),
        mtu: enrolled.mtu.map_or(0, Mtu::bytes),
        ..shared(replica, &enrolled.ranges)
    }
}

/// What may be known of a network before joining it: enough to see whether it fits the host.
pub(super) fn validated(replica: &Replica, validated: &Validated) -> Config {
    let network = validated.network.to_string();
    Config { network, ..shared(replica, &validated.ranges) }
}

fn shared(replica: &Replica, ranges: &Ranges) -> Config {
    Config {
        ipv4_range: ranges.ipv4.map(|range| prefix(range.into())),
        ipv6_range: ranges.ipv6.map(|range| prefix(range.into())),
        control_planes: replica.roster.addresses().to_vec(),
        ca_certificates: replica.authority.now().told.clone(),
        ..Config::default()
    }
}

fn prefix(range: IpNet) -> Prefix {
    let address = address_to_bytes(range.network()).into();
    Prefix { address, length: range.prefix_len().into() }
}
