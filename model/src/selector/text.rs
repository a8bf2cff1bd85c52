//! Selectors as text: Kubernetes' label selector syntax, where the keys `id` and `name` mean the
//! node's id and the name that its token fixed.

use std::{collections::BTreeSet, fmt, str::FromStr};

use super::{Requirement, Selector};
use crate::{
    InvalidId, InvalidLabel, InvalidName,
    labels::{check_key, check_value},
};

/// Text that can't be read as a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSelector {
    /// A key or value in it is malformed.
    #[error(transparent)]
    Label(#[from] InvalidLabel),
    /// A node's id in it is malformed.
    #[error("id: {0}")]
    Id(#[from] InvalidId),
    /// A node's name in it is malformed.
    #[error("name: {0}")]
    Name(#[from] InvalidName),
    /// A comma with nothing before or after it. Taken for nothing, it would let more nodes in than
    /// its writer thinks: what a template left empty is a mistake.
    #[error("{0:?}: nothing before or after a comma: expected a condition there")]
    Nothing(String),
    /// Longer than [`Selector::MAX_TEXT`].
    #[error("at most {max} bytes, got {0}: say it by a label", max = Selector::MAX_TEXT)]
    TooLong(usize),
    /// It asks whether a node has an id or a name.
    #[error("{0:?}: id and name take =, !=, in or notin")]
    NoLabel(String),
    /// A part of it has none of the known forms.
    #[error(
        "{0:?}: expected key=value, key!=value, key in (a,b), key notin (a,b), key, !key, id=<node id> or name=<fixed name>"
    )]
    Form(String),
}

impl FromStr for Selector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let parts = split_outside_parentheses(text);
        let parts = parts.iter().map(|part| match part.trim() {
            "" => Err(InvalidSelector::Nothing(shown(text))),
            part => requirement(part),
        });
        Ok(Self::new(parts.collect::<Result<Vec<_>, _>>()?))
    }
}

impl Selector {
    /// Bytes of a selector that is kept. A policy's record holds 32 past versions of its two, and
    /// has to fit a transaction beside the next one.
    pub const MAX_TEXT: usize = 8 << 10;

    /// Reads a selector that somebody wants kept. What is kept already is read without this.
    pub fn to_keep(text: &str) -> Result<Self, InvalidSelector> {
        let selector: Self = text.parse()?;
        match selector.to_string().len() {
            length if length > Self::MAX_TEXT => Err(InvalidSelector::TooLong(length)),
            _ => Ok(selector),
        }
    }
}

/// An error repeats at most this much of what somebody wrote.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
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

fn requirement(part: &str) -> Result<Requirement, InvalidSelector> {
    let form = || InvalidSelector::Form(shown(part));
    if let Some((key, value)) = part.split_once("!=") {
        return values(key, false, [value]);
    }
    if let Some((key, value)) = part.split_once('=') {
        return values(key, true, [value.trim_start_matches('=')]);
    }
    if let Some((head, list)) = part.split_once('(') {
        let list = list.strip_suffix(')').ok_or_else(form)?;
        let (key, operator) = head.trim().rsplit_once(' ').ok_or_else(form)?;
        return match operator {
            "in" => values(key, true, list.split(',')),
            "notin" => values(key, false, list.split(',')),
            _ => Err(form()),
        };
    }
    let (key, wanted) = match part.strip_prefix('!') {
        Some(key) => (key.trim(), false),
        None if part.contains(' ') => return Err(form()),
        None => (part, true),
    };
    check_key(key)?;
    match (key, wanted) {
        ("id" | "name", _) => Err(InvalidSelector::NoLabel(shown(part))),
        (key, true) => Ok(Requirement::Exists(key.into())),
        (key, false) => Ok(Requirement::Absent(key.into())),
    }
}

/// That the key's value is one of these, or none of them.
fn values<'a>(
    key: &str,
    wanted: bool,
    values: impl IntoIterator<Item = &'a str>,
) -> Result<Requirement, InvalidSelector> {
    let (key, values) = (key.trim(), values.into_iter().map(str::trim));
    Ok(match key {
        "id" => {
            let ids = values.map(str::parse).collect::<Result<_, _>>()?;
            if wanted { Requirement::Node(ids) } else { Requirement::NotNode(ids) }
        }
        "name" => {
            let names = values.map(str::parse).collect::<Result<_, _>>()?;
            if wanted { Requirement::Named(names) } else { Requirement::NotNamed(names) }
        }
        key => {
            check_key(key)?;
            let checked = |value: &str| check_value(key, value).map(|()| value.into());
            let set = values.map(checked).collect::<Result<BTreeSet<Box<str>>, _>>()?;
            let key = key.into();
            if wanted { Requirement::In(key, set) } else { Requirement::NotIn(key, set) }
        }
    })
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements().iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match requirement {
                Requirement::In(key, values) => write_values(f, key, true, values),
                Requirement::NotIn(key, values) => write_values(f, key, false, values),
                Requirement::Exists(key) => f.write_str(key),
                Requirement::Absent(key) => write!(f, "!{key}"),
                Requirement::Node(ids) => write_values(f, "id", true, ids),
                Requirement::NotNode(ids) => write_values(f, "id", false, ids),
                Requirement::Named(names) => write_values(f, "name", true, names),
                Requirement::NotNamed(names) => write_values(f, "name", false, names),
            }?;
        }
        Ok(())
    }
}

fn write_values<T: fmt::Display + Ord>(
    f: &mut fmt::Formatter<'_>,
    key: &str,
    wanted: bool,
    values: &BTreeSet<T>,
) -> fmt::Result {
    if let (1, Some(value)) = (values.len(), values.first()) {
        return write!(f, "{key}{}{value}", if wanted { "=" } else { "!=" });
    }
    write!(f, "{key} {} (", if wanted { "in" } else { "notin" })?;
    for (i, value) in values.iter().enumerate() {
        write!(f, "{}{value}", if i > 0 { "," } else { "" })?;
    }
    f.write_str(")")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        let (one, two) = ("01".repeat(16), "02".repeat(16));
        let ids = [format!("id={one}"), format!("id!={one}"), format!("id in ({one},{two})")];
        let labels = ["a=1", "a!=1", "a in (1,2)", "a notin (1,2)", "a", "!a", "a=1,b"];
        let names = ["name=db-1", "name!=db-1", "name in (a,b)", "role=db,name notin (a,b)"];
        let texts = labels.into_iter().chain(names).chain(ids.iter().map(String::as_str));
        for text in texts {
            let selector: Selector = text.parse().unwrap();
            assert_eq!(selector.to_string(), text);
            assert_eq!(selector.to_string().parse(), Ok(selector), "{text}");
        }
    }

    #[test]
    fn mistakes_are_errors() {
        for text in ["a in 1", "a in (1", "a near (1)", "a b", "=1", "a=b c", "! a b", "in (1)"] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
    }

    /// `$ROLE,$SITE` without either would mean every node.
    #[test]
    fn a_comma_with_nothing_beside_it_is_a_mistake() {
        for text in [",", " , ", "a,", ",a", "a=1,,b", "a in (1,2),", "a\n,\n"] {
            let said = text.parse::<Selector>().unwrap_err().to_string();
            assert!(said.contains("nothing before or after a comma"), "{text:?}: {said}");
        }
        for text in ["", " ", "\n"] {
            assert_eq!(text.parse(), Ok(Selector::default()), "{text:?}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded_by_how_it_will_be_written() {
        let values: Vec<_> = (0..1000).map(|n| format!("value-{n:04}")).collect();
        let text = format!("a in ({})", values.join(","));
        let said = Selector::to_keep(&text).unwrap_err().to_string();
        assert_eq!(said, "at most 8192 bytes, got 11006: say it by a label");
        assert!(text.parse::<Selector>().is_ok(), "it may have been kept before");
        // Blanks and what is said twice don't count: they aren't kept.
        assert!(Selector::to_keep(&vec!["a = 1"; 5000].join(" , ")).is_ok());
    }

    #[test]
    fn mistakes_in_ids_and_names_are_named() {
        let said = |text: &str| text.parse::<Selector>().unwrap_err().to_string();
        assert!(said("id=5").starts_with("id: "), "{}", said("id=5"));
        assert!(said("name=DB").starts_with("name: \"DB\" is not a name"), "{}", said("name=DB"));
        for text in ["name", "!name", "id", "! id"] {
            assert_eq!(said(text), format!("{text:?}: id and name take =, !=, in or notin"));
        }
    }
}
