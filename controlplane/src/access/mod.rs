//! Who may call what. One table ([`rules`]) says who may call each method, and what is not in it
//! nobody may; one layer ([`AccessLayer`]) stands before every service and asks the store, on every
//! call, whether the caller's record still lives.
//!
//! A certificate is good while a live record has its id *and* its key: there are no revocation
//! lists, and deleting a record is enough.

mod layer;
mod lookup;
mod rules;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use tonic::{Extensions, Status};
use wattle_certs::PeerCertificate;
use wattle_model::{Fingerprint, NetworkName, NodeId, OperatorId, OperatorName, ReplicaId};
use wattle_proto::store;

pub use layer::{Access, AccessLayer};

/// What the listener knows of a connection; tonic puts it into each request's extensions.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// Where it comes from. Unspecified for the local socket.
    pub address: SocketAddr,
    /// The client's certificate, where it presented one.
    pub certificate: Option<Arc<PeerCertificate>>,
    /// It came over the local socket, whose file mode says who may.
    pub local: bool,
}

impl PeerInfo {
    /// A connection over TLS.
    pub const fn remote(address: SocketAddr, certificate: Option<Arc<PeerCertificate>>) -> Self {
        Self { address, certificate, local: false }
    }

    /// A connection over the local socket.
    pub const fn local() -> Self {
        let address = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Self { address, certificate: None, local: true }
    }
}

/// Who calls, once the store has confirmed it. The layer puts it into the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Somebody without a certificate, or calling what needs none.
    Anonymous,
    /// A live node.
    Node {
        /// Its network.
        network: NetworkName,
        /// Its id.
        node: NodeId,
        /// Its certificate's key.
        fingerprint: Fingerprint,
    },
    /// An operator who is neither revoked nor past their time.
    Operator {
        /// Their id.
        id: OperatorId,
        /// Their name.
        name: OperatorName,
        /// What they may do.
        role: Role,
    },
    /// A replica that runs, by the key that its record names.
    Replica(ReplicaId),
    /// Whoever may open the local socket.
    Local,
}

impl Principal {
    /// Who calls, as the layer found it.
    pub fn of(extensions: &Extensions) -> Result<&Self, Status> {
        extensions.get().ok_or_else(|| Status::internal("the call passed no access check"))
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::Node { network, node, .. } => write!(f, "node {network}/{node}"),
            Self::Operator { name, .. } => write!(f, "operator {name}"),
            Self::Replica(id) => write!(f, "replica {id}"),
            Self::Local => f.write_str("local"),
        }
    }
}

/// What an operator may do; each may all that the one before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads everything but secrets.
    Viewer,
    /// Also changes networks, nodes and join tokens.
    Operator,
    /// Also makes and revokes operators.
    Admin,
}

impl Role {
    /// Reads the role of a record.
    pub const fn of(role: store::Role) -> Option<Self> {
        match role {
            store::Role::Viewer => Some(Self::Viewer),
            store::Role::Operator => Some(Self::Operator),
            store::Role::Admin => Some(Self::Admin),
            store::Role::Unspecified => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        })
    }
}
