//! Who a certificate is for: a SPIFFE id, the one URI in it.
//!
//! `spiffe://<trust domain>/network/<network>/node/<id>`, `…/controlplane/<id>` or
//! `…/operator/<id>`.

use std::{fmt, str::FromStr};

use wattle_model::{NetworkName, NodeId, OperatorId, ReplicaId};

/// One control plane's name for itself, in all its certificates.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TrustDomain(Box<str>);

/// Text that can't be a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a trust domain: 1 to 128 of a-z, 0-9, '.', '-' and '_'")]
pub struct InvalidTrustDomain(String);

/// Whom a certificate speaks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A node's agent.
    Node {
        /// The network it is in.
        network: NetworkName,
        /// Which node.
        node: NodeId,
    },
    /// A control-plane process.
    Replica(ReplicaId),
    /// An operator.
    Operator(OperatorId),
}

/// An identity in a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    /// Whose identity it is.
    pub trust_domain: TrustDomain,
    /// Who.
    pub identity: Identity,
}

/// A URI that isn't one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a Wattle identity")]
pub struct InvalidSpiffeId(String);

const SCHEME: &str = "spiffe://";

impl TrustDomain {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidTrustDomain;

    fn from_str(text: &str) -> Result<Self, InvalidTrustDomain> {
        let inner =
            |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'-' | b'_');
        if (1..=128).contains(&text.len()) && text.bytes().all(inner) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidTrustDomain(shown(text)))
        }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, InvalidSpiffeId> {
        let parsed = text.strip_prefix(SCHEME).and_then(|rest| {
            let (trust_domain, path) = rest.split_once('/')?;
            Some(Self { trust_domain: trust_domain.parse().ok()?, identity: identity(path)? })
        });
        // Ids may be written in capitals; an identity has one spelling only.
        parsed.filter(|id| id.to_string() == text).ok_or_else(|| InvalidSpiffeId(shown(text)))
    }
}

fn identity(path: &str) -> Option<Identity> {
    let parts: Vec<_> = path.split('/').collect();
    Some(match parts.as_slice() {
        ["network", network, "node", node] => {
            Identity::Node { network: network.parse().ok()?, node: node.parse().ok()? }
        }
        ["controlplane", replica] => Identity::Replica(replica.parse().ok()?),
        ["operator", operator] => Identity::Operator(operator.parse().ok()?),
        _ => return None,
    })
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/", self.trust_domain)?;
        match &self.identity {
            Identity::Node { network, node } => write!(f, "network/{network}/node/{node}"),
            Identity::Replica(replica) => write!(f, "controlplane/{replica}"),
            Identity::Operator(operator) => write!(f, "operator/{operator}"),
        }
    }
}

/// An error repeats at most this much of what somebody sent.
fn shown(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_round_trip() {
        let id = "0123456789abcdef0123456789abcdef";
        for path in [
            format!("network/default/node/{id}"),
            format!("controlplane/{id}"),
            format!("operator/{id}"),
        ] {
            let uri = format!("spiffe://wattle-1/{path}");
            assert_eq!(uri.parse::<SpiffeId>().unwrap().to_string(), uri);
        }
    }

    #[test]
    fn other_uris_are_refused() {
        let id = "0123456789abcdef0123456789abcdef";
        for uri in [
            "",
            "spiffe://",
            &format!("https://t/controlplane/{id}"),
            &format!("spiffe:///controlplane/{id}"),
            &format!("spiffe://T/controlplane/{id}"),
            &format!("spiffe://t/controlplane/{}", id.to_uppercase()),
            &format!("spiffe://t/controlplane/{id}/"),
            &format!("spiffe://t/controlplane/{id}?x"),
            &format!("spiffe://t/network/A/node/{id}"),
            &format!("spiffe://t/network/a/node/{id}0"),
            &format!("spiffe://t/replica/{id}"),
        ] {
            assert!(uri.parse::<SpiffeId>().is_err(), "{uri}");
        }
    }
}
