//! A network's secret, and the preshared keys that its nodes derive of it: both ends of a pair by
//! themselves, so that none is ever sent or kept.
//!
//! A pair uses the newest secret that both ends hold, by what their entries say. Neither a secret nor a
//! key has a `Display`, their `Debug` shows nothing, and they are wiped when dropped.

use std::{collections::BTreeMap, fmt};

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{NodeId, PeerSpec};

/// Keeps these keys apart from whatever else may be derived of the secret.
const PURPOSE: &[u8] = b"wattle psk v1";

/// Which of a network's secrets: later ones are higher. Turning preshared keys off makes one, too, without
/// a secret: so nodes come to it pair by pair, as to any other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl Generation {
    /// No secret: pairs have no preshared key.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What all nodes of a network know, and nobody else but the control plane.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct NetworkSecret([u8; 32]);

impl NetworkSecret {
    /// Wraps 32 bytes that a cryptographic generator made.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret bytes, for the store, the stream and the agent's identity file only.
    pub const fn expose_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The preshared key of two nodes, the same at both ends. It is theirs by their ids and not by their
    /// WireGuard keys: so it stays what it is while one of them changes its key.
    pub fn preshared_key(&self, one: NodeId, other: NodeId) -> PresharedKey {
        let (low, high) = if one < other { (one, other) } else { (other, one) };
        let mut key = PresharedKey::NONE;
        Hkdf::<Sha256>::new(None, &self.0)
            .expand_multi_info(&[PURPOSE, low.as_bytes(), high.as_bytes()], &mut key.0)
            .expect("HKDF-SHA256 gives up to 8,160 bytes");
        key
    }
}

impl fmt::Debug for NetworkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkSecret(redacted)")
    }
}

/// What WireGuard mixes into a pair's next handshake, beside their keys. Zeros are none, as for
/// WireGuard itself.
#[derive(Clone, PartialEq, Eq, Default, Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey([u8; 32]);

impl PresharedKey {
    /// None.
    pub const NONE: Self = Self([0; 32]);

    /// Wraps what a device says.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret bytes, for the data plane only.
    pub const fn expose_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_none() { "PresharedKey(none)" } else { "PresharedKey(redacted)" })
    }
}

/// What one node knows of its network's secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// The newest that its own entry says that it holds. Its peers go by that, and so does it.
    pub used: Generation,
    /// Those that it holds, as far as they have a secret.
    pub known: BTreeMap<Generation, NetworkSecret>,
}

impl Secrets {
    /// The generation that this node uses with a peer: the lower of what their two entries say, so both
    /// ends come to the same.
    pub fn common(&self, peer: &PeerSpec) -> Generation {
        self.used.min(peer.secret_generation)
    }

    /// The preshared key of this node, `own`, and a peer; none where the two go by a generation without a
    /// secret, or this node lacks it.
    pub fn preshared_key(&self, own: NodeId, peer: &PeerSpec) -> PresharedKey {
        let secret = self.known.get(&self.common(peer));
        secret.map_or(PresharedKey::NONE, |secret| secret.preshared_key(own, peer.node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PublicKey;

    const LOW: NodeId = NodeId::new([1; 16]);
    const HIGH: NodeId = NodeId::new([0xfe; 16]);

    fn secret(first: u8) -> NetworkSecret {
        NetworkSecret::new(std::array::from_fn(|at| first + u8::try_from(at).unwrap()))
    }

    fn peer(node: NodeId, generation: u64) -> PeerSpec {
        PeerSpec {
            node,
            name: "a".parse().unwrap(),
            public_key: PublicKey::new([2; 32]).unwrap(),
            next_public_key: None,
            ipv4: Some([10, 90, 0, 1].into()),
            ipv6: None,
            endpoints: vec![],
            secret_generation: Generation(generation),
        }
    }

    fn holding(used: u64, known: &[u8]) -> Secrets {
        let known = known.iter().map(|n| (Generation((*n).into()), secret(*n))).collect();
        Secrets { used: Generation(used), known }
    }

    /// Computed with Python's hmac: extract with 32 zeros as salt, then one block.
    #[test]
    fn a_key_is_hkdf_of_the_secret_and_the_ids_in_order() {
        let expected = "dbaa1a68899c817c988ad61e2d8755a111f95261d49b4521108b871a687924d1";
        for (one, other) in [(LOW, HIGH), (HIGH, LOW)] {
            let key = secret(0).preshared_key(one, other);
            assert_eq!(hex::encode(key.expose_bytes()), expected);
        }
    }

    #[test]
    fn each_pair_and_each_secret_has_a_key_of_its_own() {
        let third = NodeId::new([7; 16]);
        let keys = [
            secret(0).preshared_key(LOW, HIGH),
            secret(0).preshared_key(LOW, third),
            secret(0).preshared_key(third, HIGH),
            secret(1).preshared_key(LOW, HIGH),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!key.is_none() && !keys[..at].contains(key));
        }
    }

    /// Whatever the two hold and say, both ends come to one key as long as each holds what it says.
    #[test]
    fn both_ends_use_the_newest_that_both_hold() {
        for (ours, theirs, common) in
            [(0, 0, 0), (0, 2, 0), (2, 0, 0), (1, 2, 1), (2, 1, 1), (2, 2, 2)]
        {
            let (here, there) = (holding(ours, &[1, 2]), holding(theirs, &[1, 2]));
            assert_eq!(here.common(&peer(HIGH, theirs)), Generation(common));
            let key = here.preshared_key(LOW, &peer(HIGH, theirs));
            assert_eq!(key, there.preshared_key(HIGH, &peer(LOW, ours)));
            let expected = match u8::try_from(common).unwrap() {
                0 => PresharedKey::NONE,
                n => secret(n).preshared_key(LOW, HIGH),
            };
            assert_eq!(key, expected);
        }
        assert!(holding(2, &[1]).preshared_key(LOW, &peer(HIGH, 2)).is_none());
    }

    #[test]
    fn neither_ever_prints() {
        let key = secret(0).preshared_key(LOW, HIGH);
        let shown = format!("{:?} {key:?} {:?}", secret(0), PresharedKey::NONE);
        assert_eq!(shown, "NetworkSecret(redacted) PresharedKey(redacted) PresharedKey(none)");
    }
}
