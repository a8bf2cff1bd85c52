//! The control plane.

pub mod cluster;
pub mod horizon;
pub mod replica;
pub mod store;
