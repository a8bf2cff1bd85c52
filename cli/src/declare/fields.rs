//! A mapping of a document, read key by key. Whatever isn't as it should be becomes a mistake, and
//! reading goes on, so that all of them are found.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
};

use super::{
    place::{File, Mark, Mistakes},
    yaml::{Key, Node, Scalar, Value},
};

/// The file that is being read and what is wrong with it.
pub(super) struct Reading<'a> {
    pub(super) file: &'a File,
    pub(super) mistakes: &'a mut Mistakes,
}

impl Reading<'_> {
    pub(super) fn wrong(&mut self, at: Mark, why: impl fmt::Display) {
        self.mistakes.add(self.file.place(at), why);
    }

    /// What a check found, or a mistake that names the key.
    pub(super) fn check<T, E: fmt::Display>(
        &mut self,
        at: Mark,
        key: &str,
        result: Result<T, E>,
    ) -> Option<T> {
        result.map_err(|why| self.wrong(at, format_args!("{key}: {why}"))).ok()
    }
}

/// The first of each key's values.
pub(super) struct Fields<'a> {
    pub(super) at: Mark,
    entries: Vec<(&'a Key, &'a Node)>,
}

impl<'a> Fields<'a> {
    /// Complains of keys that stand there twice.
    pub(super) fn new(at: Mark, entries: &'a [(Key, Node)], reading: &mut Reading<'_>) -> Self {
        let mut fields = Self { at, entries: Vec::new() };
        let mut lines = HashMap::new();
        for (key, node) in entries {
            match lines.entry(&key.text) {
                Entry::Vacant(line) => {
                    line.insert(key.at.line);
                    fields.entries.push((key, node));
                }
                Entry::Occupied(line) => {
                    let (key, text) = (key.at, shown(&key.text));
                    let line = line.get();
                    reading.wrong(key, format_args!("{text:?} is already at line {line}"));
                }
            }
        }
        fields
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a Key, &'a Node)> {
        self.entries.iter().copied()
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Node> {
        self.entries.iter().find(|(other, _)| other.text == key).map(|(_, node)| *node)
    }

    /// A key's text, where it is there and is text.
    pub(super) fn text(&self, key: &str, reading: &mut Reading<'_>) -> Option<(Mark, &'a str)> {
        let node = self.get(key)?;
        text(key, node, reading).map(|text| (node.at, text))
    }

    /// A key's text; `what` it would be is said where it is missing.
    pub(super) fn required(
        &self,
        key: &str,
        what: &str,
        reading: &mut Reading<'_>,
    ) -> Option<(Mark, &'a str)> {
        if self.get(key).is_none() {
            reading.wrong(self.at, format_args!("{key} is missing: expected {what}"));
        }
        self.text(key, reading)
    }

    pub(super) fn flag(&self, key: &str, reading: &mut Reading<'_>) -> Option<bool> {
        let node = self.get(key)?;
        let flag = match (&node.value, kind(node)) {
            (Value::Scalar(scalar), Kind::Bool) => Some(scalar.text.eq_ignore_ascii_case("true")),
            _ => None,
        };
        if flag.is_none() {
            let got = describe(node);
            reading.wrong(node.at, format_args!("{key}: expected true or false, got {got}"));
        }
        flag
    }

    pub(super) fn number(&self, key: &str, reading: &mut Reading<'_>) -> Option<u64> {
        let node = self.get(key)?;
        let number = match &node.value {
            Value::Scalar(Scalar { text, plain: true }) => text.parse().ok(),
            _ => None,
        };
        if number.is_none() {
            let got = describe(node);
            reading.wrong(node.at, format_args!("{key}: expected a whole number, got {got}"));
        }
        number
    }
}

/// Complains of a key that `noun` doesn't have.
pub(super) fn check_key(noun: &str, key: &Key, known: &[&str], reading: &mut Reading<'_>) {
    if known.contains(&key.text.as_str()) {
        return;
    }
    let why = match nearest(&key.text, known) {
        _ if key.text == "<<" => "merge keys aren't read here: write the keys out".to_owned(),
        Some(near) => format!("unknown key {:?}: did you mean {near:?}?", shown(&key.text)),
        None => {
            let all = known.join(", ");
            format!("unknown key {:?}: a {noun} has {all}", shown(&key.text))
        }
    };
    reading.wrong(key.at, why);
}

/// A node's text. YAML takes some words for something else than text; then it has to be quoted, or
/// another program would read another value.
pub(super) fn text<'a>(key: &str, node: &'a Node, reading: &mut Reading<'_>) -> Option<&'a str> {
    let got = match (&node.value, kind(node)) {
        (Value::Scalar(scalar), Kind::Text) => return Some(&scalar.text),
        (Value::Scalar(scalar), Kind::Bool | Kind::Number) => {
            format!("{}: write {:?}", describe(node), scalar.text)
        }
        _ => describe(node),
    };
    reading.wrong(node.at, format_args!("{key}: expected text, got {got}"));
    None
}

/// What a value is, for somebody who expected something else.
pub(super) fn describe(node: &Node) -> String {
    let text = match &node.value {
        Value::Scalar(scalar) => shown(&scalar.text),
        Value::List(_) | Value::Map(_) => String::new(),
    };
    match kind(node) {
        Kind::Text => format!("{text:?}"),
        Kind::Null => "nothing".into(),
        Kind::Bool => format!("the truth value {text}"),
        Kind::Number => format!("the number {text}"),
        Kind::List => "a list".into(),
        Kind::Map => "a mapping".into(),
    }
}

/// The known word that somebody probably meant.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    // Comparing takes memory by both lengths; no word is this long.
    if word.len() > 80 {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let distance = |other: &str| strsim::damerau_levenshtein(&word, &other.to_ascii_lowercase());
    // A third of the letters may be wrong: more is another word.
    let near = known.iter().map(|other| (distance(other), *other)).min()?;
    (near.0 <= near.1.len().div_ceil(3)).then_some(near.1)
}

/// A message repeats at most this much of what somebody wrote.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Null,
    Bool,
    Number,
    List,
    Map,
}

/// What YAML 1.2's core schema takes a node for.
fn kind(node: &Node) -> Kind {
    match &node.value {
        Value::List(_) => Kind::List,
        Value::Map(_) => Kind::Map,
        Value::Scalar(Scalar { plain: false, .. }) => Kind::Text,
        Value::Scalar(Scalar { text, .. }) => match text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
            "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Kind::Bool,
            text if is_number(text) => Kind::Number,
            _ => Kind::Text,
        },
    }
}

fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    if let Some((radix, digits)) = match text.get(..2) {
        Some("0x") => Some((16, &text[2..])),
        Some("0o") => Some((8, &text[2..])),
        _ => None,
    } {
        return !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    }
    // Rust's floats beside these are words, such as `inf`, which YAML takes for text.
    unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && unsigned.parse::<f64>().is_ok()
}
