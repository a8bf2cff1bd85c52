//! Where agents reach this control plane: what the operator says, or what the machine's interfaces
//! suggest. Join tokens carry these addresses, so they are shown at start.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// Addresses guessed, at most: a token carries all of them.
const GUESSES: usize = 8;

/// A host, and a port where it isn't the one listened on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Advertise {
    host: String,
    port: Option<u16>,
}

impl Advertise {
    /// `host:port`, as agents dial it.
    fn with_port(&self, listened: u16) -> String {
        let port = self.port.unwrap_or(listened);
        if self.host.contains(':') {
            format!("[{}]:{port}", self.host)
        } else {
            format!("{}:{port}", self.host)
        }
    }
}

impl FromStr for Advertise {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no host or host:port that agents could reach");
        if let Ok(ip) = text.parse::<IpAddr>() {
            return checked(ip, None).ok_or_else(bad);
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return checked(address.ip(), Some(address.port())).ok_or_else(bad);
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse::<u16>().map_err(|_| bad())?)),
            None => (text, None),
        };
        let label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c))
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.len() > 253 || !host.split('.').all(label) || port == Some(0) {
            return Err(bad());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

fn checked(ip: IpAddr, port: Option<u16>) -> Option<Advertise> {
    let reachable = !ip.is_unspecified() && !ip.is_multicast() && port != Some(0);
    reachable.then(|| Advertise { host: ip.to_string(), port })
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => f.write_str(&self.with_port(port)),
            None => f.write_str(&self.host),
        }
    }
}

impl TryFrom<String> for Advertise {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Advertise> for String {
    fn from(advertise: Advertise) -> Self {
        advertise.to_string()
    }
}

/// The addresses to give to agents, best first, for a control plane that listens on `listen`.
pub fn addresses(said: &[Advertise], listen: SocketAddr) -> Vec<String> {
    if !said.is_empty() {
        return said.iter().map(|advertise| advertise.with_port(listen.port())).collect();
    }
    if !listen.ip().is_unspecified() {
        return vec![listen.to_string()];
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::warn!(%error, "interfaces can't be listed: say --advertise");
        Vec::new()
    });
    // Point to point are tunnels, our own among them.
    let usable = interfaces.iter().filter(|interface| !interface.is_p2p);
    let guessed = guess(usable.map(if_addrs::Interface::ip), listen.is_ipv6());
    if guessed.is_empty() {
        tracing::warn!(
            "no address but loopback: only agents on this machine can join; say --advertise"
        );
        return vec![SocketAddr::new([127, 0, 0, 1].into(), listen.port()).to_string()];
    }
    guessed.into_iter().map(|ip| SocketAddr::new(ip, listen.port()).to_string()).collect()
}

/// Where other replicas reach this one, which listens on `listen`.
pub fn replica_address(said: Option<&Advertise>, listen: SocketAddr) -> String {
    match said {
        Some(said) => said.with_port(listen.port()),
        // This machine's own: what agents are told may be a load balancer, which leads anywhere.
        None => addresses(&[], listen).swap_remove(0),
    }
}

/// Globally routable addresses first, then private ones; IPv4 before IPv6, which a listener on an
/// IPv4 address doesn't serve.
fn guess(addresses: impl Iterator<Item = IpAddr>, serves_ipv6: bool) -> Vec<IpAddr> {
    let link_local = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let mut usable: Vec<_> = addresses
        .filter(|ip| !ip.is_loopback() && !link_local(ip) && !ip.is_unspecified())
        .filter(|ip| ip.is_ipv4() || serves_ipv6)
        .collect();
    usable.sort_by_key(|ip| (is_private(ip), ip.is_ipv6()));
    usable.dedup();
    usable.truncate(GUESSES);
    usable
}

fn is_private(ip: &IpAddr) -> bool {
    match ip {
        // 100.64.0.0/10 is shared by whoever sits behind one provider's NAT.
        IpAddr::V4(v4) => {
            v4.is_private() || (v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 0x40)
        }
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_addresses_get_the_port_they_lack() {
        let cases = [
            ("192.0.2.1", "192.0.2.1:7443"),
            ("192.0.2.1:5", "192.0.2.1:5"),
            ("2001:db8::1", "[2001:db8::1]:7443"),
            ("[2001:db8::1]:5", "[2001:db8::1]:5"),
            ("vpn.example.com", "vpn.example.com:7443"),
            ("vpn.example.com:5", "vpn.example.com:5"),
        ];
        for (said, address) in cases {
            let advertise: Advertise = said.parse().unwrap();
            assert_eq!(advertise.with_port(7443), address);
            assert_eq!(advertise.to_string().parse(), Ok(advertise));
        }
    }

    #[test]
    fn what_nobody_can_dial_is_refused() {
        for said in
            ["", "a b", "0.0.0.0", "[::]:5", "host:0", "host:x", "host:70000", "http://a", "a..b"]
        {
            assert!(said.parse::<Advertise>().is_err(), "{said}");
        }
    }

    #[test]
    fn guesses_are_reachable_and_global_ones_come_first() {
        let all = ["127.0.0.1", "10.0.0.5", "169.254.1.1", "2001:db8::5", "fe80::1", "192.0.2.7"];
        let all = || all.iter().map(|ip| ip.parse().unwrap());
        let text = |ips: Vec<IpAddr>| ips.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(guess(all(), true)), ["192.0.2.7", "2001:db8::5", "10.0.0.5"]);
        assert_eq!(text(guess(all(), false)), ["192.0.2.7", "10.0.0.5"]);
    }

    #[test]
    fn other_replicas_are_told_what_was_said_or_an_own_address() {
        let said: Advertise = "10.0.0.5".parse().unwrap();
        let listen = ([127, 0, 0, 1], 5).into();
        assert_eq!(replica_address(Some(&said), listen), "10.0.0.5:5");
        assert_eq!(replica_address(None, listen), "127.0.0.1:5");
    }

    #[test]
    fn a_listener_on_one_address_is_reached_there() {
        assert_eq!(addresses(&[], ([127, 0, 0, 1], 5).into()), ["127.0.0.1:5"]);
    }
}
