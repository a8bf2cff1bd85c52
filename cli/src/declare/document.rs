//! Resources as documents: YAML that people read and edit, or JSON. Read again, they are the same.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer, ser::SerializeMap as _};
use wattle_proto::admin::{Mode, Resource, resource::Kind};

use crate::text;

/// An MTU that is the path's.
pub(super) const AUTO: &str = "auto";

/// A resource's keys, in the order that people expect.
#[derive(Debug, PartialEq)]
pub(crate) struct Document(Vec<(&'static str, Field)>);

#[derive(Debug, PartialEq, Serialize)]
#[serde(untagged)]
enum Field {
    Text(String),
    Number(u64),
    Flag(bool),
    Map(BTreeMap<String, String>),
}

impl From<&Resource> for Document {
    fn from(resource: &Resource) -> Self {
        let text = |text: &str| Field::Text(text.to_owned());
        let mut fields = match &resource.kind {
            Some(Kind::Network(network)) => {
                let mut fields = vec![("kind", text("Network")), ("name", text(&network.name))];
                fields.extend(mode(network.mode()).map(|mode| ("mode", text(mode))));
                fields.extend(network.ipv4_range.as_ref().map(|range| ("ipv4", text(range))));
                fields.extend(network.ipv6_range.as_ref().map(|range| ("ipv6", text(range))));
                let age = text::duration(network.key_rotation.as_ref()).map(text::exact);
                fields.extend(age.map(|age| ("key_rotation", Field::Text(age))));
                fields.extend(network.mtu.map(|bytes| ("mtu", mtu(bytes))));
                fields.extend(network.preshared_keys.map(|on| ("preshared_keys", Field::Flag(on))));
                fields
            }
            Some(Kind::Policy(policy)) => {
                let mut fields = vec![
                    ("kind", text("Policy")),
                    ("network", text(&policy.network)),
                    ("name", text(&policy.name)),
                ];
                match resource.delete {
                    true => fields.push(("delete", Field::Flag(true))),
                    false => {
                        fields.extend([("from", text(&policy.from)), ("to", text(&policy.to))])
                    }
                }
                fields
            }
            Some(Kind::Labels(labels)) => {
                let node = labels.node.clone().unwrap_or_default();
                vec![
                    ("kind", text("Node")),
                    ("network", Field::Text(node.network)),
                    ("name", Field::Text(node.node)),
                    ("labels", Field::Map(labels.labels.clone())),
                ]
            }
            None => Vec::new(),
        };
        fields.extend(resource.revision.map(|revision| ("revision", Field::Number(revision))));
        Self(fields)
    }
}

/// 0 is the path's.
fn mtu(bytes: u32) -> Field {
    match bytes {
        0 => Field::Text(AUTO.into()),
        bytes => Field::Number(bytes.into()),
    }
}

const fn mode(mode: Mode) -> Option<&'static str> {
    match mode {
        Mode::Unspecified => None,
        Mode::Mesh => Some("mesh"),
        Mode::Closed => Some("closed"),
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(key, field)| map.serialize_entry(key, field))?;
        map.end()
    }
}

/// Documents as YAML, with a separator between them.
pub(crate) fn yaml(documents: &[Document]) -> String {
    let documents: Vec<_> = documents.iter().map(Document::yaml).collect();
    documents.join("---\n")
}

impl Document {
    pub(crate) fn yaml(&self) -> String {
        let line = |(key, field): &(&str, Field)| match field {
            Field::Text(text) => format!("{key}: {}\n", scalar(text)),
            Field::Number(number) => format!("{key}: {number}\n"),
            Field::Flag(flag) => format!("{key}: {flag}\n"),
            Field::Map(map) if map.is_empty() => format!("{key}: {{}}\n"),
            Field::Map(map) => {
                let entry = |(key, value): (&String, &String)| {
                    format!("  {}: {}\n", scalar(key), scalar(value))
                };
                let entries: String = map.iter().map(entry).collect();
                format!("{key}:\n{entries}")
            }
        };
        self.0.iter().map(line).collect()
    }
}

/// A text without quotes where no version of YAML would take it for anything else.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=!,() ".contains(c);
    let starts = text.starts_with(|first: char| first.is_ascii_alphabetic());
    let is_word = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
        .contains(&text.to_ascii_lowercase().as_str());
    // A slash makes a range of what could be a number.
    let is_range = text.contains('/')
        && text.starts_with(|first: char| first.is_ascii_hexdigit())
        && text.chars().all(|c| c.is_ascii_hexdigit() || ".:/".contains(c));
    match is_range || (starts && !is_word && !text.ends_with(' ') && text.chars().all(plain)) {
        true => text.to_owned(),
        // YAML's double quotes take whatever JSON's do.
        false => serde_json::Value::from(text).to_string(),
    }
}
