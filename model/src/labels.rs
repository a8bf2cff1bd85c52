//! Labels: what tokens and operators say of a node. Selectors match them; nothing that a host says
//! of itself ever becomes one.

use std::{collections::BTreeMap, fmt};

/// Text that can't be a label's key or value, or too many of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLabel {
    /// The key is malformed.
    #[error(
        "label key {0:?}: 1 to 63 of a-z, A-Z, 0-9, '-', '_', '.', '/', beginning with a letter or digit"
    )]
    Key(String),
    /// The value is malformed.
    #[error("label {key}: value {value:?}: at most 63 of a-z, A-Z, 0-9, '-', '_', '.'")]
    Value {
        /// The label's key.
        key: String,
        /// What was given as its value.
        value: String,
    },
    /// Selectors use the key for something else.
    #[error(
        "label {0}: reserved, because selectors mean a node's id by `id` and the name that its token fixed by `name`: choose another key"
    )]
    Reserved(String),
    /// No `=` between key and value.
    #[error("label {0:?}: expected key=value")]
    NoEquals(String),
    /// The same key twice.
    #[error("label {0:?} is given twice")]
    Twice(String),
    /// More than [`Labels::MAX`].
    #[error("at most {max} labels, got {0}", max = Labels::MAX)]
    TooMany(usize),
}

/// Keys that mean something else in selectors.
const RESERVED: [&str; 2] = ["id", "name"];

/// A checked set of labels, ordered by key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Labels(BTreeMap<Box<str>, Box<str>>);

impl Labels {
    /// How many labels one node may have.
    pub const MAX: usize = 32;

    /// Checks pairs that somebody wants set.
    pub fn from_pairs<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self, InvalidLabel>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let labels = Self::from_stored(pairs)?;
        match labels.0.keys().find(|key| RESERVED.contains(&key.as_ref())) {
            Some(key) => Err(InvalidLabel::Reserved(key.to_string())),
            None => Ok(labels),
        }
    }

    /// Checks pairs that were set before, perhaps by a version that reserved no key.
    pub fn from_stored<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self, InvalidLabel>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let mut labels = BTreeMap::new();
        for (key, value) in pairs {
            let (key, value) = (key.as_ref(), value.as_ref());
            check_key(key)?;
            check_value(key, value)?;
            if labels.insert(key.into(), value.into()).is_some() {
                return Err(InvalidLabel::Twice(key.into()));
            }
        }
        if labels.len() > Self::MAX {
            return Err(InvalidLabel::TooMany(labels.len()));
        }
        Ok(Self(labels))
    }

    /// Checks `key=value` texts, as a command line gives them.
    pub fn from_texts<T: AsRef<str>>(
        texts: impl IntoIterator<Item = T>,
    ) -> Result<Self, InvalidLabel> {
        let pairs = texts
            .into_iter()
            .map(|text| {
                let text = text.as_ref();
                let (key, value) =
                    text.split_once('=').ok_or_else(|| InvalidLabel::NoEquals(shown(text)))?;
                Ok((key.to_owned(), value.to_owned()))
            })
            .collect::<Result<Vec<_>, InvalidLabel>>()?;
        Self::from_pairs(pairs)
    }

    /// The value of `key`, if there is one.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(AsRef::as_ref)
    }

    /// All pairs, ordered by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), value.as_ref()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (key, value)) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Labels({self})")
    }
}

/// An error repeats at most this much of what somebody sent.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

pub(crate) fn check_key(key: &str) -> Result<(), InvalidLabel> {
    let inner = |c: u8| c.is_ascii_alphanumeric() || b"-_./".contains(&c);
    let ok = (1..=63).contains(&key.len())
        && key.bytes().all(inner)
        && key.as_bytes()[0].is_ascii_alphanumeric();
    if ok { Ok(()) } else { Err(InvalidLabel::Key(shown(key))) }
}

pub(crate) fn check_value(key: &str, value: &str) -> Result<(), InvalidLabel> {
    let ok = value.len() <= 63
        && value.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
    if ok { Ok(()) } else { Err(InvalidLabel::Value { key: key.into(), value: shown(value) }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_labels() {
        let labels = Labels::from_texts(["site=fra", "role=db"]).unwrap();
        assert_eq!(labels.to_string(), "role=db,site=fra");
        assert_eq!(labels.get("site"), Some("fra"));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(Labels::from_texts(["x"]), Err(InvalidLabel::NoEquals("x".into())));
        assert_eq!(Labels::from_texts(["x=1", "x=2"]), Err(InvalidLabel::Twice("x".into())));
        assert_eq!(Labels::from_texts(["=1"]), Err(InvalidLabel::Key(String::new())));
        assert!(matches!(Labels::from_texts(["a=b c"]), Err(InvalidLabel::Value { .. })));
        for key in ["id", "name"] {
            let reserved = Err(InvalidLabel::Reserved(key.into()));
            assert_eq!(Labels::from_pairs([(key, "x")]), reserved);
            assert_eq!(Labels::from_stored([(key, "x")]).unwrap().get(key), Some("x"));
        }
        let many = (0..33).map(|i| format!("k{i}=v"));
        assert_eq!(Labels::from_texts(many), Err(InvalidLabel::TooMany(33)));
    }
}
