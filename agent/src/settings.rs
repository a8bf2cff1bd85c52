//! What the control plane tells this node about itself: its Config message, checked. The first
//! comes with the enrolment, later ones on the stream.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use wattle_model::{
    Endpoint, InvalidAddress, InvalidMtu, Mtu, NetworkName, NodeName, address_from_bytes,
};
use wattle_proto::{Invalid as _, InvalidField, entry, sync};

use crate::state::text;

/// The node's own part of the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// The network it is in.
    #[serde(with = "text")]
    pub(crate) network: NetworkName,
    /// Its name there.
    #[serde(with = "text")]
    pub(crate) name: NodeName,
    /// Its overlay addresses and the ranges they are from.
    #[serde(flatten)]
    pub(crate) addresses: Addresses,
    /// Where the control plane listens, `host:port`.
    pub(crate) control_planes: Vec<String>,
    /// Where the control plane sees this machine, with its listen port.
    #[serde(default)]
    pub(crate) observed: Option<SocketAddr>,
    /// The MTU of the network's links, in bytes, where the path isn't to decide.
    #[serde(default)]
    pub(crate) mtu: Option<u32>,
}

/// Overlay addresses and the network's ranges, by family.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Addresses {
    /// The node's own.
    pub(crate) ipv4: Option<Ipv4Addr>,
    /// The node's own.
    pub(crate) ipv6: Option<Ipv6Addr>,
    /// The network's.
    #[serde(default, with = "text::option")]
    pub(crate) ipv4_range: Option<Ipv4Net>,
    /// The network's.
    #[serde(default, with = "text::option")]
    pub(crate) ipv6_range: Option<Ipv6Net>,
}

impl Addresses {
    /// The node's addresses as an interface carries them: with the length of the network's range,
    /// so that the kernel routes the whole range into it.
    pub(crate) fn on_interface(&self) -> Vec<IpNet> {
        let v4 = self.ipv4.zip(self.ipv4_range).map(|(a, range)| (a.into(), range.prefix_len()));
        let v6 = self.ipv6.zip(self.ipv6_range).map(|(a, range)| (a.into(), range.prefix_len()));
        let net = |(address, length): (IpAddr, u8)| {
            IpNet::new(address, length).expect("a range's length fits its own family")
        };
        v4.into_iter().chain(v6).map(net).collect()
    }

    /// The network's ranges.
    pub(crate) fn ranges(&self) -> Vec<IpNet> {
        let v4 = self.ipv4_range.map(IpNet::V4);
        v4.into_iter().chain(self.ipv6_range.map(IpNet::V6)).collect()
    }
}

impl TryFrom<&sync::Config> for Settings {
    type Error = InvalidField;

    fn try_from(config: &sync::Config) -> Result<Self, InvalidField> {
        let observed = (!config.observed_endpoint.is_empty())
            .then(|| Endpoint::try_from(config.observed_endpoint.as_ref()));
        Ok(Self {
            network: config.network.parse().field("config.network")?,
            name: config.node_name.parse().field("config.node_name")?,
            addresses: addresses(config)?,
            control_planes: config.control_planes.clone(),
            observed: observed
                .transpose()
                .field("config.observed_endpoint")?
                .map(|endpoint| endpoint.socket_addr()),
            mtu: mtu(config).field("config.mtu")?,
        })
    }
}

/// One that would take IPv6 away from the link is refused.
fn mtu(config: &sync::Config) -> Result<Option<u32>, InvalidMtu> {
    let mtu = Mtu::wished(config.mtu)?;
    if let (Some(mtu), false) = (mtu, config.ipv6.is_empty()) {
        mtu.check_ipv6()?;
    }
    Ok(mtu.map(Mtu::bytes))
}

/// Reads addresses and ranges alone: all that the answer to a validation has.
pub(crate) fn addresses(config: &sync::Config) -> Result<Addresses, InvalidField> {
    let ipv4_range = match prefix(config.ipv4_range.as_ref()).field("config.ipv4_range")? {
        None => None,
        Some(IpNet::V4(range)) => Some(range.trunc()),
        Some(IpNet::V6(_)) => return Err("an IPv6 range").field("config.ipv4_range"),
    };
    let ipv6_range = match prefix(config.ipv6_range.as_ref()).field("config.ipv6_range")? {
        None => None,
        Some(IpNet::V6(range)) => Some(range.trunc()),
        Some(IpNet::V4(_)) => return Err("an IPv4 range").field("config.ipv6_range"),
    };
    Ok(Addresses {
        ipv4: entry::ipv4(&config.ipv4).field("config.ipv4")?,
        ipv6: entry::ipv6(&config.ipv6).field("config.ipv6")?,
        ipv4_range,
        ipv6_range,
    })
}

/// Reads root certificates. None means "as before": a list that is lost on the way must not cut
/// the agent off.
pub(crate) fn roots(certificates: &[Bytes]) -> Option<Vec<CertificateDer<'static>>> {
    let roots = certificates.iter().map(|der| CertificateDer::from(der.to_vec()));
    (!certificates.is_empty()).then(|| roots.collect())
}

#[derive(Debug, thiserror::Error)]
enum InvalidPrefix {
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    #[error("the length {0} is more than the address has bits")]
    Length(u32),
}

fn prefix(prefix: Option<&sync::Prefix>) -> Result<Option<IpNet>, InvalidPrefix> {
    let Some(prefix) = prefix else { return Ok(None) };
    let length = u8::try_from(prefix.length).map_err(|_| InvalidPrefix::Length(prefix.length))?;
    let net = IpNet::new(address_from_bytes(&prefix.address)?, length);
    net.map(Some).map_err(|_| InvalidPrefix::Length(prefix.length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> sync::Config {
        sync::Config {
            network: "default".into(),
            node_name: "a".into(),
            ipv4: Bytes::from_static(&[10, 90, 0, 7]),
            ipv4_range: Some(sync::Prefix {
                address: Bytes::from_static(&[10, 90, 0, 0]),
                length: 16,
            }),
            ..Default::default()
        }
    }

    #[test]
    fn the_interface_gets_the_range_s_length() {
        let settings = Settings::try_from(&config()).unwrap();
        let expected: IpNet = "10.90.0.7/16".parse().unwrap();
        assert_eq!(settings.addresses.on_interface(), [expected]);
    }

    #[test]
    fn a_bad_field_is_named() {
        let mut long = config();
        long.ipv4_range.as_mut().unwrap().length = 33;
        let error = Settings::try_from(&long).unwrap_err().to_string();
        assert_eq!(error, "config.ipv4_range: the length 33 is more than the address has bits");
        let wrong = sync::Config { ipv4: Bytes::from_static(&[0; 16]), ..config() };
        assert!(Settings::try_from(&wrong).unwrap_err().to_string().starts_with("config.ipv4: "));
    }

    #[test]
    fn an_mtu_is_one_that_a_link_can_have() {
        let read = |mtu, ipv6: &'static [u8]| {
            let config = sync::Config { mtu, ipv6: Bytes::from_static(ipv6), ..config() };
            Settings::try_from(&config).map(|settings| settings.mtu).map_err(|e| e.to_string())
        };
        assert_eq!((read(0, &[]), read(1380, &[1; 16])), (Ok(None), Ok(Some(1380))));
        assert_eq!(read(1000, &[]), Ok(Some(1000)));
        assert_eq!(read(5, &[]), Err("config.mtu: 576 to 65455 bytes, got 5".into()));
        assert!(
            read(1000, &[1; 16]).unwrap_err().starts_with("config.mtu: 1000 bytes are too few")
        );
    }
}
