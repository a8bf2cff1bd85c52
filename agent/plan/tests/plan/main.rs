//! The plan on simulated devices.
#![expect(clippy::unwrap_used, reason = "a test stops where it goes wrong")]

mod endpoints;
mod moves;
mod routes;
mod simulated;
mod touched;
