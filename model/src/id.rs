//! Fixed-size identifiers and the store's revision. Each is its own type, so that none is ever
//! passed for another; their text form is lower-case hex.

use std::{fmt, str::FromStr};

/// Bytes or text that aren't an identifier of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The number of bytes is wrong.
    #[error("expected {expected} bytes, got {got}")]
    Length {
        /// How many bytes the identifier has.
        expected: usize,
        /// How many were given.
        got: usize,
    },
    /// The text is not lower- or upper-case hex.
    #[error("expected {0} hex digits")]
    Hex(usize),
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Wraps the bytes as they are.
            pub const fn new(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes, as the wire and the store carry them.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl TryFrom<&[u8]> for $name {
            type Error = InvalidId;

            fn try_from(bytes: &[u8]) -> Result<Self, InvalidId> {
                bytes.try_into().map(Self).map_err(|_| InvalidId::Length {
                    expected: $len,
                    got: bytes.len(),
                })
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidId::Hex($len * 2))?;
                Ok(Self(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

id!(
    /// A node: 16 random bytes chosen by the control plane at enrolment, never reused.
    NodeId, 16
);
id!(
    /// A join token's public half: it finds the record; the secret proves the right to use it.
    TokenId, 8
);
id!(
    /// An operator's credential.
    OperatorId, 16
);
id!(
    /// One control-plane process.
    ReplicaId, 16
);
id!(
    /// One run of one agent's state: two machines started from one image differ in it.
    InstanceId, 16
);
id!(
    /// The store's identity: changes when the store was restored, copied or set back.
    Epoch, 16
);
id!(
    /// SHA-256 of a certificate key's SubjectPublicKeyInfo.
    Fingerprint, 32
);

/// The store's revision: one number for the whole control plane, raised by every transaction.
/// Zero is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

impl Revision {
    /// Before every transaction.
    pub const ZERO: Self = Self(0);

    /// The revision after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_round_trip() {
        let id = NodeId::new([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(NodeId::try_from(id.as_bytes().as_slice()), Ok(id));
    }

    #[test]
    fn wrong_lengths_are_named() {
        assert_eq!(
            NodeId::try_from([0; 15].as_slice()),
            Err(InvalidId::Length { expected: 16, got: 15 })
        );
        assert_eq!("xyz".parse::<NodeId>(), Err(InvalidId::Hex(32)));
    }
}
