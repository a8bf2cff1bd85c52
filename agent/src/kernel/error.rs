//! Why the data plane can't do its work, and what a person can do about it.

use std::io;

use super::capability::may_configure_networks;

/// The data plane can't be opened, read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Not allowed to.
    #[error(
        "not permitted to configure interface {interface}: {lack}. Run the agent as root, or give it \
         that one capability: AmbientCapabilities=CAP_NET_ADMIN in its systemd unit, `setcap \
         cap_net_admin+ep` on its binary, --cap-add NET_ADMIN for its container"
    )]
    NotPermitted {
        /// The agent's interface.
        interface: String,
        /// Which capability it hasn't.
        lack: &'static str,
    },
    /// `--dataplane kernel` on a kernel without WireGuard.
    #[error(
        "the kernel has no WireGuard: load its module (modprobe wireguard) or choose --dataplane \
         userspace"
    )]
    NoWireGuard,
    /// The userspace device has nothing to read packets from.
    #[error(
        "/dev/net/tun can't be opened ({0}): load the tun module (modprobe tun), or hand the device \
         to the agent's container"
    )]
    NoTun(io::Error),
    /// Something else has the name.
    #[error(
        "interface {interface} exists and isn't ours: {why}. Remove it (ip link delete {interface}) \
         or choose another name with --interface"
    )]
    NotOurs {
        /// The interface.
        interface: String,
        /// What tells it isn't.
        why: String,
    },
    /// The device's private key is none.
    #[error("the device's private key is damaged: {0}")]
    Key(wattle_model::InvalidKey),
    /// A name that Linux wouldn't take.
    #[error("{0:?} is no interface name: 1 to 15 characters, no '/' and no spaces")]
    InvalidName(String),
    /// Somebody took the interface away.
    #[error("interface {interface} is gone: somebody removed it")]
    Gone {
        /// The interface.
        interface: String,
    },
    /// The device can't listen there.
    #[error(
        "UDP port {port} can't be listened on ({source}): free it or choose another with --listen-port"
    )]
    Port {
        /// Which.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// Anything else that the system refused.
    #[error("interface {interface}: {doing}: {source}")]
    System {
        /// The interface.
        interface: String,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl KernelError {
    /// What the system refused while `doing` something to `interface`.
    pub(crate) fn system(interface: &str, doing: &'static str, source: io::Error) -> Self {
        let interface = interface.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => {
                let lack = if may_configure_networks() {
                    "it has CAP_NET_ADMIN, but not over this network namespace"
                } else {
                    "it lacks CAP_NET_ADMIN"
                };
                Self::NotPermitted { interface, lack }
            }
            _ => Self::System { interface, doing, source },
        }
    }
}
