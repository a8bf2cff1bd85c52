//! How the identity file writes keys, secrets and certificates: PEM for TLS, base64 for WireGuard, as
//! the tools that an administrator knows do. Reading names no part of what it read: it is secret.

use rustls_pki_types::CertificateDer;

fn certificate_from_pem(text: &str) -> Result<CertificateDer<'static>, &'static str> {
    let certificates = wattle_certs::certificates_from_pem(text);
    certificates.ok().and_then(|mut all| all.pop()).ok_or("not a PEM certificate")
}

/// The node's TLS private key.
pub(crate) mod tls_key {
    use std::sync::Arc;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use wattle_certs::KeyPair;
    use zeroize::Zeroizing;

    pub(crate) fn serialize<S: Serializer>(key: &Arc<KeyPair>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&key.to_pem())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Arc<KeyPair>, D::Error> {
        let pem = Zeroizing::new(String::deserialize(from)?);
        let key = KeyPair::from_pem(&pem).map_err(|_| D::Error::custom("not a PEM private key"))?;
        Ok(Arc::new(key))
    }
}

/// The node's WireGuard private key.
pub(crate) mod wireguard_key {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use wattle_model::PrivateKey;
    use zeroize::Zeroizing;

    pub(crate) fn serialize<S: Serializer>(key: &PrivateKey, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&Zeroizing::new(STANDARD.encode(key.expose_bytes())))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PrivateKey, D::Error> {
        read(&Zeroizing::new(String::deserialize(from)?)).map_err(D::Error::custom)
    }

    fn read(text: &str) -> Result<PrivateKey, &'static str> {
        let bytes = STANDARD.decode(text.as_bytes()).map(Zeroizing::new).ok();
        let key = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
        key.map(PrivateKey::new).ok_or("not the base64 of a WireGuard key")
    }

    /// One that may be absent.
    pub(crate) mod option {
        use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
        use wattle_model::PrivateKey;
        use zeroize::Zeroizing;

        pub(crate) fn serialize<S: Serializer>(
            key: &Option<PrivateKey>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            match key {
                Some(key) => super::serialize(key, to),
                None => to.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<PrivateKey>, D::Error> {
            let text = Option::<String>::deserialize(from)?.map(Zeroizing::new);
            text.map(|text| super::read(&text)).transpose().map_err(D::Error::custom)
        }
    }
}

/// A network's secret, which may be absent.
pub(crate) mod network_secret {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use wattle_model::NetworkSecret;
    use zeroize::Zeroizing;

    pub(crate) fn serialize<S: Serializer>(
        secret: &Option<NetworkSecret>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match secret {
            Some(secret) => {
                to.serialize_str(&Zeroizing::new(STANDARD.encode(secret.expose_bytes())))
            }
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<NetworkSecret>, D::Error> {
        let text = Option::<String>::deserialize(from)?.map(Zeroizing::new);
        text.map(|text| {
            let bytes = STANDARD.decode(text.as_bytes()).map(Zeroizing::new).ok();
            let secret = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
            let secret = secret.map(NetworkSecret::new);
            secret.ok_or_else(|| D::Error::custom("not the base64 of a network's secret"))
        })
        .transpose()
    }
}

/// A certificate.
pub(crate) mod certificate {
    use rustls_pki_types::CertificateDer;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(
        certificate: &CertificateDer<'static>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&wattle_certs::certificate_to_pem(certificate))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<CertificateDer<'static>, D::Error> {
        super::certificate_from_pem(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// Several certificates.
pub(crate) mod certificates {
    use rustls_pki_types::CertificateDer;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn serialize<S: Serializer>(
        certificates: &[CertificateDer<'static>],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(certificates.iter().map(wattle_certs::certificate_to_pem))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<CertificateDer<'static>>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        let parsed = texts.iter().map(|text| super::certificate_from_pem(text));
        parsed.collect::<Result<_, _>>().map_err(D::Error::custom)
    }
}
