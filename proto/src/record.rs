//! History records as the store keeps them: the one place where their bytes become
//! [`History`] values and back.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use wattle_model::{History, Labels, Mode, Mtu, NodeName, Policy, Revision, Traits, Version};

use crate::{Invalid, InvalidField, store};

/// A body that a history record can hold.
pub trait Body: Sized {
    /// Its bytes; never empty, because an empty body is a deleted thing.
    fn encode(&self) -> Bytes;
    /// Reads what `encode` wrote.
    fn decode(bytes: &[u8]) -> Result<Self, InvalidField>;
}

/// Reads a history record. `modified` is its key's mod_revision.
pub fn decode_history<T: Body>(
    bytes: &[u8],
    modified: Revision,
) -> Result<History<T>, InvalidField> {
    let record = store::History::decode(bytes).field("history")?;
    let body = |bytes: &Bytes| (!bytes.is_empty()).then(|| T::decode(bytes)).transpose();
    let past = record
        .past
        .iter()
        .map(|past| Ok(Version { from: Revision(past.from), body: body(&past.body)? }))
        .collect::<Result<Vec<_>, InvalidField>>()?;
    let from = match record.present_from {
        0 => modified,
        explicit => Revision(explicit),
    };
    let present = Version { from, body: body(&record.present)? };
    History::from_parts(Revision(record.floor), past, present)
        .ok_or("revisions out of order")
        .field("history.past")
}

/// The bytes of a record whose first body begins at the revision of the write itself.
pub fn encode_first<T: Body>(body: &T) -> Bytes {
    store::History { present: body.encode(), ..Default::default() }.encode_to_vec().into()
}

/// The bytes of a record after a change that begins at the revision of the write itself. The write
/// must compare the mod_revision at which `history` was read.
pub fn encode_changed<T: Body>(history: History<T>, body: Option<T>) -> Bytes {
    // The new body's revision isn't known before the commit; any that is higher orders the bodies.
    let unknown = Revision(u64::MAX);
    let mut record = encode_parts(&history.changed(unknown, body));
    record.present_from = 0;
    record.encode_to_vec().into()
}

/// The bytes of a record that says what it said before, for rewrites such as a trim.
pub fn encode_unchanged<T: Body>(history: &History<T>) -> Bytes {
    encode_parts(history).encode_to_vec().into()
}

fn encode_parts<T: Body>(history: &History<T>) -> store::History {
    let body = |version: &Version<T>| version.body.as_ref().map_or_else(Bytes::new, T::encode);
    store::History {
        present: body(history.present()),
        present_from: history.present().from.0,
        past: history
            .past()
            .iter()
            .map(|version| store::PastBody { from: version.from.0, body: body(version) })
            .collect(),
        floor: history.floor().0,
    }
}

/// A network, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkBody {
    /// When it was made, in milliseconds since 1970.
    pub created_at_millis: u64,
    /// Text such as `10.90.0.0/16`; empty for none.
    pub ipv4_range: String,
    /// Text such as `fd00::/64`; empty for none.
    pub ipv6_range: String,
    /// Who sees whom.
    pub mode: Mode,
    /// How old its nodes' WireGuard keys may become, in seconds; 0 for no limit.
    pub key_rotation_seconds: u64,
    /// Of its nodes' links; what the path carries where there is none.
    pub mtu: Option<Mtu>,
    /// Whether its nodes have preshared keys.
    pub preshared_keys: bool,
}

impl Body for NetworkBody {
    fn encode(&self) -> Bytes {
        let mode = match self.mode {
            Mode::Mesh => store::Mode::Mesh,
            Mode::Closed => store::Mode::Closed,
        };
        store::NetworkBody {
            created_at_millis: self.created_at_millis,
            ipv4_range: self.ipv4_range.clone(),
            ipv6_range: self.ipv6_range.clone(),
            mode: mode.into(),
            key_rotation_seconds: self.key_rotation_seconds,
            mtu: self.mtu.map_or(0, Mtu::bytes),
            preshared_keys: self.preshared_keys,
        }
        .encode_to_vec()
        .into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, InvalidField> {
        let body = store::NetworkBody::decode(bytes).field("network")?;
        let mode = match body.mode() {
            store::Mode::Mesh => Mode::Mesh,
            store::Mode::Closed => Mode::Closed,
            store::Mode::Unspecified => return Err("unknown").field("network.mode"),
        };
        Ok(Self {
            created_at_millis: body.created_at_millis,
            ipv4_range: body.ipv4_range,
            ipv6_range: body.ipv6_range,
            mode,
            key_rotation_seconds: body.key_rotation_seconds,
            mtu: Mtu::wished(body.mtu).field("network.mtu")?,
            preshared_keys: body.preshared_keys,
        })
    }
}

/// A node's life and labels, as the store keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeBody {
    /// When it was enrolled, in milliseconds since 1970.
    pub created_at_millis: u64,
    /// Its labels.
    pub labels: Labels,
    /// Its name, where its token fixed it.
    pub fixed_name: Option<NodeName>,
}

impl NodeBody {
    /// What selectors go by.
    pub fn into_traits(self) -> Traits {
        Traits { labels: self.labels, fixed_name: self.fixed_name }
    }
}

impl Body for NodeBody {
    fn encode(&self) -> Bytes {
        store::NodeBody {
            created_at_millis: self.created_at_millis,
            labels: labels_map(&self.labels),
            fixed_name: self.fixed_name.as_ref().map(NodeName::to_string).unwrap_or_default(),
        }
        .encode_to_vec()
        .into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, InvalidField> {
        let body = store::NodeBody::decode(bytes).field("node")?;
        let fixed_name = Some(body.fixed_name).filter(|name| !name.is_empty());
        Ok(Self {
            created_at_millis: body.created_at_millis,
            labels: Labels::from_stored(&body.labels).field("node.labels")?,
            fixed_name: fixed_name.map(|name| name.parse()).transpose().field("node.fixed_name")?,
        })
    }
}

/// A policy, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyBody {
    /// When it was made, in milliseconds since 1970.
    pub created_at_millis: u64,
    /// Its two sides.
    pub policy: Policy,
}

impl Body for PolicyBody {
    fn encode(&self) -> Bytes {
        store::PolicyBody {
            created_at_millis: self.created_at_millis,
            from: self.policy.from.to_string(),
            to: self.policy.to.to_string(),
        }
        .encode_to_vec()
        .into()
    }

    fn decode(bytes: &[u8]) -> Result<Self, InvalidField> {
        let body = store::PolicyBody::decode(bytes).field("policy")?;
        let (from, to) =
            (body.from.parse().field("policy.from")?, body.to.parse().field("policy.to")?);
        Ok(Self { created_at_millis: body.created_at_millis, policy: Policy { from, to } })
    }
}

/// Labels as messages carry them.
pub fn labels_map(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(label: &str) -> NodeBody {
        let labels = Labels::from_texts([label]).unwrap();
        NodeBody { created_at_millis: 1, labels, fixed_name: Some("db-1".parse().unwrap()) }
    }

    #[test]
    fn a_record_written_over_and_over_remembers() {
        let first: History<NodeBody> =
            decode_history(&encode_first(&node("a=1")), Revision(5)).unwrap();
        assert_eq!(first, History::first(Revision(5), node("a=1")));
        let bytes = encode_changed(first.clone(), Some(node("a=2")));
        let second: History<NodeBody> = decode_history(&bytes, Revision(9)).unwrap();
        assert_eq!(second, first.changed(Revision(9), Some(node("a=2"))));
        let gone = decode_history::<NodeBody>(&encode_changed(second.clone(), None), Revision(11));
        assert_eq!(gone.unwrap(), second.changed(Revision(11), None));
    }

    #[test]
    fn a_trim_moves_no_body() {
        let history =
            History::first(Revision(5), node("a=1")).changed(Revision(9), Some(node("a=2")));
        let mut trimmed = history;
        assert!(trimmed.trim(Revision(9)));
        let read: History<NodeBody> =
            decode_history(&encode_unchanged(&trimmed), Revision(30)).unwrap();
        assert_eq!(read, trimmed);
        assert_eq!(read.present().from, Revision(9));
    }
}
