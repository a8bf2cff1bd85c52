//! The control plane.

pub mod access;
pub mod advertise;
pub mod certificate;
pub mod cluster;
pub mod config;
pub mod horizon;
pub mod listener;
pub mod nodes;
pub mod replica;
pub mod store;
pub mod stream;
