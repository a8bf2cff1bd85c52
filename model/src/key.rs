//! WireGuard keys. A private key has no `Display`, its `Debug` shows nothing, and it is wiped when
//! dropped; it is a different type from a public one, so that it can't be sent by mistake.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes or text that aren't a WireGuard key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Not 32 bytes.
    #[error("a WireGuard key has 32 bytes, got {0}")]
    Length(usize),
    /// Not base64 of 32 bytes.
    #[error("a WireGuard key is 44 characters of base64")]
    Base64,
    /// All bytes are zero, which WireGuard reads as "no key".
    #[error("a WireGuard key of zeros is no key")]
    Zero,
}

/// A peer's WireGuard public key (Curve25519).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Checks and wraps 32 bytes.
    pub fn new(bytes: [u8; 32]) -> Result<Self, InvalidKey> {
        if bytes == [0; 32] { Err(InvalidKey::Zero) } else { Ok(Self(bytes)) }
    }

    /// The bytes, as the wire and the kernel carry them.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<&[u8]> for PublicKey {
    type Error = InvalidKey;

    fn try_from(bytes: &[u8]) -> Result<Self, InvalidKey> {
        Self::new(bytes.try_into().map_err(|_| InvalidKey::Length(bytes.len()))?)
    }
}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let bytes = STANDARD.decode(text).map_err(|_| InvalidKey::Base64)?;
        Self::try_from(bytes.as_slice())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// A machine's own WireGuard private key. It never leaves the machine.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey([u8; 32]);

impl PrivateKey {
    /// Wraps 32 bytes that a cryptographic generator made.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret bytes, for the data plane and the identity file only.
    pub const fn expose_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_never_prints() {
        let shown = format!("{:?}", PrivateKey::new([7; 32]));
        assert_eq!(shown, "PrivateKey(redacted)");
    }

    #[test]
    fn public_keys_round_trip_and_refuse_zero() {
        let key = PublicKey::new([9; 32]).unwrap();
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(PublicKey::new([0; 32]), Err(InvalidKey::Zero));
        assert_eq!(PublicKey::try_from([1; 31].as_slice()), Err(InvalidKey::Length(31)));
    }
}
