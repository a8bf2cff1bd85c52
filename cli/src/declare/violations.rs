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
    // Its own words would be of bytes, and of the transport.
    if status.code() == Code::OutOfRange {
        return Failure::Failed(format!(
            "nothing was changed, because these files are too much for one request: apply them in \
             parts ({})",
            status.message()
        ));
    }
    let unmet = status.code() == Code::FailedPrecondition;
    let (mut mistakes, mut expected) = (Mistakes::default(), false);
    for violation in violations {
        expected |= add(violation, unmet, declared, &mut mistakes);
    }
    mistakes.refuse(heading(status.code(), expected)).err().unwrap_or_else(|| status.into())
}

/// Adds what the control plane says of the part of the files that could be read. That a network isn't
/// there, or what its ranges overlap, may be otherwise with the rest of them: it isn't told.
pub(crate) fn explain_part(status: &Status, declared: &Declared, mistakes: &mut Mistakes) {
    if !matches!(status.code(), Code::InvalidArgument | Code::Aborted) {
        return;
    }
    let violations = status.get_details_bad_request().map(|details| details.field_violations);
    let told = violations.unwrap_or_default().into_iter();
    for violation in told.filter(|v| v.field.contains(']') && !v.field.contains("network")) {
        add(violation, false, declared, mistakes);
    }
}

/// Adds one violation at its place. Says whether it is an expectation that isn't met.
fn add(
    FieldViolation { field, description, .. }: FieldViolation,
    unmet: bool,
    declared: &Declared,
    mistakes: &mut Mistakes,
) -> bool {
    let description = placed(&description, declared);
    match (expectation(&field, declared), locate(&field, declared)) {
        (Some((expectation, place)), _) if unmet => {
            let text = expect::text(expectation);
            mistakes.add(place.clone(), format_args!("expected {text:?}, but {description}"));
            return true;
        }
        (Some((_, place)), _) => mistakes.add(place.clone(), description),
        (None, Some((place, key))) if !key.is_empty() => {
            mistakes.add(place, format_args!("{key}: {description}"));
        }
        (None, Some((place, _))) => mistakes.add(place, description),
        (None, None) => mistakes.add_somewhere(description),
    }
    false
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

/// A description in which what the request calls `resources[5]` is called by its place.
fn placed(description: &str, declared: &Declared) -> String {
    let item = |text| {
        let (index, rest) = index(text, "resources")?;
        Some((&declared.items.get(index)?.place, rest))
    };
    match description.find("resources[").map(|at| description.split_at(at)) {
        Some((before, text)) => match item(text) {
            Some((place, rest)) => format!("{before}{place}{rest}"),
            None => description.to_owned(),
        },
        None => description.to_owned(),
    }
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
