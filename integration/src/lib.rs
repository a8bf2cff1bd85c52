//! The harness of the end-to-end tests and the demo: hosts in network namespaces, the product's
//! real binaries in them, and pings between them.
//!
//! Everything it makes carries this process's id in its name and is removed when its guard drops.

mod cluster;
pub mod ha;
mod host;
mod inside;
mod interrupt;
mod ping;
mod process;
mod site;

pub use cluster::{Agent, Cluster, ControlPlane, Settings};
pub use host::{Host, Underlay};
pub use inside::Inside;
pub use interrupt::{catch_interrupts, wait_until};
pub use ping::{Flow, Lost, ping, ping_every_pair};
pub use process::{Process, binary, run};
pub use site::{Nat, Site};
