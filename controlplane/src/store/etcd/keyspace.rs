//! Our keys among etcd's: ours begin with a prefix, so that several can share one.

use etcd_client::KeyValue;
use wattle_model::Revision;

use super::settings::EtcdPrefix;
use crate::store::{Key, Stored};

pub(super) struct Keyspace(String);

/// From the first to before the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: Vec<u8>,
    pub(super) end: Vec<u8>,
}

impl Keyspace {
    pub(super) fn new(prefix: &EtcdPrefix) -> Self {
        Self(prefix.as_str().to_owned())
    }

    /// A key as etcd has it.
    pub(super) fn outer(&self, key: &Key) -> Vec<u8> {
        format!("{}{key}", self.0).into_bytes()
    }

    /// A key of etcd as we have it; `None` where it isn't ours.
    pub(super) fn inner(&self, key: &[u8]) -> Option<Key> {
        let key = std::str::from_utf8(key).ok()?;
        key.strip_prefix(self.0.as_str()).map(Key::new)
    }

    /// A key and its value as we have them.
    pub(super) fn stored(&self, item: KeyValue) -> Option<Stored> {
        let modified = revision(item.mod_revision());
        let (key, value) = item.into_key_value();
        Some(Stored { key: self.inner(&key)?, value: value.into(), modified })
    }

    /// All keys under a prefix, those after `after` alone where it is given.
    pub(super) fn span(&self, prefix: &Key, after: Option<&Key>) -> Span {
        let start = match after {
            Some(after) if after >= prefix => [self.outer(after), vec![0]].concat(),
            _ => self.outer(prefix),
        };
        let mut end = self.outer(prefix);
        // Text: no byte of it is the highest one.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        Span { start, end }
    }
}

/// etcd counts with a sign, and never below zero.
pub(super) fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0))
}

/// The other way.
pub(super) fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_out_and_come_back() {
        let space = Keyspace::new(&"/a/".parse().unwrap());
        let key = Key::new("v1/x");
        assert_eq!(space.outer(&key), b"/a/v1/x");
        assert_eq!(space.inner(b"/a/v1/x"), Some(key.clone()));
        assert_eq!(space.inner(b"/b/v1/x"), None);
        let span = space.span(&Key::new("v1/"), None);
        assert_eq!((span.start, span.end), (b"/a/v1/".to_vec(), b"/a/v10".to_vec()));
        let span = space.span(&Key::new("v1/"), Some(&key));
        assert_eq!(span.start, b"/a/v1/x\0");
        let before = space.span(&Key::new("v1/x"), Some(&Key::new("v1/a")));
        assert_eq!(before.start, b"/a/v1/x");
    }
}
