//! Which etcd, and how to reach it: checked where it is parsed.

use std::{fmt, fs, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// How to reach an etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// Its members; one at least, all with TLS or none.
    pub endpoints: Vec<EtcdAddress>,
    /// Before every key.
    pub prefix: EtcdPrefix,
    /// For `https` members.
    pub tls: Option<TlsFiles>,
    /// Where etcd asks for a user.
    pub user: Option<EtcdUser>,
}

impl fmt::Display for EtcdConfig {
    /// Where it is, for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints: Vec<_> = self.endpoints.iter().map(ToString::to_string).collect();
        write!(f, "etcd under {} at {}", self.prefix, endpoints.join(", "))
    }
}

/// PEM files. They are read at every connection: who replaces them restarts nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates that etcd's is verified with.
    pub ca: PathBuf,
    /// The client's certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A user of etcd's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdUser {
    /// Its name.
    pub name: String,
    /// Where its password is. It is read whenever etcd is to be signed in to.
    pub password_file: PathBuf,
}

impl EtcdUser {
    /// The password that its file holds; an error names the file.
    pub fn password(&self) -> Result<Zeroizing<String>, String> {
        let file = self.password_file.display();
        let text = fs::read_to_string(&self.password_file).map(Zeroizing::new);
        let text = text.map_err(|error| format!("{file}: {error}"))?;
        let password = text.trim_end_matches(['\r', '\n']);
        match password.is_empty() {
            true => Err(format!("{file} is empty")),
            false => Ok(Zeroizing::new(password.to_owned())),
        }
    }
}

/// A member's client URL: `https://host:2379`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EtcdAddress {
    tls: bool,
    host: String,
    port: u16,
}

impl EtcdAddress {
    /// Whether it speaks TLS.
    pub const fn tls(&self) -> bool {
        self.tls
    }

    /// Its host, for TLS to verify: a name or an address.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// `host:port`, as one dials it.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for EtcdAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no client URL of etcd such as https://10.0.0.1:2379");
        let uri: http::Uri = text.parse().map_err(|_| bad())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad()),
        };
        let plain = matches!(uri.path(), "" | "/") && uri.query().is_none();
        let authority = uri.authority().filter(|a| plain && !a.as_str().contains('@'));
        let authority = authority.ok_or_else(bad)?;
        let port = authority.port_u16().filter(|port| *port > 0).ok_or_else(bad)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        Ok(Self { tls, host: host.to_owned(), port })
    }
}

impl fmt::Display for EtcdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

impl TryFrom<String> for EtcdAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<EtcdAddress> for String {
    fn from(address: EtcdAddress) -> Self {
        address.to_string()
    }
}

/// What every key begins with, so that an etcd can be shared: `/wattle/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EtcdPrefix(String);

impl EtcdPrefix {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for EtcdPrefix {
    fn default() -> Self {
        Self("/wattle/".to_owned())
    }
}

impl FromStr for EtcdPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Ending with a slash, and as ours begin with `v1/`, no prefix is the beginning of another one's
        // keys.
        let good = text.ends_with('/')
            && text.len() <= 200
            && text.bytes().all(|c| c.is_ascii_graphic())
            && text.split('/').all(|part| part != "v1");
        if good {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "{text:?} is no prefix such as /wattle/: visible ASCII, at most 200 of them, with a slash at \
             the end and no part that is v1"
        ))
    }
}

impl fmt::Display for EtcdPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for EtcdPrefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<EtcdPrefix> for String {
    fn from(prefix: EtcdPrefix) -> Self {
        prefix.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_urls_of_members() {
        for (text, host) in
            [("https://etcd-0.etcd:2379", "etcd-0.etcd"), ("http://[::1]:5/", "::1")]
        {
            let address: EtcdAddress = text.parse().unwrap();
            assert_eq!(address.host(), host);
            assert_eq!(address.to_string(), text.trim_end_matches('/'));
        }
        for bad in [
            "etcd:2379",
            "10.0.0.1",
            "https://etcd",
            "https://etcd:0",
            "ftp://etcd:1",
            "http://e:1/x",
            "http://user@e:1",
            "",
        ] {
            assert!(bad.parse::<EtcdAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_prefix_ends_with_a_slash() {
        for good in ["/a/b/", "/", "/v10/"] {
            assert_eq!(good.parse::<EtcdPrefix>().unwrap().as_str(), good);
        }
        for bad in ["", "/wattle", "/a b/", "/ä/", "/wattle/v1/", "v1/", "/a/v1/b/"] {
            assert!(bad.parse::<EtcdPrefix>().is_err(), "{bad}");
        }
    }
}
