//! What each kind of document says, as the request to apply it.

use std::{collections::BTreeMap, str::FromStr, time::Duration};

use wattle_model::{
    Labels, Mtu, NetworkName, NodeName, PolicyName, Selector, parse_ipv4_range, parse_ipv6_range,
};
use wattle_proto::admin::{
    LabelsSpec, Mode, NetworkSpec, NodeRef, PolicySpec, Resource, resource::Kind,
};

use super::{
    document::AUTO,
    fields::{Fields, Reading, check_key, describe, nearest, shown, text},
    place::Mark,
    yaml::Value,
};
use crate::text::{duration_message, parse_duration};

pub(super) const KINDS: [&str; 3] = ["Network", "Policy", "Node"];
/// The network of whatever doesn't say one, as elsewhere in this command.
const DEFAULT_NETWORK: &str = "default";

const NETWORK: &[&str] = &[
    "kind",
    "name",
    "mode",
    "ipv4",
    "ipv6",
    "mtu",
    "key_rotation",
    "preshared_keys",
    "revision",
    "expect",
];
const POLICY: &[&str] = &["kind", "network", "name", "from", "to", "delete", "revision", "expect"];
const NODE: &[&str] = &["kind", "network", "name", "labels", "revision"];

const MTU: &str = "expected auto or a number of bytes, such as 1380";

const DIRECTION: &str = "a policy has no direction: sight is symmetric, because WireGuard needs \
                         each of two peers in the other's peer set; directions come with ports";

/// The resource that a document of this kind means, where all of it makes sense.
pub(super) fn read(kind: &str, fields: &Fields<'_>, reading: &mut Reading<'_>) -> Option<Resource> {
    let revision = fields.number("revision", reading);
    let delete = kind == "Policy" && fields.flag("delete", reading).unwrap_or_default();
    let kind = match kind {
        "Network" => network(fields, reading).map(Kind::Network),
        "Policy" => policy(delete, fields, reading).map(Kind::Policy),
        _ => node(fields, reading).map(Kind::Labels),
    };
    Some(Resource { kind: Some(kind?), revision, delete })
}

fn network(fields: &Fields<'_>, reading: &mut Reading<'_>) -> Option<NetworkSpec> {
    let delete = ("delete", "only a Policy can be deleted here: use `wattle network delete`");
    only("Network", NETWORK, &[delete], fields, reading);
    let name = name::<NetworkName>(fields, "the network's name", reading);
    let mode = fields.text("mode", reading).and_then(|(at, text)| mode(at, text, reading));
    let ipv4_range = range("ipv4", fields, reading, |text| parse_ipv4_range(text).map(drop));
    let ipv6_range = range("ipv6", fields, reading, |text| parse_ipv6_range(text).map(drop));
    let key_rotation = age("key_rotation", fields, reading);
    let mtu = mtu(fields, reading);
    let preshared_keys = fields.flag("preshared_keys", reading);
    let mode = mode.unwrap_or_default().into();
    Some(NetworkSpec {
        name: name?,
        ipv4_range,
        ipv6_range,
        mode,
        mtu,
        key_rotation,
        preshared_keys,
    })
}

/// Complains of keys that this kind doesn't have, of some of them in words of their own.
fn only(
    noun: &str,
    known: &[&str],
    refused: &[(&str, &str)],
    fields: &Fields<'_>,
    reading: &mut Reading<'_>,
) {
    for (key, _) in fields.iter() {
        if let Some((_, why)) = refused.iter().find(|(refused, _)| *refused == key.text) {
            reading.wrong(key.at, format_args!("{}: {why}", key.text));
        } else {
            check_key(noun, key, known, reading);
        }
    }
}

fn mode(at: Mark, text: &str, reading: &mut Reading<'_>) -> Option<Mode> {
    match text {
        "mesh" => Some(Mode::Mesh),
        "closed" => Some(Mode::Closed),
        other => {
            let meant = nearest(other, &["mesh", "closed"]);
            let meant = meant.map(|near| format!(": did you mean {near}?")).unwrap_or_default();
            let other = shown(other);
            reading.wrong(at, format_args!("mode: expected mesh or closed, got {other:?}{meant}"));
            None
        }
    }
}

/// A number of bytes, or a word for the path's.
fn mtu(fields: &Fields<'_>, reading: &mut Reading<'_>) -> Option<u32> {
    let node = fields.get("mtu")?;
    let Value::Scalar(scalar) = &node.value else {
        reading.wrong(node.at, format_args!("mtu: {MTU}, got {}", describe(node)));
        return None;
    };
    match scalar.text.parse::<u32>() {
        _ if scalar.text == AUTO => Some(0),
        Ok(bytes) if scalar.plain && bytes != 0 => {
            reading.check(node.at, "mtu", Mtu::wished(bytes)).map(|_| bytes)
        }
        _ => {
            reading.wrong(node.at, format_args!("mtu: {MTU}, got {}", describe(node)));
            None
        }
    }
}

/// A range; an empty text is none.
fn range<E: std::fmt::Display>(
    key: &str,
    fields: &Fields<'_>,
    reading: &mut Reading<'_>,
    check: impl Fn(&str) -> Result<(), E>,
) -> Option<String> {
    let (at, text) = fields.text(key, reading)?;
    if !text.is_empty() {
        reading.check(at, key, check(text))?;
    }
    Some(text.to_owned())
}

/// How old something may become; an empty text is as old as it likes.
fn age(key: &str, fields: &Fields<'_>, reading: &mut Reading<'_>) -> Option<prost_types::Duration> {
    let (at, text) = fields.text(key, reading)?;
    let age = if text.is_empty() { Ok(Duration::ZERO) } else { parse_duration(text) };
    reading.check(at, key, age).map(duration_message)
}

fn policy(delete: bool, fields: &Fields<'_>, reading: &mut Reading<'_>) -> Option<PolicySpec> {
    only("Policy", POLICY, &[("direction", DIRECTION)], fields, reading);
    let network = network_name(fields, reading);
    let name = name::<PolicyName>(fields, "the policy's name", reading);
    let from = selector("from", delete, fields, reading);
    let to = selector("to", delete, fields, reading);
    Some(PolicySpec { network: network?, name: name?, from: from?, to: to? })
}

/// A side of a policy; whoever deletes it needn't say which.
fn selector(
    key: &str,
    delete: bool,
    fields: &Fields<'_>,
    reading: &mut Reading<'_>,
) -> Option<String> {
    let node = match fields.get(key) {
        None if delete => return Some(String::new()),
        None => {
            let what = "a label selector such as role=web, or \"\" for every node";
            reading.wrong(fields.at, format_args!("{key} is missing: expected {what}"));
            return None;
        }
        Some(node) => node,
    };
    if let Value::Map(entries) = &node.value {
        let pairs = entries.iter().filter_map(|(key, node)| match &node.value {
            Value::Scalar(value) => Some(format!("{}={}", shown(&key.text), shown(&value.text))),
            Value::List(_) | Value::Map(_) => None,
        });
        let pairs: Vec<_> = pairs.take(3).collect();
        let example = if pairs.is_empty() { "role=web".to_owned() } else { pairs.join(",") };
        reading
            .wrong(node.at, format_args!("{key}: expected text such as {example}, got a mapping"));
        return None;
    }
    let text = text(key, node, reading)?;
    reading.check(node.at, key, Selector::to_keep(text)).map(|_| text.to_owned())
}

fn node(fields: &Fields<'_>, reading: &mut Reading<'_>) -> Option<LabelsSpec> {
    let refused = [
        ("delete", "only a Policy can be deleted here: use `wattle node delete`"),
        ("expect", "a Node has no expectations: write them in a Network or a Policy"),
    ];
    only("Node", NODE, &refused, fields, reading);
    let network = network_name(fields, reading);
    let node = name::<NodeName>(fields, "the name or the id of a node", reading);
    let labels = labels(fields, reading);
    let node = NodeRef { network: network?, node: node? };
    Some(LabelsSpec { node: Some(node), labels: labels? })
}

fn labels(fields: &Fields<'_>, reading: &mut Reading<'_>) -> Option<BTreeMap<String, String>> {
    const WHAT: &str = "all of the node's labels, such as {role: db}, or {} for none";
    let Some(node) = fields.get("labels") else {
        reading.wrong(fields.at, format_args!("labels is missing: expected {WHAT}"));
        return None;
    };
    let Value::Map(entries) = &node.value else {
        let got = describe(node);
        reading.wrong(node.at, format_args!("labels: expected {WHAT}, got {got}"));
        return None;
    };
    let entries = Fields::new(node.at, entries, reading);
    let mut labels = BTreeMap::new();
    for (key, node) in entries.iter() {
        let Some(value) = text(&format!("labels.{}", shown(&key.text)), node, reading) else {
            continue;
        };
        match Labels::from_stored([(&key.text, value)]) {
            Ok(_) => drop(labels.insert(key.text.clone(), value.to_owned())),
            Err(why) => reading.wrong(key.at, format_args!("labels: {why}")),
        }
    }
    // One that is wrong in itself has been said.
    reading.check(node.at, "labels", Labels::from_stored(&labels))?;
    Some(labels)
}

fn network_name(fields: &Fields<'_>, reading: &mut Reading<'_>) -> Option<String> {
    if fields.get("network").is_none() {
        return Some(DEFAULT_NETWORK.into());
    }
    let (at, text) = fields.text("network", reading)?;
    reading.check(at, "network", NetworkName::from_str(text)).map(|_| text.to_owned())
}

fn name<T: FromStr<Err: std::fmt::Display>>(
    fields: &Fields<'_>,
    what: &str,
    reading: &mut Reading<'_>,
) -> Option<String> {
    let (at, text) = fields.required("name", what, reading)?;
    reading.check(at, "name", T::from_str(text)).map(|_| text.to_owned())
}
