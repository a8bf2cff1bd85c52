//! The control plane.

pub mod replica;
pub mod store;
