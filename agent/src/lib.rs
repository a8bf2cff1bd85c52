//! The agent: makes a machine a node of a network and keeps its WireGuard device as the control
//! plane says.

pub mod kernel;
mod settings;
mod state;
mod wireguard_key;
