//! What the control plane says is wrong with a request, told with the places in the files that the
//! request was made of.

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{
    Declared,
    place::{Mistakes, Place},
};
use crate::failure::Failure;

/// Why the control plane refused what the files declare.
pub(crate) fn explain(status: Status, declared: &Declared) -> Failure {
    let violations = status.get_details_bad_request().map(|details| details.field_violations);
    let mut mistakes = Mistakes::default();
    for violation in violations.into_iter().flatten() {
        match locate(&violation.field, declared) {
            Some((place, "")) => mistakes.add(place, violation.description),
            Some((place, key)) => {
                mistakes.add(place, format_args!("{key}: {}", violation.description));
            }
            None => mistakes.add_somewhere(violation.description),
        }
    }
    let heading = match status.code() {
        Code::Aborted => {
            "nothing was changed, because somebody else has changed something since these were \
             read (`wattle get … -o yaml` shows it as it is now):"
        }
        Code::FailedPrecondition => "nothing was changed, because this wouldn't be so:",
        _ => "nothing was changed, because there are mistakes:",
    };
    mistakes.refuse(heading).err().unwrap_or_else(|| status.into())
}

/// Where a field of the request stands, and its key there.
fn locate<'a>(field: &'a str, declared: &Declared) -> Option<(Place, &'a str)> {
    let (list, rest) = field.split_once('[')?;
    let (index, rest) = rest.split_once(']')?;
    let index: usize = index.parse().ok()?;
    match list {
        "expectations" => Some((declared.expectations.get(index)?.1.clone(), "")),
        "resources" => {
            let item = declared.items.get(index)?;
            let key = key(rest.strip_prefix('.').unwrap_or(rest));
            // What the file doesn't say is the document's mistake.
            let place = item.keys.get(key).unwrap_or(&item.place);
            Some((place.clone(), key))
        }
        _ => None,
    }
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
