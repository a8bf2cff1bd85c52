//! The edge: stored records become messages here, and the plain parts of requests become values.

use std::{
    fmt,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use prost_types::Timestamp;
use tonic::Status;
use wattle_model::{
    Labels, Mode, Mtu, NetworkName, NodeId, OperatorId, PeerSpec, PolicyName, Revision, TokenId,
    address_to_bytes,
};
use wattle_proto::{
    admin,
    record::{NetworkBody, NodeBody, PolicyBody, labels_map},
    store as record,
};
use wattle_runtime::clock;

use super::{
    error::{Field as _, Wrong, invalid},
    range::Ranges,
};

/// How old keys may be allowed to become: a key that is changed more often protects nothing more.
const KEY_ROTATION: std::ops::RangeInclusive<u64> = 3600..=10 * 365 * 24 * 3600;

/// A network and the revision at which it became so.
pub(super) fn network(
    name: &NetworkName,
    body: &NetworkBody,
    revision: Revision,
) -> admin::Network {
    admin::Network {
        name: name.to_string(),
        ipv4_range: body.ipv4_range.clone(),
        ipv6_range: body.ipv6_range.clone(),
        mode: mode_message(body.mode).into(),
        created_at: timestamp(body.created_at_millis),
        revision: revision.0,
        key_rotation: key_rotation_message(body.key_rotation_seconds),
        mtu: body.mtu.map_or(0, Mtu::bytes),
        preshared_keys: body.preshared_keys,
        secret: None,
    }
}

/// How old keys may become as messages carry it; unset where there is no limit.
pub(super) fn key_rotation_message(seconds: u64) -> Option<prost_types::Duration> {
    (seconds > 0).then(|| prost_types::Duration {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: 0,
    })
}

/// How old keys may become, in seconds; 0 for no limit, `None` where that is left open.
pub(super) fn key_rotation(asked: Option<prost_types::Duration>) -> Result<Option<u64>, Wrong> {
    match asked {
        None => Ok(None),
        Some(prost_types::Duration { seconds: 0, nanos: 0 }) => Ok(Some(0)),
        Some(prost_types::Duration { seconds, .. }) => u64::try_from(seconds)
            .ok()
            .filter(|seconds| KEY_ROTATION.contains(seconds))
            .map(Some)
            .ok_or_else(|| {
                let got = format!("an hour to ten years, or nothing for no limit; got {seconds} s");
                Wrong::new("key_rotation", got)
            }),
    }
}

/// A network's MTU, in bytes; 0 for the path's, `None` where that is left open.
pub(super) fn mtu(asked: Option<u32>) -> Result<Option<Option<Mtu>>, Wrong> {
    asked.map(Mtu::wished).transpose().map_err(|why| Wrong::new("mtu", why))
}

/// Whether a network with these ranges may have this MTU.
pub(super) fn check_mtu(mtu: Option<Mtu>, ranges: &Ranges) -> Result<(), Wrong> {
    let checked = mtu.filter(|_| ranges.has_ipv6()).map_or(Ok(()), Mtu::check_ipv6);
    checked.map_err(|why| Wrong::new("mtu", why))
}

/// A policy and the revision at which it became so.
pub(super) fn policy(
    network: &NetworkName,
    name: &PolicyName,
    body: &PolicyBody,
    revision: Revision,
) -> admin::Policy {
    admin::Policy {
        network: network.to_string(),
        name: name.to_string(),
        from: body.policy.from.to_string(),
        to: body.policy.to.to_string(),
        created_at: timestamp(body.created_at_millis),
        revision: revision.0,
    }
}

/// A node, without session and revision.
pub(super) fn node(network: &NetworkName, body: &NodeBody, peer: &PeerSpec) -> admin::Node {
    let address = |ip: Option<IpAddr>| ip.map_or_else(Bytes::new, |ip| address_to_bytes(ip).into());
    admin::Node {
        id: Bytes::copy_from_slice(peer.node.as_bytes()),
        network: network.to_string(),
        name: peer.name.to_string(),
        ipv4: address(peer.ipv4.map(IpAddr::V4)),
        ipv6: address(peer.ipv6.map(IpAddr::V6)),
        public_key: Bytes::copy_from_slice(peer.public_key.as_bytes()),
        labels: labels_map(&body.labels),
        endpoints: peer.endpoints.iter().map(|endpoint| endpoint.to_bytes().into()).collect(),
        created_at: timestamp(body.created_at_millis),
        revision: 0,
        session: None,
        key_since: None,
        key_rotation: 0,
        secret_generation: peer.secret_generation.0,
    }
}

/// All that is left to say of a node that is gone.
pub(super) fn gone_node(network: &NetworkName, node: NodeId) -> admin::Node {
    admin::Node {
        id: Bytes::copy_from_slice(node.as_bytes()),
        network: network.to_string(),
        ..Default::default()
    }
}

/// A join token; its secret isn't in the store.
pub(super) fn join_token(id: TokenId, token: &record::JoinToken) -> admin::JoinToken {
    admin::JoinToken {
        id: Bytes::copy_from_slice(id.as_bytes()),
        network: token.network.clone(),
        labels: token.labels.clone(),
        node_name: token.node_name.clone(),
        uses: token.uses,
        max_uses: token.max_uses,
        created_at: timestamp(token.created_at_millis),
        expires_at: timestamp(token.expires_at_millis),
        revoked: token.revoked,
        created_by: token.created_by.clone(),
    }
}

/// An operator.
pub(super) fn operator(id: OperatorId, operator: &record::Operator) -> admin::Operator {
    let role = match operator.role() {
        record::Role::Unspecified => admin::Role::Unspecified,
        record::Role::Viewer => admin::Role::Viewer,
        record::Role::Operator => admin::Role::Operator,
        record::Role::Admin => admin::Role::Admin,
    };
    admin::Operator {
        id: Bytes::copy_from_slice(id.as_bytes()),
        name: operator.name.clone(),
        role: role.into(),
        created_at: timestamp(operator.created_at_millis),
        expires_at: timestamp(operator.expires_at_millis),
        revoked: operator.revoked,
    }
}

/// What a request asks for as a role.
pub(super) fn role(number: i32) -> Result<record::Role, Status> {
    match admin::Role::try_from(number) {
        Ok(admin::Role::Viewer) => Ok(record::Role::Viewer),
        Ok(admin::Role::Operator) => Ok(record::Role::Operator),
        Ok(admin::Role::Admin) => Ok(record::Role::Admin),
        Ok(admin::Role::Unspecified) | Err(_) => {
            Err(invalid("role", "choose viewer, operator or admin"))
        }
    }
}

/// What a request asks for as a mode; `None` where it leaves it open.
pub(super) fn mode(number: i32) -> Result<Option<Mode>, Status> {
    let mode = admin::Mode::try_from(number).map(mode_of);
    mode.map_err(|_| invalid("mode", unknown_mode(number)))
}

/// Why a number is no mode.
pub(super) fn unknown_mode(number: i32) -> String {
    format!("{number} isn't known: choose mesh or closed")
}

/// A mode; `None` where it is left open.
pub(super) const fn mode_of(mode: admin::Mode) -> Option<Mode> {
    match mode {
        admin::Mode::Unspecified => None,
        admin::Mode::Mesh => Some(Mode::Mesh),
        admin::Mode::Closed => Some(Mode::Closed),
    }
}

/// A name or an id in text.
pub(super) fn parse<T: std::str::FromStr<Err: fmt::Display>>(
    field: &str,
    text: &str,
) -> Result<T, Status> {
    text.parse().in_field(field)
}

/// Labels, checked.
pub(super) fn labels<'a>(
    field: &str,
    pairs: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Result<Labels, Status> {
    Labels::from_pairs(pairs).in_field(field)
}

/// How long something is asked to last: more than nothing, at most `most`.
pub(super) fn duration(
    field: &str,
    asked: Option<prost_types::Duration>,
    unset: Duration,
    most: Duration,
) -> Result<Duration, Status> {
    let Some(asked) = asked else { return Ok(unset) };
    Duration::try_from(asked)
        .ok()
        .filter(|asked| (Duration::from_millis(1)..=most).contains(asked))
        .ok_or_else(|| {
            let most = humantime::format_duration(most);
            invalid(field, format!("more than nothing and at most {most}, got {}s", asked.seconds))
        })
}

/// Milliseconds since 1970 as messages carry them.
pub(super) fn timestamp(millis: u64) -> Option<Timestamp> {
    Some(clock::from_unix_millis(millis).into())
}

/// A moment that is `after` from now, in milliseconds since 1970.
pub(super) fn millis_after(now: SystemTime, after: Duration) -> u64 {
    clock::unix_millis(now + after)
}

/// A mode as messages carry it.
pub(super) const fn mode_message(mode: Mode) -> admin::Mode {
    match mode {
        Mode::Mesh => admin::Mode::Mesh,
        Mode::Closed => admin::Mode::Closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_its_limits() {
        let year = Duration::from_secs(365 * 24 * 3600);
        let read = |seconds| {
            let asked = prost_types::Duration { seconds, nanos: 0 };
            duration("time_to_live", Some(asked), Duration::from_secs(7), year)
        };
        assert_eq!(duration("x", None, Duration::from_secs(7), year).unwrap().as_secs(), 7);
        assert_eq!(read(3600).unwrap().as_secs(), 3600);
        for seconds in [0, -1, 365 * 24 * 3600 + 1, i64::MAX] {
            let status = read(seconds).unwrap_err();
            assert!(status.message().starts_with("time_to_live: more than nothing"), "{status}");
        }
    }

    #[test]
    fn roles_and_modes_are_named_where_they_are_wrong() {
        assert_eq!(mode(0).unwrap(), None);
        assert!(mode(9).unwrap_err().message().starts_with("mode: 9 isn't known"));
        assert_eq!(role(3).unwrap(), record::Role::Admin);
        assert!(role(0).unwrap_err().message().starts_with("role: "));
    }
}
