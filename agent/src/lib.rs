//! The agent: makes a machine a node of a network and keeps its WireGuard device as the control
//! plane says.
//!
//! The second half of the story: `session` (hop 4) turns a stream that may be cut anywhere into
//! committed changes, `wattle-plan` (hop 5) turns them into operations, `kernel` (hop 6) executes
//! them, and `reconcile` is the loop around the last two. `state` is what outlives a restart, so
//! that the mesh comes back with no control plane at all. `join`, `renew` and `leave` are the life
//! of the node's identity; `status` tells people how it all stands.

pub mod app;
pub mod config;
mod control_plane;
mod join;
pub mod kernel;
mod leave;
#[cfg(test)]
mod on_kernel;
mod reconcile;
mod renew;
mod report;
#[cfg(test)]
mod scripted;
mod session;
mod settings;
mod state;
mod status;
mod wireguard_key;
