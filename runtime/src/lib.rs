//! What all three programs need around their own work: logs, signals, drain, back-off, files that
//! hold secrets, and reaching a control plane.
//!
//! Nothing here knows a network, a peer or a store.

pub mod backoff;
pub mod clock;
pub mod credential;
pub mod dial;
pub mod files;
pub mod shutdown;
pub mod telemetry;
