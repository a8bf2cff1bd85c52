//! What the control plane refuses is told at the files' places.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{
    super::{explain, explain_part, place::Mistakes},
    read,
};

const TEXT: &str = "\
kind: Network
name: lab
ipv4: 10.1.0.0/16
---
kind: Policy
name: web-to-db
from: role=web
to: role=db
expect:
  - web-1 sees db-1
  - web-1 does not see laptop
---
kind: Node
network: lab
name: db-1
labels:
  role: db
";

fn said(code: Code, violations: &[(&str, &str)]) -> String {
    let mut details = ErrorDetails::new();
    for (field, why) in violations {
        details.add_bad_request_violation(*field, *why);
    }
    let status = Status::with_error_details(code, "first (and 1 more)", details);
    explain(status, &read(TEXT).unwrap()).to_string()
}

#[test]
fn each_violation_is_told_at_its_place() {
    let violations = [
        ("resources[2].labels.node.node", "there is no node db-1"),
        ("resources[2].labels.labels", "too many"),
        ("resources[2].labels.node.network", "none"),
        ("resources[0].network.ipv4_range", "overlaps"),
        // Not in the file.
        ("resources[0].network.mode", "no"),
        ("resources[1].policy.from", "too long"),
        ("resources[1].policy.network", "there is no network default"),
        ("resources[1]", "too much"),
        ("resources[2]", "resources[0] is about the same node: say it once"),
        ("expectations[1].other", "there is no node laptop"),
        ("resources", "too many"),
        ("resources[9].policy.from", "beyond"),
        ("", "3 more mistakes, which don't fit here"),
    ];
    assert_eq!(
        said(Code::InvalidArgument, &violations),
        "nothing was changed, because there are mistakes:\n\
         f:1:1: mode: no\n\
         f:3:7: ipv4: overlaps\n\
         f:5:1: network: there is no network default\n\
         f:5:1: too much\n\
         f:7:7: from: too long\n\
         f:11:5: there is no node laptop\n\
         f:13:1: f:1:1 is about the same node: say it once\n\
         f:14:10: network: none\n\
         f:15:7: name: there is no node db-1\n\
         f:17:3: labels: too many\n\
         too many\n\
         beyond\n\
         3 more mistakes, which don't fit here"
    );
}

#[test]
fn the_heading_says_what_kind_of_mistake_it_is() {
    let of = |code| said(code, &[("resources[1].revision", "it is at 9")]);
    assert!(of(Code::Aborted).starts_with("nothing was changed, because somebody else"));
    assert!(of(Code::Aborted).ends_with("\nf:5:1: revision: it is at 9"));
    assert!(of(Code::FailedPrecondition).starts_with("nothing was changed:\n"));
}

#[test]
fn an_expectation_that_fails_is_told_beside_what_would_be_so() {
    let violations = [
        ("expectations[1]", "web-1 sees laptop: policy all lets them"),
        ("expectations[0]", "web-1 doesn't see db-1: no policy lets them"),
        ("resources", "too many changes"),
    ];
    assert_eq!(
        said(Code::FailedPrecondition, &violations),
        "nothing was changed, because not all that is expected would hold:\n\
         f:10:5: expected \"web-1 sees db-1\", but web-1 doesn't see db-1: no policy lets them\n\
         f:11:5: expected \"web-1 does not see laptop\", but web-1 sees laptop: policy all lets \
         them\n\
         too many changes"
    );
}

/// The rest may make the network, or move another one's ranges.
#[test]
fn of_a_part_of_the_files_only_what_the_rest_cant_change_is_told() {
    let mut details = ErrorDetails::new();
    for (field, why) in [
        ("resources[2].labels.node.node", "there is no node db-1"),
        ("resources[1].revision", "it is at 9"),
        ("expectations[0].node", "there is no node web-1"),
        ("resources[0].network.ipv4_range", "overlaps"),
        ("resources[1].policy.network", "there is no network default"),
        ("expectations[1].network", "there is no network default"),
        ("resources", "too many"),
        ("", "3 more mistakes, which don't fit here"),
    ] {
        details.add_bad_request_violation(field, why);
    }
    let told = |code| {
        let mut mistakes = Mistakes::default();
        let status = Status::with_error_details(code, "first", details.clone());
        explain_part(&status, &read(TEXT).unwrap(), &mut mistakes);
        mistakes.check().err().map(|failure| failure.to_string()).unwrap_or_default()
    };
    assert_eq!(
        told(Code::InvalidArgument),
        "nothing was changed, because there are mistakes:\n\
         f:5:1: revision: it is at 9\n\
         f:10:5: there is no node web-1\n\
         f:15:7: name: there is no node db-1"
    );
    // An expectation may hold with the rest, and whether a viewer may apply isn't the question.
    for code in [Code::FailedPrecondition, Code::PermissionDenied, Code::Unavailable] {
        assert_eq!(told(code), "");
    }
}

#[test]
fn files_that_are_too_long_for_a_message_are_told_so() {
    let status = Status::out_of_range("decoded message length too large: found 5, the limit is 4");
    let said = explain(status, &read(TEXT).unwrap()).to_string();
    assert!(said.contains("too much for one request: apply them in parts (decoded"), "{said}");
}

#[test]
fn a_refusal_without_violations_is_told_as_any_other() {
    let declared = read(TEXT).unwrap();
    let failure = explain(Status::permission_denied("role operator is needed"), &declared);
    assert!(failure.to_string().starts_with("not permitted: role operator"), "{failure}");
}
