//! The plan on simulated devices.
#![expect(clippy::unwrap_used, reason = "a test stops where it goes wrong")]

mod endpoints;
mod moves;
mod preshared;
mod routes;
mod simulated;
mod touched;
