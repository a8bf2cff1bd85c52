//! `status`: what the running agent says of itself over a local socket, and how it is printed.

pub(crate) mod document;
pub(crate) mod socket;
mod table;

use std::{net::IpAddr, time::UNIX_EPOCH};

use tokio::sync::watch;
use wattle_model::PeerSpec;
use wattle_plan::Observed;

use self::document::{DataPlane, Document, Node, Peer, PresharedKeys, Session, Set};
pub(crate) use self::table::print;
use crate::{
    reconcile::{Mesh, MeshStatus},
    session::SessionStatus,
    state::identity::{Identity, SharedIdentity},
};

/// Where the answers come from. Reads only.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    /// Who this machine is.
    pub(crate) identity: SharedIdentity,
    /// How the session stands.
    pub(crate) session: watch::Receiver<SessionStatus>,
    /// The device.
    pub(crate) mesh: Mesh,
    /// The device's name.
    pub(crate) interface: String,
}

impl Sources {
    /// How the agent stands now. A device that can't be read is an error in it, not of it.
    pub(crate) async fn document(&self) -> Document {
        let identity = self.identity.get();
        let described = match self.mesh.describe().await {
            Ok(Ok(description)) => Ok(description),
            Ok(Err(error)) => Err(error.to_string()),
            Err(stopped) => Err(stopped.to_string()),
        };
        let mesh = self.mesh.status().borrow().clone();
        let session = self.session.borrow().clone();
        let (peers, observed, error) = match described {
            Ok(description) => {
                (peers(&description.peers, &description.observed), description.observed, None)
            }
            Err(error) => (Vec::new(), Observed::default(), Some(error)),
        };
        Document {
            version: env!("CARGO_PKG_VERSION").into(),
            node: node(&identity),
            set: set(&session, &mesh),
            session: session_of(session),
            data_plane: DataPlane {
                kind: mesh.kind.as_str().into(),
                interface: self.interface.clone(),
                public_key: self.mesh.public_key().to_string(),
                listen_port: mesh.listen_port,
                mtu: mesh.mtu,
                mtu_from: mesh.mtu_from.as_str().into(),
                repairs: mesh.repairs.into_iter().map(|(kind, n)| (kind.into(), n)).collect(),
                errors: mesh.errors.into_iter().chain(error).collect(),
            },
            preshared_keys: PresharedKeys {
                on: identity.secrets.is_on(),
                generation: identity.secrets.newest().0,
                announced: identity.secrets.used().0,
                peers: observed.peers.values().filter(|peer| !peer.preshared.is_none()).count(),
            },
            peers,
        }
    }
}

fn node(identity: &Identity) -> Node {
    let settings = &identity.settings;
    let not_after = wattle_certs::peer_identity(&identity.certificate)
        .map_or(UNIX_EPOCH, |certificate| certificate.not_after);
    Node {
        id: identity.node_id.to_string(),
        name: settings.name.to_string(),
        network: settings.network.to_string(),
        trust_domain: identity.trust_domain.to_string(),
        addresses: settings.addresses.on_interface().iter().map(ToString::to_string).collect(),
        observed_endpoint: settings.observed.map(|endpoint| endpoint.to_string()),
        certificate_not_after: not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
    }
}

fn set(session: &SessionStatus, mesh: &MeshStatus) -> Set {
    Set {
        epoch: session.epoch.map(|epoch| epoch.to_string()),
        revision: mesh.applied.0,
        verified_revision: mesh.verified.0,
        digest: session.digest.to_string(),
        error: session.disk_error.clone(),
    }
}

fn session_of(session: SessionStatus) -> Session {
    Session {
        state: session.state.as_str().into(),
        control_plane: session.control_plane,
        replica: session.replica.map(|replica| replica.to_string()),
        error: session.error,
        full_sets: session.full_sets,
        resyncs: session.resyncs,
    }
}

fn peers(desired: &[PeerSpec], observed: &Observed) -> Vec<Peer> {
    let mut peers: Vec<Peer> = desired
        .iter()
        .map(|peer| {
            let seen = observed.peers.get(&peer.public_key).cloned().unwrap_or_default();
            let addresses = peer.ipv4.map(IpAddr::V4).into_iter();
            Peer {
                id: peer.node.to_string(),
                name: peer.name.to_string(),
                public_key: peer.public_key.to_string(),
                addresses: addresses
                    .chain(peer.ipv6.map(IpAddr::V6))
                    .map(|address| address.to_string())
                    .collect(),
                endpoint: seen.endpoint.map(|endpoint| endpoint.to_string()),
                last_handshake_seconds: seen.last_handshake.map(|age| age.as_secs()),
                rx_bytes: seen.rx_bytes,
                tx_bytes: seen.tx_bytes,
            }
        })
        .collect();
    peers.sort_by(|a, b| a.name.cmp(&b.name));
    peers
}
