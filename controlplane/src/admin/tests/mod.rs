//! The service on an embedded store: in one process, without TLS, called as tonic calls it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod apply;
mod authority;
mod bootstrap;
mod lists;
mod networks;
mod nodes;
mod operators;
mod policies;
mod races;
mod refusals;
mod requests;
mod secrets;
mod store;
mod tokens;
mod watch;
mod world;
