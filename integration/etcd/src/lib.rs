//! etcd for tests: clusters of real members on loopback, started, killed, frozen and stopped here.
//!
//! Two versions: Debian's 3.4, the oldest that is supported, and 3.6, which is recommended and built
//! from `main.go` beside this folder. `scripts/tools.sh etcd` installs both.

mod cluster;
mod member;
mod ports;
mod version;

pub use self::{
    cluster::{EtcdCluster, Tls},
    member::Member,
    ports::free_addresses,
    version::Version,
};
