//! What operators do: networks, nodes, join tokens and operators, and seeing what happens.
//!
//! The flow of a mutation: `service` takes the call, `mutation` looks whether it was done before,
//! the noun's file plans a transaction (or refuses, naming the field), `mutation` commits it with
//! the record of the request. Lists walk the store (`page`), so they show what was just written.
//! Nodes are written by `crate::nodes` alone; nothing here speaks to agents.

mod apply;
mod authority;
mod backup;
mod bootstrap;
mod changes;
mod convert;
mod error;
mod explain;
mod keys;
mod mutation;
mod networks;
mod nodes;
mod operators;
mod page;
mod policies;
mod range;
mod record;
mod records;
mod replicas;
mod requests;
mod secrets;
mod service;
mod session;
mod status;
mod tokens;
mod wait;
mod watch;

#[cfg(test)]
mod tests;

pub use bootstrap::{BootstrapError, bootstrap_credential, stale_addresses};
pub use service::Admin;
