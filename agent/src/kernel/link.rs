//! The device's link: made if it isn't there, adopted if it is, never made anew; its addresses, MTU
//! and state. Nothing here knows WireGuard.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use futures::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::{
    AddressMessageBuilder, LinkUnspec, LinkWireguard,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressMessage},
        link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage},
    },
};
use wattle_plan::{Maker, Op, Route, Rule};

use super::{
    KernelError,
    netlink::{Netlink, to_io},
    route, rule,
};

/// The longest name that Linux takes.
const MAX_NAME: usize = 15;

/// A link by its name, there or not.
pub(crate) struct Link {
    netlink: Netlink,
    name: String,
    /// The tunnel's mark: names the link's own table and rules.
    mark: u32,
}

/// A link that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) index: u32,
    /// `wireguard`, `tun`, …; empty for hardware.
    pub(crate) kind: String,
    pub(crate) mtu: u32,
    pub(crate) up: bool,
}

impl Link {
    pub(crate) fn new(name: &str, mark: u32) -> Result<Self, KernelError> {
        let fits = (1..=MAX_NAME).contains(&name.len());
        let plain = name.bytes().all(|c| c.is_ascii_graphic() && c != b'/' && c != b':');
        if !fits || !plain || name == "." || name == ".." {
            return Err(KernelError::InvalidName(name.chars().take(80).collect()));
        }
        let netlink = Netlink::connect_strict()
            .map_err(|source| KernelError::system(name, "opening netlink", source))?;
        Ok(Self { netlink, name: name.to_owned(), mark })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The link as it is now, if it is there.
    pub(crate) async fn find(&self) -> Result<Option<Found>, KernelError> {
        let links = self.netlink.handle().link();
        let mut found = links.get().match_name(self.name.clone()).execute();
        match found.try_next().await.map_err(to_io) {
            Ok(message) => Ok(message.as_ref().map(Found::of)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.error("looking for the link", error)),
        }
    }

    /// Makes a WireGuard link. On a kernel that can load the module, this loads it.
    pub(crate) async fn create_wireguard(&self) -> Result<(), KernelError> {
        let message = LinkWireguard::new(&self.name).build();
        match self.netlink.handle().link().add(message).execute().await.map_err(to_io) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EOPNOTSUPP) => {
                Err(KernelError::NoWireGuard)
            }
            result => result.map_err(|error| self.error("making a WireGuard link", error)),
        }
    }

    /// Removes the link, if it is there.
    pub(crate) async fn delete(&self) -> Result<(), KernelError> {
        let Some(found) = self.find().await? else { return Ok(()) };
        match self.netlink.handle().link().del(found.index).execute().await.map_err(to_io) {
            Err(error) if !is_absent(&error) => Err(self.error("removing the link", error)),
            _ => Ok(()),
        }
    }

    /// The link's addresses, without link-local ones.
    pub(crate) async fn addresses(&self, index: u32) -> Result<BTreeSet<IpNet>, KernelError> {
        let messages: Vec<AddressMessage> = self
            .netlink
            .handle()
            .address()
            .get()
            .set_link_index_filter(index)
            .execute()
            .try_collect()
            .await
            .map_err(|error| self.error("listing addresses", to_io(error)))?;
        Ok(messages.iter().filter_map(address_of).filter(|net| !is_link_local(net)).collect())
    }

    /// The routes into the link.
    pub(crate) async fn routes(&self, index: u32) -> Result<BTreeMap<Route, Maker>, KernelError> {
        let routes = route::into_link(&self.netlink, index, self.mark).await;
        routes.map_err(|error| self.error("listing routes", to_io(error)))
    }

    /// Our rules.
    pub(crate) async fn rules(&self) -> Result<BTreeSet<Rule>, KernelError> {
        let rules = rule::list(&self.netlink, self.mark).await;
        rules.map_err(|error| self.error("listing rules", to_io(error)))
    }

    /// Takes our rules away. Routes go with the link, rules don't.
    pub(crate) async fn remove_rules(&self) -> Result<(), KernelError> {
        for rule in self.rules().await?.into_iter().rev() {
            let removed = rule::remove(&self.netlink, rule, self.mark).await;
            removed.map_err(|error| self.error("removing a rule", error))?;
        }
        Ok(())
    }

    /// Executes an operation that concerns the link; `None` if it is another's.
    pub(crate) async fn execute(&self, op: &Op) -> Option<io::Result<()>> {
        let change = match op {
            Op::SetMtu(mtu) => LinkUnspec::new_with_name(&self.name).mtu(*mtu).build(),
            Op::SetUp => LinkUnspec::new_with_name(&self.name).up().build(),
            Op::AddAddress(address) => return Some(self.add_address(*address).await),
            Op::RemoveAddress(address) => return Some(self.remove_address(*address).await),
            Op::AddRoute(_) | Op::RemoveRoute(_) | Op::AddRule(_) | Op::RemoveRule(_) => {
                return Some(self.execute_routing(op).await);
            }
            Op::SetListenPort(_) | Op::SetMark(_) | Op::SetPeer(_) | Op::RemovePeer { .. } => {
                return None;
            }
        };
        Some(self.netlink.handle().link().set(change).execute().await.map_err(to_io))
    }

    async fn execute_routing(&self, op: &Op) -> io::Result<()> {
        let netlink = &self.netlink;
        match op {
            Op::AddRoute(to) => route::add(netlink, *to, self.index().await?, self.mark).await,
            Op::RemoveRoute(to) => {
                route::remove(netlink, *to, self.index().await?, self.mark).await
            }
            Op::AddRule(rule) => rule::add(netlink, *rule, self.mark).await,
            Op::RemoveRule(rule) => rule::remove(netlink, *rule, self.mark).await,
            _ => Ok(()),
        }
    }

    /// The prefix length is the network's, so the kernel adds the route to the network itself.
    async fn add_address(&self, address: IpNet) -> io::Result<()> {
        let addresses = self.netlink.handle().address();
        let request = addresses.add(self.index().await?, address.addr(), address.prefix_len());
        match request.execute().await.map_err(to_io) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EEXIST) => Ok(()),
            result => result,
        }
    }

    async fn remove_address(&self, address: IpNet) -> io::Result<()> {
        let (index, length) = (self.index().await?, address.prefix_len());
        let message = match address.addr() {
            IpAddr::V4(v4) => AddressMessageBuilder::<std::net::Ipv4Addr>::new()
                .index(index)
                .address(v4, length)
                .build(),
            IpAddr::V6(v6) => AddressMessageBuilder::<std::net::Ipv6Addr>::new()
                .index(index)
                .address(v6, length)
                .build(),
        };
        match self.netlink.handle().address().del(message).execute().await.map_err(to_io) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EADDRNOTAVAIL) => Ok(()),
            result => result,
        }
    }

    async fn index(&self) -> io::Result<u32> {
        match self.find().await.map_err(io::Error::other)? {
            Some(found) => Ok(found.index),
            None => Err(io::Error::from_raw_os_error(nix::libc::ENODEV)),
        }
    }

    pub(crate) fn error(&self, doing: &'static str, source: io::Error) -> KernelError {
        KernelError::system(&self.name, doing, source)
    }
}

impl Found {
    fn of(message: &LinkMessage) -> Self {
        let mut found = Self {
            index: message.header.index,
            kind: String::new(),
            mtu: 0,
            up: message.header.flags.contains(LinkFlags::Up),
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Mtu(mtu) => found.mtu = *mtu,
                LinkAttribute::LinkInfo(infos) => {
                    found.kind = infos.iter().find_map(kind_of).unwrap_or_default();
                }
                _ => {}
            }
        }
        found
    }
}

fn kind_of(info: &LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(kind) => Some(InfoKind::to_string(kind)),
        _ => None,
    }
}

/// The address and its prefix length. On a point-to-point link `Address` is the other end's.
pub(crate) fn address_of(message: &AddressMessage) -> Option<IpNet> {
    let mut ends = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => ends.0 = Some(*address),
            AddressAttribute::Address(address) => ends.1 = Some(*address),
            _ => {}
        }
    }
    let known = matches!(message.header.family, AddressFamily::Inet | AddressFamily::Inet6);
    let address = ends.0.or(ends.1).filter(|_| known)?;
    IpNet::new(address, message.header.prefix_len).ok()
}

pub(crate) fn is_link_local(net: &IpNet) -> bool {
    match net.addr() {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn is_absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::ENODEV)
}
