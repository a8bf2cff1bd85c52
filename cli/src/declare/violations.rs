//! What the control plane says is wrong with a request, told with the places in the files that the
//! request was made of.

use tonic::{Code, Status};
use tonic_types::{FieldViolation, StatusExt as _};
use wattle_proto::admin::Expectation;

use super::{
    Declared, expect,
    place::{Mistakes, Place},
};
use crate::failure::Failure;

/// Why the control plane refused what the files declare.
pub(crate) fn explain(status: Status, declared: &Declared) -> Failure {
    let violations = status.get_details_bad_request().map(|details| details.field_violations);
    let violations = violations.unwrap_or_default();
    let unmet = status.code() == Code::FailedPrecondition;
    let mut mistakes = Mistakes::default();
    let mut expected = false;
    for FieldViolation { field, description, .. } in violations {
        match (expectation(&field, declared), locate(&field, declared)) {
            (Some((expectation, place)), _) if unmet => {
                expected = true;
                let text = expect::text(expectation);
                mistakes.add(place.clone(), format_args!("expected {text:?}, but {description}"));
            }
            (Some((_, place)), _) => mistakes.add(place.clone(), description),
            (None, Some((place, key))) if !key.is_empty() => {
                mistakes.add(place, format_args!("{key}: {description}"));
            }
            (None, Some((place, _))) => mistakes.add(place, description),
            (None, None) => mistakes.add_somewhere(description),
        }
    }
    mistakes.refuse(heading(status.code(), expected)).err().unwrap_or_else(|| status.into())
}

fn heading(code: Code, expected: bool) -> &'static str {
    match code {
        Code::Aborted => {
            "nothing was changed, because somebody else has changed something since these were \
             read (`wattle get … -o yaml` shows it as it is now):"
        }
        Code::FailedPrecondition if expected => {
            "nothing was changed, because not all that is expected would hold:"
        }
        Code::FailedPrecondition => "nothing was changed:",
        _ => "nothing was changed, because there are mistakes:",
    }
}

fn expectation<'a>(field: &str, declared: &'a Declared) -> Option<&'a (Expectation, Place)> {
    declared.expectations.get(index(field, "expectations")?.0)
}

/// The index that a field has in a list of the request, and what follows it.
fn index<'a>(field: &'a str, list: &str) -> Option<(usize, &'a str)> {
    let (index, rest) = field.strip_prefix(list)?.strip_prefix('[')?.split_once(']')?;
    Some((index.parse().ok()?, rest))
}

/// Where a field of a resource stands, and its key there.
fn locate<'a>(field: &'a str, declared: &Declared) -> Option<(Place, &'a str)> {
    let (index, rest) = index(field, "resources")?;
    let item = declared.items.get(index)?;
    let key = key(rest.strip_prefix('.').unwrap_or(rest));
    // What the file doesn't say is the document's mistake.
    let place = item.keys.get(key).unwrap_or(&item.place);
    Some((place.clone(), key))
}

/// What a file calls a field of a resource.
fn key(field: &str) -> &str {
    match field {
        "network.ipv4_range" => "ipv4",
        "network.ipv6_range" => "ipv6",
        "labels.node.network" => "network",
        "labels.node.node" => "name",
        field => match field.split_once('.') {
            Some(("network" | "policy" | "labels", key)) => key,
            _ => field,
        },
    }
}
