//! What is wrong with a request, all of it at once: a `google.rpc.BadRequest` in the status.

use std::fmt;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Bytes of text in a status's details. They travel in a header, in base64, and common clients take
/// no more than 16 KB of headers.
const MAX_TEXT: usize = 8 << 10;

/// Where in the request something is, in the request's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    All,
    Resource(usize),
    Expectation(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("resources"),
            Self::Resource(index) => write!(f, "resources[{index}]"),
            Self::Expectation(index) => write!(f, "expectations[{index}]"),
        }
    }
}

/// What has been found so far.
#[derive(Debug, Default)]
pub(super) struct Mistakes(Vec<Mistake>);

#[derive(Debug)]
struct Mistake {
    place: Place,
    field: String,
    why: String,
}

impl Mistakes {
    /// `field` is what follows the place: ".policy.from", or nothing.
    pub(super) fn add(&mut self, place: Place, field: &str, why: impl fmt::Display) {
        self.0.push(Mistake { place, field: format!("{place}{field}"), why: why.to_string() });
    }

    /// The value, or `None` and a mistake.
    pub(super) fn take<T, E: fmt::Display>(
        &mut self,
        place: Place,
        field: &str,
        result: Result<T, E>,
    ) -> Option<T> {
        result.map_err(|why| self.add(place, field, why)).ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Refuses the request with all of them in its own order, as far as they fit: what doesn't is
    /// counted. `Ok` where there are none.
    pub(super) fn refuse(mut self, code: Code) -> Result<(), Status> {
        self.0.sort_by_key(|mistake| mistake.place);
        let Some(first) = self.0.first() else { return Ok(()) };
        let others = match self.0.len() {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        let message = format!("{}: {}{others}", first.field, first.why);
        let (mut details, mut room) = (ErrorDetails::new(), MAX_TEXT);
        for (index, Mistake { field, why, .. }) in self.0.iter().enumerate() {
            let Some(left) = room.checked_sub(field.len() + why.len()) else {
                let rest = format!("{} more mistakes, which don't fit here", self.0.len() - index);
                details.add_bad_request_violation("", rest);
                break;
            };
            room = left;
            details.add_bad_request_violation(field, why);
        }
        Err(Status::with_error_details(code, message, details))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_come_in_the_requests_order() {
        let mut mistakes = Mistakes::default();
        mistakes.add(Place::Expectation(0), ".node", "c");
        mistakes.add(Place::Resource(10), "", "b");
        mistakes.add(Place::Resource(9), ".policy.from", "a");
        let status = mistakes.refuse(Code::InvalidArgument).unwrap_err();
        assert_eq!(status.message(), "resources[9].policy.from: a (and 2 more)");
        let violations = status.get_details_bad_request().unwrap().field_violations;
        let fields: Vec<_> = violations.iter().map(|v| v.field.as_str()).collect();
        assert_eq!(fields, ["resources[9].policy.from", "resources[10]", "expectations[0].node"]);
        assert!(Mistakes::default().refuse(Code::Aborted).is_ok());
    }

    #[test]
    fn more_than_a_header_takes_are_counted() {
        let mut mistakes = Mistakes::default();
        (0..1000).for_each(|n| mistakes.add(Place::Resource(n), ".policy.from", "x".repeat(80)));
        let status = mistakes.refuse(Code::InvalidArgument).unwrap_err();
        let base64 = status.details().len().div_ceil(3) * 4;
        assert!(base64 + status.message().len() < 14 << 10, "{base64}");
        let violations = status.get_details_bad_request().unwrap().field_violations;
        let rest = 1000 - (violations.len() - 1);
        let last = &violations.last().unwrap().description;
        assert_eq!(*last, format!("{rest} more mistakes, which don't fit here"));
    }
}
