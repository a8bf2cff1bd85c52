//! The control plane.

pub mod cluster;
pub mod replica;
pub mod store;
