//! Selectors: which nodes a policy speaks of, by their labels or by id.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::{
    InvalidLabel, Labels, NodeId,
    labels::{check_key, check_value},
};

/// Text that can't be read as a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    /// A key or value in it is malformed.
    #[error(transparent)]
    Label(#[from] InvalidLabel),
    /// A part of it has none of the known forms.
    #[error(
        "{0:?}: expected key=value, key!=value, key in (a,b), key notin (a,b), key, !key or id=<node id>"
    )]
    Form(String),
}

/// One condition on a node. All conditions of a selector must hold.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Requirement {
    /// The label has one of these values.
    In(Box<str>, BTreeSet<Box<str>>),
    /// The label is absent or has none of these values.
    NotIn(Box<str>, BTreeSet<Box<str>>),
    /// The label is present.
    Exists(Box<str>),
    /// The label is absent.
    Absent(Box<str>),
    /// The node with this id.
    Node(NodeId),
}

/// A conjunction of requirements; with none it matches every node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Selector(Vec<Requirement>);

impl Selector {
    /// A selector of these requirements; their order and repetition don't matter.
    pub fn new(requirements: impl IntoIterator<Item = Requirement>) -> Self {
        let unique: BTreeSet<_> = requirements.into_iter().collect();
        Self(unique.into_iter().collect())
    }

    /// Whether a node with this id and these labels is meant.
    pub fn matches(&self, node: NodeId, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => labels.get(key).is_some_and(|v| values.contains(v)),
            Requirement::NotIn(key, values) => !labels.get(key).is_some_and(|v| values.contains(v)),
            Requirement::Exists(key) => labels.get(key).is_some(),
            Requirement::Absent(key) => labels.get(key).is_none(),
            Requirement::Node(id) => *id == node,
        })
    }

    /// Its requirements.
    pub fn requirements(&self) -> &[Requirement] {
        &self.0
    }
}

impl FromStr for Selector {
    type Err = InvalidSelector;

    /// Kubernetes' label selector syntax, plus `id=<node id>`.
    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        let parts = split_outside_parentheses(text);
        let parts = parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty());
        Ok(Self::new(parts.map(parse_requirement).collect::<Result<Vec<_>, _>>()?))
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn parse_requirement(part: &str) -> Result<Requirement, InvalidSelector> {
    let form = || InvalidSelector::Form(part.chars().take(80).collect());
    let key = |key: &str| -> Result<Box<str>, InvalidSelector> {
        check_key(key.trim())?;
        Ok(key.trim().into())
    };
    let one = |k: &str, value: &str| -> Result<BTreeSet<Box<str>>, InvalidSelector> {
        check_value(k.trim(), value.trim())?;
        Ok([value.trim().into()].into())
    };
    if let Some((k, value)) = part.split_once("!=") {
        return Ok(Requirement::NotIn(key(k)?, one(k, value)?));
    }
    if let Some((k, value)) = part.split_once('=') {
        let value = value.trim_start_matches('=');
        if k.trim() == "id" {
            return value.trim().parse().map(Requirement::Node).map_err(|_| form());
        }
        return Ok(Requirement::In(key(k)?, one(k, value)?));
    }
    if let Some((head, values)) = part.split_once('(') {
        let values = values.strip_suffix(')').ok_or_else(form)?;
        let (k, operator) = head.trim().rsplit_once(' ').ok_or_else(form)?;
        let mut set = BTreeSet::new();
        for value in values.split(',') {
            set.extend(one(k, value)?);
        }
        return match operator {
            "in" => Ok(Requirement::In(key(k)?, set)),
            "notin" => Ok(Requirement::NotIn(key(k)?, set)),
            _ => Err(form()),
        };
    }
    match part.strip_prefix('!') {
        Some(k) => Ok(Requirement::Absent(key(k)?)),
        None if part.contains(' ') => Err(form()),
        None => Ok(Requirement::Exists(key(part)?)),
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            let list = |values: &BTreeSet<Box<str>>| {
                values.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(",")
            };
            match requirement {
                Requirement::In(key, values) if values.len() == 1 => {
                    write!(f, "{key}={}", list(values))?
                }
                Requirement::NotIn(key, values) if values.len() == 1 => {
                    write!(f, "{key}!={}", list(values))?
                }
                Requirement::In(key, values) => write!(f, "{key} in ({})", list(values))?,
                Requirement::NotIn(key, values) => write!(f, "{key} notin ({})", list(values))?,
                Requirement::Exists(key) => f.write_str(key)?,
                Requirement::Absent(key) => write!(f, "!{key}")?,
                Requirement::Node(id) => write!(f, "id={id}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[&str]) -> bool {
        let selector: Selector = selector.parse().unwrap();
        selector.matches(NodeId::new([1; 16]), &Labels::from_texts(labels).unwrap())
    }

    #[test]
    fn each_form_matches() {
        assert!(matches("", &[]));
        assert!(matches("a=1", &["a=1"]) && !matches("a=1", &["a=2"]));
        assert!(matches("a!=1", &[]) && !matches("a!=1", &["a=1"]));
        assert!(matches("a in (1,2), b", &["a=2", "b=x"]) && !matches("a in (1,2),b", &["a=2"]));
        assert!(matches("a notin (1,2)", &["a=3"]) && matches("!a", &["b=1"]));
        let id = "id=01010101010101010101010101010101";
        assert!(matches(id, &[]) && !matches("id=02010101010101010101010101010101", &[]));
    }

    #[test]
    fn text_round_trips() {
        for text in ["a=1", "a!=1", "a in (1,2)", "a notin (1,2)", "a", "!a", "a=1,b"] {
            let selector: Selector = text.parse().unwrap();
            assert_eq!(selector.to_string().parse(), Ok(selector), "{text}");
        }
    }

    #[test]
    fn mistakes_are_errors() {
        for text in ["a in 1", "a in (1", "a near (1)", "a b", "id=5", "=1", "a=b c"] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
    }
}
