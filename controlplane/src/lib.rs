//! The control plane.

pub mod advertise;
pub mod cluster;
pub mod config;
pub mod horizon;
pub mod replica;
pub mod store;
