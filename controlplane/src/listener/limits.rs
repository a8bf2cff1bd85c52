//! What each source and each certificate may take of the port.

use std::net::IpAddr;

use wattle_certs::{Identity, PeerCertificate};
use wattle_model::Fingerprint;

use super::{
    handshakes::Handshakes,
    places::{Place, Places, source},
};

/// Connections that wait for their handshake. Past it the next ones wait in the kernel's queue.
pub(super) const NEWCOMERS: usize = 8192;
/// Of one source; past it they are closed. A whole site may come at once from behind one address.
const NEWCOMERS_OF_SOURCE: usize = 6144;
/// Connections of one source that showed no certificate: machines that join.
const STRANGERS_OF_SOURCE: usize = 2048;
/// Connections with one node's certificate: its stream, the one that replaces it, a call now and
/// then.
const OF_NODE: usize = 16;
/// Connections with one operator's certificate, which pipelines and dashboards may share.
const OF_OPERATOR: usize = 1024;

/// All of one port.
pub(super) struct Limits {
    pub(super) handshakes: Handshakes,
    newcomers: Places<IpAddr>,
    strangers: Places<IpAddr>,
    nodes: Places<Fingerprint>,
    operators: Places<Fingerprint>,
}

/// A connection's place, for as long as it is held.
pub(super) enum Hold {
    /// Its source's.
    Source { _place: Place<IpAddr> },
    /// Its certificate's.
    Certificate { _place: Place<Fingerprint> },
}

impl Limits {
    /// Nobody is there yet.
    pub(super) fn new() -> Self {
        Self {
            handshakes: Handshakes::new(),
            newcomers: Places::new(NEWCOMERS_OF_SOURCE),
            strangers: Places::new(STRANGERS_OF_SOURCE),
            nodes: Places::new(OF_NODE),
            operators: Places::new(OF_OPERATOR),
        }
    }

    /// Somebody connects; `None` where too many of the source haven't shown who they are.
    pub(super) fn newcomer(&self, address: IpAddr) -> Option<Hold> {
        self.newcomers.enter(source(address)).map(|place| Hold::Source { _place: place })
    }

    /// Somebody has shown who they are; `None` where too many of them are there.
    pub(super) fn admit(
        &self,
        address: IpAddr,
        certificate: Option<&PeerCertificate>,
    ) -> Option<Hold> {
        let Some(certificate) = certificate else {
            let place = self.strangers.enter(source(address))?;
            return Some(Hold::Source { _place: place });
        };
        let places = match certificate.id.identity {
            Identity::Node { .. } => &self.nodes,
            Identity::Operator(_) | Identity::Replica(_) => &self.operators,
        };
        places.enter(certificate.fingerprint).map(|place| Hold::Certificate { _place: place })
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use wattle_certs::SpiffeId;
    use wattle_model::{NodeId, OperatorId};

    use super::*;

    fn certificate(n: u8, identity: Identity) -> PeerCertificate {
        PeerCertificate {
            id: SpiffeId { trust_domain: "test.wattle.internal".parse().unwrap(), identity },
            fingerprint: Fingerprint::new([n; 32]),
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH,
            serial: Vec::new(),
        }
    }

    #[test]
    fn a_node_that_opens_a_thousand_connections_has_a_few() {
        let (limits, address) = (Limits::new(), [192, 0, 2, 1].into());
        let node = |n| {
            let network = "default".parse().unwrap();
            certificate(n, Identity::Node { network, node: NodeId::new([n; 16]) })
        };
        let open = |who: &PeerCertificate| {
            (0..1000).map_while(|_| limits.admit(address, Some(who))).collect::<Vec<_>>()
        };
        let (first, second) = (open(&node(1)), open(&node(2)));
        assert_eq!((first.len(), second.len()), (OF_NODE, OF_NODE));
        drop(first);
        assert_eq!(open(&node(1)).len(), OF_NODE);
        let operator = certificate(3, Identity::Operator(OperatorId::new([3; 16])));
        assert_eq!(open(&operator).len(), 1000, "a dashboard may have many");
    }
}
