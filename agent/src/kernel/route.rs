//! Routes: the host's, to read, and this agent's own into its link, known by who says to have made
//! them. Nobody else's are touched.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use futures::TryStreamExt as _;
use ipnet::IpNet;
use rtnetlink::{
    Error, RouteMessageBuilder,
    packet_route::{
        AddressFamily,
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteScope, RouteType},
    },
};
use wattle_plan::{Maker, Route as Wanted, Table};

use super::{
    netlink::{Netlink, to_io},
    rule::PROTOCOL,
};

const MAIN: u32 = 254;

/// Where packets for a prefix go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// A default route's is of length 0.
    pub(crate) destination: IpNet,
    pub(crate) table: u32,
    /// The interface's index; `None` for a route with several next hops.
    pub(crate) interface: Option<u32>,
    /// Lower is preferred.
    pub(crate) priority: u32,
    /// Where the path is known to be narrower than the interface.
    pub(crate) mtu: Option<u32>,
    ours: bool,
}

/// All routes that send packets somewhere, of both families and every table: not the kernel's own
/// local and broadcast ones, nor those that refuse.
pub(crate) async fn list(netlink: &Netlink) -> Result<Vec<Route>, Error> {
    let mut routes = Vec::new();
    for request in [
        RouteMessageBuilder::<Ipv4Addr>::new().build(),
        RouteMessageBuilder::<Ipv6Addr>::new().build(),
    ] {
        routes.extend(dump(netlink, request).await?);
    }
    Ok(routes)
}

/// The routes into one link, of the main table and of table `own`. Needs a strict connection.
pub(crate) async fn into_link(
    netlink: &Netlink,
    index: u32,
    own: u32,
) -> Result<BTreeMap<Wanted, Maker>, Error> {
    let mut routes = BTreeMap::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        // Whatever else a strict request says is a filter, too.
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        request.attributes.push(RouteAttribute::Oif(index));
        for route in dump(netlink, request).await? {
            let table = match route.table {
                MAIN => Table::Main,
                table if table == own => Table::Own,
                _ => continue,
            };
            let maker = if route.ours { Maker::Us } else { Maker::Other };
            routes.insert(Wanted { destination: route.destination, table }, maker);
        }
    }
    Ok(routes)
}

/// Adds a route into a link, unless somebody has one there: theirs stays.
pub(crate) async fn add(netlink: &Netlink, route: Wanted, index: u32, own: u32) -> io::Result<()> {
    let request = netlink.handle().route().add(message(route, index, own));
    match request.execute().await.map_err(to_io) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EEXIST) => {
            let ours = into_link(netlink, index, own).await.map_err(to_io)?;
            if ours.contains_key(&route) {
                return Ok(());
            }
            let net = route.destination;
            Err(io::Error::other(format!(
                "this host has a route to {net} through another interface, which stays"
            )))
        }
        result => result,
    }
}

pub(crate) async fn remove(
    netlink: &Netlink,
    route: Wanted,
    index: u32,
    own: u32,
) -> io::Result<()> {
    let request = netlink.handle().route().del(message(route, index, own));
    match request.execute().await.map_err(to_io) {
        Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(()),
        result => result,
    }
}

fn message(route: Wanted, index: u32, own: u32) -> RouteMessage {
    let table = match route.table {
        Table::Main => MAIN,
        Table::Own => own,
    };
    let length = route.destination.prefix_len();
    match route.destination.addr() {
        IpAddr::V4(v4) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(v4, length)
            .scope(RouteScope::Link)
            .output_interface(index)
            .protocol(PROTOCOL)
            .table_id(table)
            .build(),
        IpAddr::V6(v6) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(v6, length)
            .output_interface(index)
            .protocol(PROTOCOL)
            .table_id(table)
            .build(),
    }
}

async fn dump(netlink: &Netlink, request: RouteMessage) -> Result<Vec<Route>, Error> {
    let mut messages = netlink.handle().route().get(request).execute();
    let mut routes = Vec::new();
    while let Some(message) = messages.try_next().await? {
        routes.extend(Route::of(&message));
    }
    Ok(routes)
}

impl Route {
    fn of(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        if header.kind != RouteType::Unicast {
            return None;
        }
        let mut destination = match header.address_family {
            AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let (mut table, mut interface) = (u32::from(header.table), None);
        let (mut priority, mut mtu) = (0, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(v4)) => destination = (*v4).into(),
                RouteAttribute::Destination(RouteAddress::Inet6(v6)) => destination = (*v6).into(),
                RouteAttribute::Oif(index) => interface = Some(*index),
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Priority(number) => priority = *number,
                RouteAttribute::Metrics(metrics) => mtu = metrics.iter().find_map(mtu_of),
                _ => {}
            }
        }
        let destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
        let ours = header.protocol == PROTOCOL;
        Some(Self { destination, table, interface, priority, mtu, ours })
    }

    /// Whether everybody's packets without a better route go here.
    pub(crate) fn is_default(&self) -> bool {
        self.table == MAIN && self.destination.prefix_len() == 0
    }
}

const fn mtu_of(metric: &RouteMetric) -> Option<u32> {
    match metric {
        RouteMetric::Mtu(mtu) => Some(*mtu),
        _ => None,
    }
}
