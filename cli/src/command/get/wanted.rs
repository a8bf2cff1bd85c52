//! What the words after `wattle get` mean.

use crate::failure::Failure;

/// A kind of thing that `get` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noun {
    Network,
    Policy,
    Node,
}

/// What to show: all of a kind, or one.
pub(super) type Wanted = (Noun, Option<String>);

/// The words of the command line, of which there is at least one.
pub(super) fn wanted(what: &[String]) -> Result<Vec<Wanted>, Failure> {
    if what.iter().any(|word| word.contains('/')) {
        let pair = |word: &String| match word.split_once('/') {
            Some((kind, name)) => match nouns(kind)?[..] {
                [noun] => Ok((noun, Some(name.to_owned()))),
                _ => Err(Failure::Usage(format!("{word:?}: name one kind"))),
            },
            None => Err(Failure::Usage(format!("{word:?}: write KIND/NAME here, as beside it"))),
        };
        return what.iter().map(pair).collect();
    }
    let (kinds, names) = what.split_first().expect("clap demands one");
    let nouns = nouns(kinds)?;
    match (&nouns[..], names) {
        (_, []) => Ok(nouns.into_iter().map(|noun| (noun, None)).collect()),
        ([noun], names) => Ok(names.iter().map(|name| (*noun, Some(name.clone()))).collect()),
        (_, [name, ..]) => Err(Failure::Usage(format!("{name:?}: names go with one kind"))),
    }
}

/// `nodes`, `node`, `networks,policies`, `all`.
fn nouns(kinds: &str) -> Result<Vec<Noun>, Failure> {
    let mut nouns = Vec::new();
    for kind in kinds.split(',') {
        nouns.extend(match kind.to_ascii_lowercase().as_str() {
            "network" | "networks" => vec![Noun::Network],
            "policy" | "policies" => vec![Noun::Policy],
            "node" | "nodes" => vec![Noun::Node],
            "all" => vec![Noun::Network, Noun::Policy, Noun::Node],
            _ => {
                let why = "expected networks, policies, nodes or all, then names; or KIND/NAME";
                return Err(Failure::Usage(format!("{kind:?}: {why}")));
            }
        });
    }
    nouns.dedup();
    Ok(nouns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(what: &str) -> Result<Vec<Wanted>, Failure> {
        let what: Vec<_> = what.split_whitespace().map(str::to_owned).collect();
        wanted(&what)
    }

    #[test]
    fn kinds_and_names_are_read_as_kubectl_has_them() {
        use Noun::{Network, Node, Policy};
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(ask("nodes"), Ok(vec![(Node, None)]));
        assert_eq!(ask("node a b"), Ok(vec![(Node, some("a")), (Node, some("b"))]));
        assert_eq!(ask("networks,policy"), Ok(vec![(Network, None), (Policy, None)]));
        assert_eq!(ask("all").unwrap().len(), 3);
        assert_eq!(ask("policy/a network/b"), Ok(vec![(Policy, some("a")), (Network, some("b"))]));
        for (what, expected) in [
            ("pods", "\"pods\": expected networks, policies, nodes or all"),
            ("all a", "\"a\": names go with one kind"),
            ("node/a b", "\"b\": write KIND/NAME here"),
            ("all/a", "\"all/a\": name one kind"),
        ] {
            let failure = ask(what).unwrap_err();
            assert!(
                matches!(&failure, Failure::Usage(text) if text.starts_with(expected)),
                "{failure}"
            );
        }
    }
}
