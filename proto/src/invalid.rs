//! How a malformed message is described: by the field, then by what is wrong with it.

use std::{error::Error, fmt};

/// A field of a message that can't be read.
#[derive(Debug)]
pub struct InvalidField {
    /// The field, as the `.proto` file names it.
    pub field: &'static str,
    /// What is wrong with it.
    pub source: Box<dyn Error + Send + Sync>,
}

impl fmt::Display for InvalidField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.source)
    }
}

impl Error for InvalidField {}

/// Names the field in whatever error a conversion gave.
pub trait Invalid<T> {
    /// Says which field it was.
    fn field(self, field: &'static str) -> Result<T, InvalidField>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> Invalid<T> for Result<T, E> {
    fn field(self, field: &'static str) -> Result<T, InvalidField> {
        self.map_err(|source| InvalidField { field, source: source.into() })
    }
}

impl<T> Invalid<T> for Option<T> {
    fn field(self, field: &'static str) -> Result<T, InvalidField> {
        self.ok_or_else(|| InvalidField { field, source: "missing".into() })
    }
}
