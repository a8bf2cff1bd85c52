//! What an operator is told when something can't be done: a status code, the field it is about and
//! what to do.

use std::fmt;

use tonic::Status;
use wattle_proto::InvalidField;

use crate::store::{Key, StoreError};

/// A field of a request that can't be what it is, and why.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) field: &'static str,
    pub(super) why: String,
}

impl Wrong {
    pub(super) fn new(field: &'static str, why: impl fmt::Display) -> Self {
        Self { field, why: why.to_string() }
    }
}

impl From<Wrong> for Status {
    fn from(wrong: Wrong) -> Self {
        invalid(wrong.field, wrong.why)
    }
}

/// Names the field in whatever a check found wrong with a request.
pub(super) trait Field<T> {
    /// INVALID_ARGUMENT, naming the field.
    fn in_field(self, field: &str) -> Result<T, Status>;
}

impl<T, E: fmt::Display> Field<T> for Result<T, E> {
    fn in_field(self, field: &str) -> Result<T, Status> {
        self.map_err(|error| invalid(field, error))
    }
}

/// INVALID_ARGUMENT, naming the field.
pub(super) fn invalid(field: &str, why: impl fmt::Display) -> Status {
    Status::invalid_argument(format!("{field}: {why}"))
}

/// A record that this version can't read. What is wrong with it goes to the log.
pub(super) fn unreadable(key: &Key, error: &InvalidField) -> Status {
    crate::nodes::store_failed(StoreError::Corrupt(format!("{key}: {error}")))
}
