//! This machine's WireGuard key: made here, and never sent anywhere.

use wattle_model::{InvalidKey, PrivateKey, PublicKey};
use x25519_dalek::StaticSecret;

/// A new key from the operating system's generator.
pub(crate) fn generate() -> PrivateKey {
    PrivateKey::new(StaticSecret::from(rand::random::<[u8; 32]>()).to_bytes())
}

/// The public half. An error means that the private half was damaged.
pub(crate) fn public(key: &PrivateKey) -> Result<PublicKey, InvalidKey> {
    let secret = StaticSecret::from(*key.expose_bytes());
    PublicKey::new(x25519_dalek::PublicKey::from(&secret).to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From RFC 7748, section 5.2: the base point multiplied by nine.
    #[test]
    fn the_public_half_is_curve25519_s() {
        let mut nine = [0; 32];
        nine[0] = 9;
        let public = public(&PrivateKey::new(nine)).unwrap();
        let expected = "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079";
        assert_eq!(hex::encode(public.as_bytes()), expected);
    }

    #[test]
    fn no_two_keys_are_the_same() {
        assert_ne!(generate(), generate());
    }
}
