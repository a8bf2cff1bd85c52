//! The control plane: hops 1 to 3.
//!
//! A change enters through `admin` or `enroll` (behind `access`), is committed to the `store` by
//! `nodes` or the noun's own file, comes back through `store::feed` into the view (a crate of its
//! own), and leaves on every agent's `stream`. `app` puts it together.

pub mod access;
pub mod admin;
pub mod advertise;
pub mod app;
pub mod authority;
mod beginning;
pub mod certificate;
pub mod cluster;
pub mod command;
pub mod config;
pub mod descriptors;
pub mod enroll;
pub mod horizon;
pub mod listener;
pub mod metrics;
pub mod moving;
pub mod nodes;
pub mod replica;
pub mod replicas;
pub mod rotation;
pub mod secrets;
pub mod services;
pub mod store;
pub mod stream;
