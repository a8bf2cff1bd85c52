//! What somebody expects to hold once a file is applied: `web-1 sees db-1`.

use wattle_model::NodeName;
use wattle_proto::admin::Expectation;

const FORM: &str =
    "expected \"A sees B\" or \"A does not see B\", where A and B are nodes' names or ids";

/// Reads one expectation about nodes of `network`.
pub(super) fn read(network: &str, text: &str) -> Result<Expectation, String> {
    let words: Vec<_> = text.split_whitespace().collect();
    let (node, other, sees) = match words[..] {
        [node, "sees", other] => (node, other, true),
        [node, "does", "not", "see", other] | [node, "doesn't", "see", other] => {
            (node, other, false)
        }
        _ => return Err(format!("{:?}: {FORM}", super::fields::shown(text))),
    };
    // An id has the form of a name, too.
    for name in [node, other] {
        name.parse::<NodeName>().map_err(|why| why.to_string())?;
    }
    if node == other {
        return Err(format!("{node} twice: name two nodes"));
    }
    Ok(Expectation { network: network.into(), node: node.into(), other: other.into(), sees })
}

/// An expectation as [`read`] takes it.
pub(super) fn text(expectation: &Expectation) -> String {
    let Expectation { node, other, sees, .. } = expectation;
    let verb = if *sees { "sees" } else { "does not see" };
    format!("{node} {verb} {other}")
}
