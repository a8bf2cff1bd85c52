//! YAML as trees that remember where everything stands. Nothing is lost on the way: keys keep their
//! order and their repetitions, and scalars the text that was written.

use std::{borrow::Cow, collections::HashMap};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::{place::Mark, split};

/// How deep lists and mappings may stand in each other.
const MAX_DEPTH: usize = 64;
/// How many nodes the anchors of one document may name and its aliases stand for: both are copied.
const MAX_COPIES: usize = 100_000;

/// A value and where it begins.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) at: Mark,
    pub(crate) value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A scalar's text.
#[derive(Debug, Clone)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Without quotes, so that it may be something else than text.
    pub(crate) plain: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) at: Mark,
    pub(crate) text: String,
}

/// Why a document can't be read.
#[derive(Debug)]
pub(crate) struct Malformed {
    pub(crate) at: Mark,
    pub(crate) why: String,
}

/// All documents of a text. One that can't be read doesn't keep the others from being read.
pub(crate) fn documents(text: &str) -> Vec<Result<Node, Malformed>> {
    let mut documents = Vec::new();
    for chunk in split::documents(text) {
        let mut builder = Builder { before: chunk.line - 1, ..Builder::default() };
        let result = builder.read(chunk.text);
        documents.extend(builder.documents.into_iter().map(Ok));
        documents.extend(result.err().map(Err));
    }
    documents
}

/// Makes trees of events.
#[derive(Default)]
struct Builder {
    /// Lines before this part of the text.
    before: usize,
    documents: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    copies: usize,
}

/// A list or a mapping that hasn't ended.
struct Open {
    at: Mark,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    /// With the key whose value comes next.
    Map(Vec<(Key, Node)>, Option<Key>),
}

impl Builder {
    fn read(&mut self, text: &str) -> Result<(), Malformed> {
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| self.malformed(&error))?;
            self.take(event, self.mark(span))?;
        }
        Ok(())
    }

    fn mark(&self, span: Span) -> Mark {
        Mark { line: self.before + span.start.line(), column: span.start.col() + 1 }
    }

    fn malformed(&self, error: &ScanError) -> Malformed {
        let at = self.mark(Span::empty(*error.marker()));
        Malformed { at, why: format!("not YAML: {}", error.info()) }
    }

    fn take(&mut self, event: Event<'_>, at: Mark) -> Result<(), Malformed> {
        match event {
            Event::DocumentStart(_) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !is_text(tag.as_ref());
                let scalar = Scalar { text: text.into_owned(), plain };
                return self.add(Node { at, value: Value::Scalar(scalar) }, anchor);
            }
            Event::SequenceStart(anchor, _) => {
                return self.enter(at, anchor, Content::List(Vec::new()));
            }
            Event::MappingStart(anchor, _) => {
                return self.enter(at, anchor, Content::Map(Vec::new(), None));
            }
            Event::SequenceEnd | Event::MappingEnd => return self.leave(),
            Event::Alias(anchor) => return self.copy(at, anchor),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn enter(&mut self, at: Mark, anchor: usize, content: Content) -> Result<(), Malformed> {
        if self.open.len() == MAX_DEPTH {
            return Err(Malformed { at, why: format!("more than {MAX_DEPTH} levels deep") });
        }
        self.open.push(Open { at, anchor, content });
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Malformed> {
        let Some(Open { at, anchor, content }) = self.open.pop() else { return Ok(()) };
        let value = match content {
            Content::List(items) => Value::List(items),
            Content::Map(entries, _) => Value::Map(entries),
        };
        self.add(Node { at, value }, anchor)
    }

    fn copy(&mut self, at: Mark, anchor: usize) -> Result<(), Malformed> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(Malformed { at, why: "an alias inside of what it stands for".into() });
        };
        let copied = size(node);
        // One anchor names no more than may be copied, so this clone is bounded, too. What it holds
        // keeps its own places: mistakes are told where they were written.
        let value = node.value.clone();
        self.count(at, copied)?;
        self.add(Node { at, value }, 0)
    }

    fn count(&mut self, at: Mark, copied: usize) -> Result<(), Malformed> {
        self.copies += copied;
        if self.copies > MAX_COPIES {
            let why = format!(
                "the document's anchors and aliases stand for more than {MAX_COPIES} values"
            );
            return Err(Malformed { at, why });
        }
        Ok(())
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), Malformed> {
        if anchor != 0 {
            self.count(node.at, size(&node))?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.documents.push(node);
            return Ok(());
        };
        match &mut open.content {
            Content::List(items) => items.push(node),
            Content::Map(entries, key) => match (key.take(), node.value) {
                (Some(key), value) => entries.push((key, Node { at: node.at, value })),
                (None, Value::Scalar(Scalar { text, .. })) => {
                    *key = Some(Key { at: node.at, text });
                }
                (None, Value::List(_) | Value::Map(_)) => {
                    let why = "expected text as a key, got a list or a mapping".into();
                    return Err(Malformed { at: node.at, why });
                }
            },
        }
        Ok(())
    }
}

/// Whether a tag makes text of whatever it stands before.
fn is_text(tag: Option<&Cow<'_, Tag>>) -> bool {
    tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str")
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::Scalar(_) => 0,
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|(_, node)| 1 + size(node)).sum(),
    }
}
