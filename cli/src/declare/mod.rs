//! What files declare: networks, policies, labels of nodes, and what somebody expects of them. All
//! that can be told from the files alone is checked here, and everything wrong is told at once, each
//! with its file, line and column.

mod document;
mod expect;
mod fields;
mod files;
mod kinds;
mod place;
mod split;
#[cfg(test)]
mod tests;
mod violations;
mod yaml;

use std::collections::{BTreeMap, HashMap, hash_map::Entry};

use wattle_proto::admin::{Expectation, Resource, resource::Kind};

pub(crate) use document::{Document, yaml as to_yaml};
use fields::{Fields, Reading, describe, nearest, shown, text};
pub(crate) use files::{Sources, read};
use kinds::KINDS;
pub(crate) use place::Mistakes;
use place::{File, Place};
pub(crate) use violations::{explain, explain_part};
use yaml::{Key, Node, Value};

const ONE_OF: &str = "Network, Policy or Node";

/// Everything that the files declare, in their order.
#[derive(Debug, Default)]
pub(crate) struct Declared {
    items: Vec<Item>,
    expectations: Vec<(Expectation, Place)>,
    /// Where each was declared first, by what it is and its name.
    seen: HashMap<(&'static str, String), Place>,
}

/// One document, and where its keys' values stand.
#[derive(Debug)]
struct Item {
    resource: Resource,
    place: Place,
    keys: BTreeMap<String, Place>,
}

impl Declared {
    pub(crate) fn resources(&self) -> Vec<Resource> {
        self.items.iter().map(|item| item.resource.clone()).collect()
    }

    pub(crate) fn expectations(&self) -> Vec<Expectation> {
        self.expectations.iter().map(|(expectation, _)| expectation.clone()).collect()
    }

    /// Reads one file's text.
    fn add(&mut self, file: &File, text: &str, mistakes: &mut Mistakes) {
        let mut reading = Reading { file, mistakes };
        for document in yaml::documents(text) {
            match document {
                Ok(node) => self.node(&node, &mut reading),
                Err(malformed) => reading.wrong(malformed.at, malformed.why),
            }
        }
    }

    /// A document, or a list of them.
    fn node(&mut self, node: &Node, reading: &mut Reading<'_>) {
        match &node.value {
            Value::List(nodes) => nodes.iter().for_each(|node| self.node(node, reading)),
            Value::Map(entries) => {
                let fields = Fields::new(node.at, entries, reading);
                self.document(&fields, reading);
            }
            // A document without anything in it: a separator too many.
            Value::Scalar(scalar) if scalar.plain && scalar.text.is_empty() => {}
            Value::Scalar(_) => {
                let got = describe(node);
                reading.wrong(node.at, format_args!("expected a mapping with a kind, got {got}"));
            }
        }
    }

    fn document(&mut self, fields: &Fields<'_>, reading: &mut Reading<'_>) {
        let Some((at, kind)) = fields.required("kind", ONE_OF, reading) else { return };
        if !KINDS.contains(&kind) {
            let meant = match nearest(kind, &KINDS) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("expected {ONE_OF}"),
            };
            return reading.wrong(at, format_args!("unknown kind {:?}: {meant}", shown(kind)));
        }
        let resource = kinds::read(kind, fields, reading);
        let network = resource.as_ref().map(network_of).unwrap_or_default();
        self.expect(network, fields, reading);
        if let Some(resource) = resource {
            self.push(resource, fields, reading);
        }
    }

    /// Reads what a document expects. A kind that takes no expectations has complained already.
    fn expect(&mut self, network: &str, fields: &Fields<'_>, reading: &mut Reading<'_>) {
        let Some(node) = fields.get("expect") else { return };
        let Value::List(items) = &node.value else {
            let got = describe(node);
            let what = "a list of texts such as \"web-1 sees db-1\"";
            return reading.wrong(node.at, format_args!("expect: expected {what}, got {got}"));
        };
        for item in items {
            let Some(text) = text("expect", item, reading) else { continue };
            let expectation = expect::read(network, text);
            if let Some(expectation) = reading.check(item.at, "expect", expectation) {
                self.expectations.push((expectation, reading.file.place(item.at)));
            }
        }
    }

    fn push(&mut self, resource: Resource, fields: &Fields<'_>, reading: &mut Reading<'_>) {
        let (noun, name) = named(&resource);
        let place = reading.file.place(fields.at);
        match self.seen.entry((noun, name)) {
            Entry::Occupied(first) => {
                let ((noun, name), first) = (first.key(), first.get());
                return reading.wrong(
                    fields.at,
                    format_args!("{noun} {name} is already declared at {first}"),
                );
            }
            Entry::Vacant(entry) => drop(entry.insert(place.clone())),
        }
        let place_of = |(key, node): (&Key, &Node)| (key.text.clone(), reading.file.place(node.at));
        let keys = fields.iter().map(place_of).collect();
        self.items.push(Item { resource, place, keys });
    }
}

/// What a resource is and what it is called, as people say it: "policy", "default/web-to-db".
pub(crate) fn named(resource: &Resource) -> (&'static str, String) {
    match &resource.kind {
        Some(Kind::Network(network)) => ("network", network.name.clone()),
        Some(Kind::Policy(policy)) => ("policy", format!("{}/{}", policy.network, policy.name)),
        Some(Kind::Labels(labels)) => {
            let node = labels.node.clone().unwrap_or_default();
            ("node", format!("{}/{}", node.network, node.node))
        }
        None => ("resource", String::new()),
    }
}

/// The network that a document's expectations are about.
fn network_of(resource: &Resource) -> &str {
    match &resource.kind {
        Some(Kind::Network(network)) => &network.name,
        Some(Kind::Policy(policy)) => &policy.network,
        Some(Kind::Labels(_)) | None => "",
    }
}
