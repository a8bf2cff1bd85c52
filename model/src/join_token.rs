//! Join tokens: one string that tells a machine where the control plane is, how to know it, and
//! proves that the machine may enrol.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{Fingerprint, TokenId};

/// Text that isn't a whole join token. It never repeats the text: that holds a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidJoinToken {
    /// It doesn't begin as a join token does.
    #[error("not a Wattle join token: it should begin with \"wattle1_\"")]
    Prefix,
    /// Characters are missing or changed.
    #[error("the join token is damaged or cut short: copy the whole of it")]
    Damaged,
}

/// The secret half of a join token. The control plane keeps only its hash.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct TokenSecret([u8; 32]);

impl TokenSecret {
    /// Wraps 32 bytes that a cryptographic generator made.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret itself, for the enrolment request only.
    pub const fn expose_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// SHA-256, which the store keeps. No salt or stretching: the secret is 256 random bits.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }

    /// Whether this is the secret behind `hash`, in constant time.
    pub fn matches(&self, hash: &[u8; 32]) -> bool {
        self.hash().ct_eq(hash).into()
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(redacted)")
    }
}

/// A join token, taken apart. Its `Debug` hides the secret; [`JoinToken::expose`] is the string.
#[derive(Debug, Clone)]
pub struct JoinToken {
    /// Which token it is.
    pub id: TokenId,
    /// Proves the right to use it.
    pub secret: TokenSecret,
    /// SHA-256 of the root certificate's SPKI: how to know the control plane.
    pub pin: Fingerprint,
    /// Where the control plane listens: `host:port`, best first.
    pub addresses: Vec<String>,
}

const PREFIX: &str = "wattle1_";
const CHECKSUM: usize = 4;

impl JoinToken {
    /// The string to hand to a machine. Whoever has it can enrol.
    pub fn expose(&self) -> String {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(self.id.as_bytes());
        bytes.extend_from_slice(self.secret.expose_bytes());
        bytes.extend_from_slice(self.pin.as_bytes());
        bytes.extend_from_slice(self.addresses.join(",").as_bytes());
        let sum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&sum[..CHECKSUM]);
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes));
        bytes.zeroize();
        text
    }
}

impl FromStr for JoinToken {
    type Err = InvalidJoinToken;

    fn from_str(text: &str) -> Result<Self, InvalidJoinToken> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(InvalidJoinToken::Prefix)?;
        let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_| InvalidJoinToken::Damaged)?;
        let (bytes, sum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(InvalidJoinToken::Damaged)?;
        if Sha256::digest(bytes)[..CHECKSUM] != *sum {
            return Err(InvalidJoinToken::Damaged);
        }
        let parts = bytes.split_first_chunk::<8>().and_then(|(id, rest)| {
            let (secret, rest) = rest.split_first_chunk::<32>()?;
            let (pin, addresses) = rest.split_first_chunk::<32>()?;
            Some((id, secret, pin, str::from_utf8(addresses).ok()?))
        });
        let (id, secret, pin, addresses) = parts.ok_or(InvalidJoinToken::Damaged)?;
        if addresses.is_empty() {
            return Err(InvalidJoinToken::Damaged);
        }
        Ok(Self {
            id: TokenId::new(*id),
            secret: TokenSecret::new(*secret),
            pin: Fingerprint::new(*pin),
            addresses: addresses.split(',').map(str::to_owned).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> JoinToken {
        JoinToken {
            id: TokenId::new([1; 8]),
            secret: TokenSecret::new([2; 32]),
            pin: Fingerprint::new([3; 32]),
            addresses: vec!["192.0.2.1:7443".into(), "[2001:db8::1]:7443".into()],
        }
    }

    #[test]
    fn round_trips() {
        let back: JoinToken = token().expose().parse().unwrap();
        assert_eq!(
            (back.id, back.pin, back.addresses),
            (token().id, token().pin, token().addresses)
        );
        assert!(back.secret.matches(&token().secret.hash()));
    }

    #[test]
    fn every_cut_and_every_changed_character_is_noticed() {
        let text = token().expose();
        for cut in 0..text.len() {
            assert!(text[..cut].parse::<JoinToken>().is_err(), "cut at {cut}");
        }
        for i in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[i] = if changed[i] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(changed.parse::<JoinToken>().is_err(), "changed at {i}");
        }
    }

    #[test]
    fn debug_hides_the_secret() {
        let shown = format!("{:?}", token());
        assert!(shown.contains("redacted") && !shown.contains("2, 2"));
    }
}
