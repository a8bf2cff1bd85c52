//! wattle-agent
pub mod kernel;
