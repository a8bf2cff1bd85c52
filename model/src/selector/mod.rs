//! Selectors: which nodes a policy speaks of, by their labels, by id, or by a name that a token fixed.

mod text;

use std::collections::BTreeSet;

use crate::{NodeId, NodeName, Traits};

pub use text::InvalidSelector;

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
    /// The node has one of these ids.
    Node(BTreeSet<NodeId>),
    /// The node has none of these ids.
    NotNode(BTreeSet<NodeId>),
    /// The node's token fixed its name, and it is one of these.
    Named(BTreeSet<NodeName>),
    /// The node has none of these names fixed by its token.
    NotNamed(BTreeSet<NodeName>),
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

    /// Whether a node with this id and these traits is meant.
    pub fn matches(&self, node: NodeId, traits: &Traits) -> bool {
        let one_of = |key: &str, values: &BTreeSet<Box<str>>| {
            traits.labels.get(key).is_some_and(|value| values.contains(value))
        };
        let named = |names: &BTreeSet<NodeName>| {
            traits.fixed_name.as_ref().is_some_and(|name| names.contains(name))
        };
        self.0.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => one_of(key, values),
            Requirement::NotIn(key, values) => !one_of(key, values),
            Requirement::Exists(key) => traits.labels.get(key).is_some(),
            Requirement::Absent(key) => traits.labels.get(key).is_none(),
            Requirement::Node(ids) => ids.contains(&node),
            Requirement::NotNode(ids) => !ids.contains(&node),
            Requirement::Named(names) => named(names),
            Requirement::NotNamed(names) => !named(names),
        })
    }

    /// Its requirements.
    pub fn requirements(&self) -> &[Requirement] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Labels;

    fn matches(selector: &str, labels: &[&str]) -> bool {
        let selector: Selector = selector.parse().unwrap();
        let labels = Labels::from_texts(labels).unwrap();
        selector.matches(NodeId::new([1; 16]), &labels.into())
    }

    #[test]
    fn each_form_matches() {
        assert!(matches("", &[]));
        assert!(matches("a=1", &["a=1"]) && !matches("a=1", &["a=2"]));
        assert!(matches("a!=1", &[]) && !matches("a!=1", &["a=1"]));
        assert!(matches("a in (1,2), b", &["a=2", "b=x"]) && !matches("a in (1,2),b", &["a=2"]));
        assert!(matches("a notin (1,2)", &["a=3"]) && matches("!a", &["b=1"]));
        let (own, other) = ("01".repeat(16), "02".repeat(16));
        assert!(matches(&format!("id={own}"), &[]) && !matches(&format!("id={other}"), &[]));
        assert!(matches(&format!("id in ({other},{own})"), &[]));
        assert!(matches(&format!("id!={other}"), &[]) && !matches(&format!("id!={own}"), &[]));
        assert!(!matches(&format!("id notin ({other},{own})"), &[]));
    }

    #[test]
    fn only_a_name_that_a_token_fixed_matches() {
        let named = |selector: &str, name: Option<&str>| {
            let selector: Selector = selector.parse().unwrap();
            let fixed_name = name.map(|name| name.parse().unwrap());
            selector.matches(NodeId::new([1; 16]), &Traits { fixed_name, ..Traits::default() })
        };
        for (selector, of_db_1, of_db_2, of_none) in [
            ("name=db-1", true, false, false),
            ("name in (db-1,web)", true, false, false),
            ("name!=db-1", false, true, true),
            ("name notin (db-1,web)", false, true, true),
        ] {
            let said = [Some("db-1"), Some("db-2"), None].map(|name| named(selector, name));
            assert_eq!(said, [of_db_1, of_db_2, of_none], "{selector}");
        }
        // A label of that name, from before it was reserved, is no name.
        let old = Labels::from_stored([("name", "db-1")]).unwrap();
        let selector: Selector = "name=db-1".parse().unwrap();
        assert!(!selector.matches(NodeId::new([1; 16]), &old.into()));
    }
}
