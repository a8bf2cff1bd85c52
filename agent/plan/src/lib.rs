//! Hop 5: what the data plane should be, against what it is, gives operations.
//!
//! Pure: no clock, no I/O, no tokio, no netlink. The session gives [`Update`]s to a [`Desired`];
//! the kernel hop observes a device as [`Observed`]; [`diff()`] says what to do as a list of [`Op`]s
//! that the kernel hop executes in order. It gives nothing for what is already right.

mod desired;
mod diff;
mod endpoint;
mod observed;
mod op;
mod order;
mod route;
mod target;
mod touched;

pub use desired::{DEFAULT_MTU, Desired, DeviceSpec, Update};
pub use diff::diff;
pub use endpoint::EndpointMemory;
pub use observed::{Maker, Observed, ObservedPeer, Repaired, Translated};
pub use op::{Op, Prefixes, SetPeer};
pub use route::{Family, Route, Rule, RuleKind, Table};
pub use target::{RejectReason, Rejected};
pub use touched::{Touched, diff_touched};
