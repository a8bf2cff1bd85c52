//! Hop 6: the machine's data plane, a WireGuard device with its link and addresses.
//!
//! Executes the plan's operations and reports what is; decides nothing. Never replaces all peers,
//! never recreates a link, never touches what isn't ours. It is the only netlink in the agent. The
//! reconcile loop calls it, through [`Kernel`].

mod capability;
mod dump;
mod error;
#[cfg(any(test, feature = "fake-kernel"))]
pub mod fake;
mod genl;
mod handshakes;
mod host;
mod link;
mod netlink;
mod peer_message;
mod route;
mod rule;
mod userspace;
mod watch;
mod wireguard;

use std::{str::FromStr, time::Duration};

use async_trait::async_trait;
pub use error::KernelError;
pub use host::{Host, Overlap};
use userspace::Userspace;
pub(crate) use watch::{Noticed, Watch};
use wattle_model::{PrivateKey, PublicKey};
use wattle_plan::{Observed, Op};
use wireguard::KernelWireguard;

/// A device that the plan's operations can be executed on.
#[async_trait]
pub trait Kernel: Send {
    /// What the device is now: a fresh dump.
    async fn observe(&mut self) -> Result<Observed, KernelError>;

    /// Executes the operations in order. One that fails doesn't stop the others: it is returned,
    /// and the next look at the device shows what is left to do.
    async fn apply(&mut self, ops: &[Op]) -> Result<Vec<Failed>, KernelError>;

    /// Gives the device another private key, which peers are to know before: all its sessions end. Then
    /// begins a handshake with every peer whose session was younger than `fresh`, and says with how
    /// many: who waits for their next word waits up to 5 s, after a handshake that came too early.
    async fn rekey(&mut self, key: PrivateKey, fresh: Duration) -> Result<usize, KernelError>;

    /// Takes the device away, and all that was made with it. Nothing to remove is no error.
    async fn remove(&mut self) -> Result<(), KernelError>;

    /// What moves the packets.
    fn kind(&self) -> DataPlaneKind;
}

/// An operation that the device refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Its place in the list that was applied.
    pub op: usize,
    /// Why.
    pub reason: String,
}

/// What moves the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataPlaneKind {
    /// The kernel's WireGuard.
    Kernel,
    /// A device inside the agent.
    Userspace,
}

impl DataPlaneKind {
    /// As flags, logs and statuses call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Userspace => "userspace",
        }
    }
}

/// Which data plane to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DataPlaneChoice {
    /// The kernel's; the agent's own only where the kernel has none.
    #[default]
    Auto,
    /// The kernel's, or none.
    Kernel,
    /// The agent's own.
    Userspace,
}

/// Text that names no data plane.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no data plane: auto, kernel or userspace")]
pub struct InvalidDataPlane(String);

impl FromStr for DataPlaneChoice {
    type Err = InvalidDataPlane;

    fn from_str(text: &str) -> Result<Self, InvalidDataPlane> {
        match text {
            "auto" => Ok(Self::Auto),
            "kernel" => Ok(Self::Kernel),
            "userspace" => Ok(Self::Userspace),
            other => Err(InvalidDataPlane(other.to_owned())),
        }
    }
}

/// The device to open.
#[derive(Debug, Clone)]
pub struct Place {
    /// The link's name.
    pub interface: String,
    /// The device's key.
    pub private_key: PrivateKey,
    /// Keys that a link of ours may still have; it is given `private_key` then.
    pub other_keys: Vec<PrivateKey>,
    /// Where it listens; 0 takes any port.
    pub listen_port: u16,
    /// The mark on its own packets, which also numbers its routing table and rules.
    pub mark: u32,
}

/// Opens the data plane: adopts the kernel's link if it is there and has this key, makes it if not.
/// The link has no address and isn't up until the plan says so.
pub async fn open(choice: DataPlaneChoice, place: &Place) -> Result<Box<dyn Kernel>, KernelError> {
    if choice != DataPlaneChoice::Userspace {
        match KernelWireguard::open(place).await {
            Err(KernelError::NoWireGuard) if choice == DataPlaneChoice::Auto => {
                tracing::warn!(
                    interface = place.interface,
                    "the kernel has no WireGuard: packets are moved by the agent itself, slower, and \
                     not while it restarts. Load the module (modprobe wireguard) to change that"
                );
            }
            result => return Ok(Box::new(result?)),
        }
    }
    Ok(Box::new(Userspace::open(place).await?))
}

/// The key of the link that is there, where it is the kernel's WireGuard.
pub(crate) async fn present_key(place: &Place) -> Option<PublicKey> {
    KernelWireguard::present_key(place).await
}

/// Takes away the rules of a device that is gone itself.
pub(crate) async fn remove_rules(place: &Place) -> Result<(), KernelError> {
    link::Link::new(&place.interface, place.mark)?.remove_rules().await
}
