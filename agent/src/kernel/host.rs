//! What the host's other interfaces say: where this node may be reached, which candidates of its
//! peers are next door, and whether the overlay would shadow something. Reads only.

use std::{collections::BTreeMap, net::IpAddr};

use futures::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::packet_route::{
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
};

use super::{
    KernelError,
    link::{address_of, is_link_local},
    netlink::{Netlink, to_io},
    route::{self, Route},
};

/// What container and machine runtimes call the bridges and pairs they make: nobody outside reaches
/// an address there.
const INTERNAL: [&str; 11] = [
    "docker", "virbr", "veth", "cni", "podman", "lxcbr", "lxdbr", "flannel", "cali", "cilium",
    "kube-",
];

/// `br-` and twelve hex digits: a network of Docker's. Shorter ones are people's own bridges.
const DOCKER_NETWORK: usize = 15;

/// The least that IPv6 works with: below it the tunnel's packets are rather cut.
const MIN_MTU: u32 = 1280;
/// The largest that fits an IP packet.
const MAX_MTU: u32 = 65_535 - 80;

/// The IP and UDP headers, and WireGuard's own 32 bytes.
const fn overhead(family: Version) -> u32 {
    if family == 4 { 60 } else { 80 }
}

/// The host's interfaces and routes at one moment, this agent's own left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    addresses: Vec<Address>,
    routes: Vec<(String, IpNet)>,
    /// What the interfaces of the default routes can carry, by family.
    default_mtu: Vec<(Version, u32)>,
}

/// 4 or 6.
type Version = u8;

const fn version(address: IpAddr) -> Version {
    if address.is_ipv4() { 4 } else { 6 }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    interface: String,
    net: IpNet,
    /// What its interface can carry.
    mtu: u32,
    /// Up, and not the loopback.
    reachable: bool,
    /// Inside a runtime or another overlay.
    internal: bool,
    /// Neither being checked, nor on its way out, nor changed every day for privacy.
    stable: bool,
}

/// The overlay's range overlaps something of the host's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the network's range {range} overlaps {what} {net} on interface {interface} of this host: give \
     the network another range, or take that {what} away"
)]
pub struct Overlap {
    /// The overlay's.
    pub range: IpNet,
    /// `address` or `route`.
    pub what: &'static str,
    /// The host's.
    pub net: IpNet,
    /// The interface that has it.
    pub interface: String,
}

impl Host {
    /// Reads all but `interface`, which is this agent's own.
    pub async fn read(interface: &str) -> Result<Self, KernelError> {
        let failed = |error| {
            KernelError::system(interface, "reading the host's addresses and routes", error)
        };
        let netlink = Netlink::connect().map_err(failed)?;
        let links: Vec<LinkMessage> = netlink
            .handle()
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(to_io)
            .map_err(failed)?;
        let addresses: Vec<AddressMessage> = netlink
            .handle()
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(to_io)
            .map_err(failed)?;
        let routes = route::list(&netlink).await.map_err(to_io).map_err(failed)?;

        let links: BTreeMap<u32, LinkMessage> =
            links.into_iter().map(|link| (link.header.index, link)).collect();
        let others: BTreeMap<u32, LinkMessage> =
            links.into_iter().filter(|(_, link)| name(link) != interface).collect();
        Ok(Self {
            addresses: addresses.iter().filter_map(|a| Address::of(a, &others)).collect(),
            routes: routes.iter().filter_map(|route| named(route, &others)).collect(),
            default_mtu: default_mtu(&routes, &others),
        })
    }

    /// A host with these addresses, for tests of what depends on them.
    #[cfg(test)]
    pub(crate) fn with_addresses(nets: &[&str]) -> Self {
        let address = |net: &&str| Address {
            interface: "eth0".to_owned(),
            net: net.parse().unwrap(),
            mtu: 1500,
            reachable: true,
            internal: false,
            stable: true,
        };
        Self { addresses: nets.iter().map(address).collect(), ..Self::default() }
    }

    /// Addresses under which peers may reach this host, in the kernel's order. Those inside a
    /// container runtime or another overlay count only where there are no others.
    pub fn candidates(&self) -> Vec<IpAddr> {
        let usable = || self.addresses.iter().filter(|a| a.reachable && a.stable);
        let outside: Vec<IpAddr> = usable().filter(|a| !a.internal).map(|a| a.net.addr()).collect();
        if outside.is_empty() { usable().map(|a| a.net.addr()).collect() } else { outside }
    }

    /// The subnets that this host is in, for the ranking of its peers' candidates.
    pub fn attached(&self) -> Vec<IpNet> {
        self.addresses
            .iter()
            .filter(|a| a.reachable && !a.internal)
            .map(|a| a.net.trunc())
            .collect()
    }

    /// What the tunnel can carry without its packets being cut: the narrowest path that they may
    /// take, less what WireGuard adds. That is the default route's, and those of the subnets that
    /// an endpoint in use is in; where there is no default route, every subnet's. `None` where this
    /// host has no way out.
    pub fn tunnel_mtu(&self, endpoints: impl Iterator<Item = IpAddr>) -> Option<u32> {
        let outside = || self.addresses.iter().filter(|a| a.reachable && !a.internal);
        let mut paths = self.default_mtu.clone();
        for endpoint in endpoints {
            let near = outside().filter(|own| own.net.contains(&endpoint));
            paths.extend(near.map(|own| (version(endpoint), own.mtu)));
        }
        for family in [4, 6] {
            if !self.default_mtu.iter().any(|(of, _)| *of == family) {
                let all = outside().filter(|own| version(own.net.addr()) == family);
                paths.extend(all.map(|own| (family, own.mtu)));
            }
        }
        let carried = paths.iter().map(|(family, mtu)| mtu.saturating_sub(overhead(*family)));
        carried.min().map(|mtu| mtu.clamp(MIN_MTU, MAX_MTU))
    }

    /// Whether an address is the host's own: if the address that the control plane saw isn't, this
    /// node is behind NAT.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.net.addr() == address)
    }

    /// Whether this machine goes out another way than before. What containers and overlays do on it
    /// doesn't count.
    pub fn has_moved_since(&self, before: &Self) -> bool {
        let outside = |host: &Self| -> Vec<IpNet> {
            let outside = host.addresses.iter().filter(|a| a.reachable && !a.internal);
            outside.map(|own| own.net).collect()
        };
        outside(self) != outside(before) || self.default_mtu != before.default_mtu
    }

    /// Refuses ranges that overlap an address or a route of the host. Default routes don't count,
    /// nor the two halves that VPNs lay over one.
    pub fn check_overlap(&self, ranges: &[IpNet]) -> Result<(), Overlap> {
        let addresses = self.addresses.iter().map(|own| ("address", &own.interface, own.net));
        let routes = self.routes.iter().map(|(interface, net)| ("route", interface, *net));
        for (what, interface, net) in
            addresses.chain(routes.filter(|(.., net)| net.prefix_len() > 1))
        {
            // An address claims itself; its subnet is a route's.
            let claimed = if what == "address" { IpNet::from(net.addr()) } else { net };
            if let Some(range) = ranges.iter().find(|range| overlap(range, &claimed)) {
                let interface = interface.clone();
                return Err(Overlap { range: *range, what, net, interface });
            }
        }
        Ok(())
    }
}

impl Address {
    fn of(message: &AddressMessage, links: &BTreeMap<u32, LinkMessage>) -> Option<Self> {
        let link = links.get(&message.header.index)?;
        let net = address_of(message).filter(|net| !is_link_local(net))?;
        let flags = link.header.flags;
        let universe = message.header.scope == AddressScope::Universe;
        Some(Self {
            interface: name(link).to_owned(),
            net,
            mtu: mtu(link),
            reachable: universe
                && flags.contains(LinkFlags::Up)
                && !flags.contains(LinkFlags::Loopback),
            internal: is_internal(link),
            stable: is_stable(message, net),
        })
    }
}

/// `Secondary` means "temporary" of an IPv6 address, and no more than "not the first" of an IPv4.
fn is_stable(message: &AddressMessage, net: IpNet) -> bool {
    let mut flags = u32::from(message.header.flags.bits());
    for attribute in &message.attributes {
        if let AddressAttribute::Flags(all) = attribute {
            flags = AddressFlags::bits(all);
        }
    }
    let mut bad = AddressHeaderFlags::Tentative
        | AddressHeaderFlags::Deprecated
        | AddressHeaderFlags::Dadfailed;
    if net.addr().is_ipv6() {
        bad |= AddressHeaderFlags::Secondary;
    }
    flags & u32::from(bad.bits()) == 0
}

fn is_internal(link: &LinkMessage) -> bool {
    let overlay = link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().any(|info| {
            matches!(info, LinkInfo::Kind(InfoKind::Wireguard | InfoKind::Tun | InfoKind::Vxlan))
        }),
        _ => false,
    });
    let name = name(link);
    overlay
        || INTERNAL.iter().any(|prefix| name.starts_with(prefix))
        || name.starts_with("br-") && name.len() == DOCKER_NETWORK
}

fn name(link: &LinkMessage) -> &str {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    });
    name.unwrap_or_default()
}

fn mtu(link: &LinkMessage) -> u32 {
    let mtu = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    });
    mtu.unwrap_or(1500)
}

/// Of each family's preferred default route.
fn default_mtu(routes: &[Route], links: &BTreeMap<u32, LinkMessage>) -> Vec<(Version, u32)> {
    let mut found = Vec::new();
    for family in [4, 6] {
        let usable = routes
            .iter()
            .filter(|route| route.is_default() && version(route.destination.addr()) == family);
        let usable = usable.filter_map(|r| Some((r, links.get(&r.interface?)?)));
        if let Some((route, link)) = usable.min_by_key(|(route, _)| route.priority) {
            found.push((family, route.mtu.map_or(mtu(link), |path| path.min(mtu(link)))));
        }
    }
    found
}

fn named(route: &Route, links: &BTreeMap<u32, LinkMessage>) -> Option<(String, IpNet)> {
    let interface = match route.interface {
        Some(index) => name(links.get(&index)?).to_owned(),
        None => "several".to_owned(),
    };
    Some((interface, route.destination)).filter(|(_, net)| !is_link_local(net))
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(interfaces: &[(&str, &str, bool)], routes: &[(&str, &str)]) -> Host {
        let addresses = interfaces.iter().map(|(interface, net, internal)| Address {
            interface: (*interface).to_owned(),
            net: net.parse().unwrap(),
            mtu: 1500,
            reachable: true,
            internal: *internal,
            stable: true,
        });
        let routes = routes.iter().map(|(i, net)| ((*i).to_owned(), net.parse().unwrap()));
        let (addresses, routes) = (addresses.collect(), routes.collect());
        Host { addresses, routes, default_mtu: Vec::new() }
    }

    #[test]
    fn the_tunnel_carries_what_the_narrowest_path_does_less_what_wireguard_adds() {
        let none = || std::iter::empty::<IpAddr>();
        let four = ("eth0", "192.0.2.1/24", false);
        let six = ("eth0", "2001:db8::1/64", false);
        assert_eq!(host(&[], &[]).tunnel_mtu(none()), None);
        assert_eq!(host(&[four], &[]).tunnel_mtu(none()), Some(1440));
        assert_eq!(host(&[four, six], &[]).tunnel_mtu(none()), Some(1420));

        let mut jumbo =
            host(&[("eth0", "10.0.0.1/24", false), ("eth1", "10.1.0.1/24", false)], &[]);
        jumbo.addresses[0].mtu = 9001;
        jumbo.default_mtu = vec![(4, 9001)];
        assert_eq!(jumbo.tunnel_mtu(none()), Some(8941), "the default route's");
        let near = "10.1.0.9".parse().unwrap();
        assert_eq!(jumbo.tunnel_mtu([near].into_iter()), Some(1440), "a neighbour's");
        jumbo.default_mtu = vec![(4, 1300)];
        assert_eq!(jumbo.tunnel_mtu(none()), Some(1280), "IPv6 works with no less");
    }

    #[test]
    fn internal_addresses_count_only_alone() {
        let both = [("eth0", "192.0.2.1/24", false), ("docker0", "172.17.0.1/16", true)];
        assert_eq!(host(&both, &[]).candidates(), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(host(&both[1..], &[]).candidates().len(), 1);
        assert_eq!(host(&both, &[]).attached(), ["192.0.2.0/24".parse::<IpNet>().unwrap()]);
    }

    #[test]
    fn an_overlap_names_what_and_where() {
        let ranges: [IpNet; 2] = ["10.90.0.0/16".parse().unwrap(), "fd00::/64".parse().unwrap()];
        let overlap = |interfaces: &[_], routes: &[_]| {
            host(interfaces, routes).check_overlap(&ranges).unwrap_err().to_string()
        };
        let text = overlap(&[("eth1", "10.90.3.4/24", false)], &[]);
        assert!(
            text.starts_with(
                "the network's range 10.90.0.0/16 overlaps address 10.90.3.4/24 on interface eth1"
            ),
            "{text}"
        );
        let text = overlap(&[], &[("tun7", "10.0.0.0/8")]);
        assert!(text.contains("route 10.0.0.0/8 on interface tun7"), "{text}");
        let text = overlap(&[], &[("eth0", "fd00::8:0/112")]);
        assert!(text.contains("fd00::/64 overlaps route"), "{text}");
    }

    #[test]
    fn default_routes_and_neighbouring_ranges_overlap_nothing() {
        let routes = [
            ("eth0", "0.0.0.0/0"),
            ("tun0", "0.0.0.0/1"),
            ("eth0", "10.91.0.0/16"),
            ("eth0", "::/0"),
        ];
        let host = host(&[("eth0", "10.89.255.255/16", false)], &routes);
        assert_eq!(host.check_overlap(&["10.90.0.0/16".parse().unwrap()]), Ok(()));
    }
}
