//! The control plane.

pub mod access;
pub mod admin;
pub mod advertise;
pub mod app;
pub mod certificate;
pub mod cluster;
pub mod command;
pub mod config;
pub mod descriptors;
pub mod enroll;
pub mod horizon;
pub mod listener;
pub mod nodes;
pub mod replica;
pub mod services;
pub mod store;
pub mod stream;
