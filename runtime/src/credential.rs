//! The file that makes somebody an operator: who they are, where the control plane is, how to know
//! it. The control plane writes the first one; `wattle operator create` makes more.

use std::{fmt, fs, io, path::Path};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use wattle_model::{OperatorId, OperatorName};
use zeroize::Zeroizing;

use crate::files;

/// An operator's credential, as its file holds it (JSON, mode 0600).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OperatorCredential {
    /// Where the control plane listens, `host:port`, best first.
    pub control_planes: Vec<String>,
    /// The trust domain that a replica's certificate must name.
    pub trust_domain: String,
    /// Root certificates, PEM.
    pub ca_certificates: Vec<String>,
    /// The operator's certificate, PEM.
    pub certificate: String,
    /// The certificate's private key.
    pub private_key: PrivateKeyPem,
    /// The operator's name.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub name: OperatorName,
    /// The operator's id.
    #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
    pub id: OperatorId,
}

/// A private key as PEM: wiped when dropped, never printed.
#[derive(Clone)]
pub struct PrivateKeyPem(Zeroizing<String>);

/// Why a credential file can't be read.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The file isn't there or can't be opened.
    #[error("reading the credential: {0}")]
    Read(#[from] io::Error),
    /// The file holds something else.
    #[error("the credential file is malformed at line {line}, column {column}")]
    Malformed {
        /// Where reading stopped. No more is said: the text around it may be the key.
        line: usize,
        /// The column in that line.
        column: usize,
    },
}

impl OperatorCredential {
    /// Reads a credential file.
    pub fn load(path: &Path) -> Result<Self, CredentialError> {
        let text = Zeroizing::new(fs::read_to_string(path)?);
        serde_json::from_str(&text).map_err(|error| CredentialError::Malformed {
            line: error.line(),
            column: error.column(),
        })
    }

    /// Writes the credential over the file that it came from.
    pub fn replace(&self, path: &Path) -> io::Result<()> {
        let text = Zeroizing::new(serde_json::to_string_pretty(self)?);
        files::write_private(path, text.as_bytes())
    }

    /// Writes a new credential file; `ErrorKind::AlreadyExists` where there is one.
    pub fn create(&self, path: &Path) -> io::Result<()> {
        let text = Zeroizing::new(serde_json::to_string_pretty(self)?);
        files::create_private(path, text.as_bytes())
    }
}

impl PrivateKeyPem {
    /// Wraps the PEM text of a private key.
    pub const fn new(pem: Zeroizing<String>) -> Self {
        Self(pem)
    }

    /// The secret text, for TLS and the credential file only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PrivateKeyPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKeyPem(redacted)")
    }
}

impl Serialize for PrivateKeyPem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PrivateKeyPem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|pem| Self(Zeroizing::new(pem)))
    }
}

fn as_text<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn from_text<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: std::str::FromStr<Err: fmt::Display>,
    D: Deserializer<'de>,
{
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential() -> OperatorCredential {
        OperatorCredential {
            control_planes: vec!["192.0.2.1:7443".into()],
            trust_domain: "wattle-0123".into(),
            ca_certificates: vec!["-----BEGIN CERTIFICATE-----\n".into()],
            certificate: "-----BEGIN CERTIFICATE-----\n".into(),
            private_key: PrivateKeyPem::new(Zeroizing::new("very secret".into())),
            name: "ann".parse().unwrap(),
            id: OperatorId::new([7; 16]),
        }
    }

    #[test]
    fn files_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operator.json");
        credential().create(&path).unwrap();
        let back = OperatorCredential::load(&path).unwrap();
        assert_eq!((back.id, back.name), (credential().id, credential().name));
        assert_eq!(back.private_key.expose(), "very secret");
        assert!(credential().create(&path).is_err(), "it is never overwritten");
        let other = OperatorCredential { name: "bob".parse().unwrap(), ..credential() };
        other.replace(&path).unwrap();
        assert_eq!(OperatorCredential::load(&path).unwrap().name.as_str(), "bob");
    }

    #[test]
    fn the_key_is_in_no_debug_and_no_error() {
        assert!(!format!("{:?}", credential()).contains("very secret"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("operator.json");
        fs::write(&path, r#"{"private_key": "very secret", "name": "Not A Name"}"#).unwrap();
        let error = OperatorCredential::load(&path).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("very secret"), "{error:?}");
    }
}
